"""score_features.py from a config to numbers: text, model and SAEs; codes of all layers; metrics, ablations, scores."""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from src.activations.collect import batches_of_like_length
from src.activations.job import refuse_long_sequences
from src.artifacts import Artifact, Parent
from src.causal.ablation import ablate_features
from src.causal.attribution import attribute_features
from src.config.score_features import PresetConfig, ScoreFeaturesConfig
from src.errors import StrataError
from src.features.codes import SparseCodes
from src.features.encoding import encode_text, pairing_rows
from src.features.sae import Sae, require_point
from src.features.scores.attribution import Effects, attributed_effects, of_some
from src.features.scores.layer_scores import (
    FeatureMetrics,
    ScoredLayer,
    choose_candidates,
    measure_features,
    score_features,
)
from src.features.scores.scoring import Preset, Weights, rank_correlation
from src.models import LanguageModel, layers_in_config, load_model
from src.models.head import VocabularyHead
from src.models.loading import load_tokenizer
from src.models.unembedding import read_unembedding
from src.stage.context import Stage
from src.stage.saes import PairedSae, find_saes, pair_saes
from src.stage.sequences import Reading, prepare_table
from src.text import Keep, SequenceTable, TokenSequence, content_hashes
from src.transport.bootstrap import FEW_DOCUMENTS

_PAIRING_ROWS = 4096
_MEASURED = ("ablation", "integrated")


@dataclass(frozen=True, eq=False)
class ScoringWork:
    """All that scoring needs. sequences: one for each different document, like lengths side by side."""

    config: ScoreFeaturesConfig
    text: Artifact
    sequences: list[TokenSequence]
    model: LanguageModel
    saes: dict[int, Sae]
    tokenizer: PreTrainedTokenizerBase

    @property
    def dataset(self) -> str:
        """The text, for readers."""
        split = self.config.dataset.dataset_split
        return f"{self.config.dataset.dataset_name}{f' ({split})' if split else ''}"

    @property
    def which(self) -> str:
        """The layer, or how many there are."""
        return f"layer-{next(iter(self.saes))}" if len(self.saes) == 1 else f"{len(self.saes)}-layers"

    def word(self, token: int) -> str:
        """The text of a token id, for readers."""
        text = str(self.tokenizer.decode([token]))
        return text.strip() or repr(text)

    def reference_meta(self) -> dict[str, Any]:
        """What is written beside the scores of every layer: the reference's keys, and ours."""
        config = self.config
        return {
            "model_name": config.model.name,
            "top_percent": config.top_percent,
            "candidate_percent": config.candidate_percent if config.causal in _MEASURED else None,
            "dataset": config.dataset.model_dump(mode="json"),
            "preset": config.preset.model_dump(mode="json"),
            "causal": config.causal,
        }

    @property
    def parents(self) -> list[Parent]:
        """The artifacts that the scores are made from."""
        return [self.text.parent]

    def identity(self) -> dict[str, Any]:
        """What decides the numbers beside the parents, for the fingerprint."""
        config = self.config
        keys = {"causal", "top_percent", "coherence_prior"}
        if config.causal in _MEASURED:
            keys |= {"candidate_percent", "ablation_tokens", "seed"}
        if config.causal == "integrated":
            keys |= {"integrated", "batch_size"}  # groups of features are drawn anew for every batch
        return {
            "model": self.model.identity_of_predictions(),
            "saes": {str(layer): sae.identity for layer, sae in self.saes.items()},
            "preset": config.preset.model_dump(mode="json"),
            **config.model_dump(mode="json", include=keys),
        }


def prepare(config: ScoreFeaturesConfig, stage: Stage) -> ScoringWork:
    """Read the text, load the model and find the SAEs.

    Raises:
        StrataError: a layer that the model does not have, SAEs that can't be loaded, sequences beyond the model's
            positions, a text without anything to count.
    """
    _refuse_layers(config, layers_in_config(config.model))
    reading = Reading(config.context_window, num_tokens=config.max_tokens)
    text = prepare_table(stage, config.model, config.dataset, reading)
    table = SequenceTable(text.path)
    sequences = _different(stage, table)
    model = load_model(config.model, stage.device)
    _refuse_layers(config, model.n_layers)
    refuse_long_sequences(model, table)
    saes = find_saes(stage, config.sae, config.layers, range(model.n_layers), config.sae_l0)
    for layer, sae in saes.items():
        _refuse_other_width(sae, model, layer)
    return ScoringWork(config, text, sequences, model, dict(sorted(saes.items())), load_tokenizer(config.model))


def _refuse_layers(config: ScoreFeaturesConfig, n_layers: int | None) -> None:
    named = [] if config.layers == "all" else [config.layers] if isinstance(config.layers, int) else config.layers
    beyond = [] if n_layers is None else [layer for layer in named if layer >= n_layers]
    if beyond:
        raise StrataError(f"layers={beyond}: {config.model.name} has layers 0..{(n_layers or 0) - 1}")


def _refuse_other_width(sae: Sae, model: LanguageModel, layer: int) -> None:
    model.check_hook_points([require_point(sae)])
    if sae.d_model != model.d_model:
        raise StrataError(
            f"SAE {sae.source} (layer {layer}) reads activations of width {sae.d_model}, and those of "
            f"{model.config.name} have width {model.d_model}: take an SAE of this model"
        )


def _different(stage: Stage, table: SequenceTable) -> list[TokenSequence]:
    """The sequences that have counted tokens, each text once: documents are the units of all intervals."""
    read = table.read(0, table.n_sequences)
    counted = [it for it in read if (it.roles == Keep.COUNTED).any()]
    if not counted:
        raise StrataError(
            f"none of the {table.n_tokens:,} tokens read is one that statistics count (BOS and special tokens are "
            "left out): choose another dataset=..."
        )
    first = np.unique(content_hashes((it.token_ids for it in counted), seed=0), return_index=True)[1]
    if len(first) < len(counted):
        stage.say(f"{len(counted) - len(first):,} documents repeat another one's text: they are left out")
    different = [counted[place] for place in sorted(first)]
    if len(different) < FEW_DOCUMENTS:
        stage.warn(
            f"only {len(different)} different documents: intervals from so few are too narrow, and rare features have "
            "little to show; raise max_tokens"
        )
    lengths = np.array([len(it.token_ids) for it in different])
    return [different[place] for batch in batches_of_like_length(lengths, len(lengths)) for place in batch]


@contextmanager
def scratch(folder: Path) -> Iterator[Path]:
    """A place for codes within an artifact under construction; it is empty again when the artifact is sealed."""
    with tempfile.TemporaryDirectory(prefix=".codes-", dir=folder) as place:
        yield Path(place)


def preset_of(config: PresetConfig) -> Preset:
    """The preset that a config describes."""
    weights = {name: Weights(**getattr(config, name).model_dump()) for name in ("first", "final")}
    return Preset(config.normalisation, config.missing, config.effect, **weights)


def score(work: ScoringWork, stage: Stage, folder: Path) -> list[ScoredLayer]:
    """Check the SAEs on the text, encode it, measure every feature, and the effects of candidates, and score.

    folder: for the codes while they are needed, about 12 bytes for each feature that fires at a token.

    Raises:
        StrataError: an SAE that does not fit its hook, a model that predicts no tokens, or a failing pass.
    """
    config, model = work.config, work.model
    preset = preset_of(config.preset)
    head = VocabularyHead(model)
    unembedding = read_unembedding(model)
    paired = _check_saes(work)
    with stage.progress("encoding", len(work.sequences), "documents") as advance:
        with_effect = None if config.causal == "none" else head
        codes = encode_text(model, work.saes, work.sequences, config.batch_size, folder, with_effect, advance)
    with stage.progress("measuring", len(paired), "layers") as advance:
        metrics: dict[int, FeatureMetrics] = {}
        for layer, sae in work.saes.items():
            metrics[layer] = measure_features(sae, codes[layer], unembedding, config.coherence_prior, stage.device)
            advance(1)
    effects: dict[int, _Measured] = {}
    if config.causal in _MEASURED:
        effects = _measure_effects(work, stage, codes, metrics, preset)
    scored = []
    for layer, sae in work.saes.items():
        found = metrics[layer]
        of_layer = effects.get(layer)
        causal = found.attribution if of_layer is None else of_layer.effects
        scores = score_features(found, causal, preset, config.top_percent)
        of_text = codes[layer].n_tokens, codes[layer].n_documents
        measured = (found.firing.n_active.new_zeros(0), None, config.causal, float("nan"))
        if of_layer is not None:
            measured = (of_layer.candidates, of_layer.effects, config.causal, of_layer.agreement)
        scored.append(ScoredLayer(layer, sae, paired[layer].pairing, *of_text, found, *measured, scores))
    return scored


@dataclass(frozen=True, eq=False)
class _Measured:
    """Measured effects (NaN: no candidate), and how their ranks agree with attributed ones in the same documents."""

    candidates: Int[Tensor, " candidate"]
    effects: Effects
    agreement: float


def _measure_effects(
    work: ScoringWork,
    stage: Stage,
    codes: Mapping[int, SparseCodes],
    metrics: Mapping[int, FeatureMetrics],
    preset: Preset,
) -> dict[int, _Measured]:
    """Effects of each layer's candidates in documents drawn from the text."""
    config = work.config
    drawn = _drawn(work.sequences, config.ablation_tokens, config.seed)
    sequences, documents = [work.sequences[place] for place in drawn.nonzero()[0]], np.arange(drawn.sum())
    found = {}
    with stage.progress("measuring effects", len(sequences) * len(work.saes), "documents x layers") as advance:
        for layer, sae in work.saes.items():
            candidates = choose_candidates(metrics[layer], preset, config.candidate_percent)
            if not len(candidates):
                continue
            subject = work.model, require_point(sae), sae
            if config.causal == "ablation":
                measured = ablate_features(
                    *subject,
                    candidates.tolist(),
                    sequences,
                    documents,
                    batch_size=config.batch_size,
                    rows_per_pass=config.rows_per_pass,
                    advance=advance,
                )
            else:
                measured = attribute_features(
                    *subject,
                    sequences,
                    documents,
                    features=candidates.tolist(),
                    groups=config.integrated.groups,
                    steps=config.integrated.steps,
                    seed=config.seed,
                    batch_size=config.batch_size,
                    advance=advance,
                )
            means = measured.per_token.estimate(), measured.per_firing.estimate()
            attributed = attributed_effects(codes[layer], stage.device, torch.from_numpy(drawn))
            agreement = rank_correlation(attributed.per_firing.value[candidates], means[1].value)
            found[layer] = _Measured(candidates, of_some(sae.n_features, candidates, *means), agreement)
    return found


def _drawn(sequences: Sequence[TokenSequence], n_tokens: int, seed: int) -> Bool[np.ndarray, " sequence"]:
    """Which of the sequences are drawn, at random, until they hold so many tokens."""
    order = np.random.default_rng(seed).permutation(len(sequences))
    before = np.cumsum([0, *(len(sequences[place].token_ids) for place in order)])[:-1]
    drawn = np.zeros(len(sequences), bool)
    drawn[order[before < n_tokens]] = True
    return drawn


def _check_saes(work: ScoringWork) -> dict[int, PairedSae]:
    """The SAEs after their pairing was checked, on documents drawn from all of the text."""
    draws = np.random.default_rng(work.config.seed)
    some = [work.sequences[place] for place in draws.permutation(len(work.sequences))]
    points = [require_point(sae) for sae in work.saes.values()]
    rows = pairing_rows(work.model, points, some, work.config.batch_size, _PAIRING_ROWS)
    return pair_saes(work.saes, rows, work.config.sae.max_fvu)
