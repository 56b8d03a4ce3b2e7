"""analysis=lexicon."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from src.activations.clouds import clouds_of_model, clouds_of_store
from src.activations.token_choice import sequence_tokens, store_tokens
from src.artifacts import Parent, label
from src.config.geometry.stage import Analysis, GeometryConfig
from src.errors import StrataError
from src.geometry.lexicon.sources import read_taxonomy
from src.geometry.lexicon.taxonomy import Taxonomy
from src.geometry.words.matching import Matches, match_words
from src.geometry.words.notebook import notebook_chains, notebook_seeds, seed_summary
from src.geometry.words.occurrences import words_around
from src.geometry.words.profiling import ProfileSettings, WordProfile, WordRows, profile_words
from src.geometry.words.word_distances import word_distances
from src.hook_points import HookPoint
from src.models import LanguageModel, load_model
from src.models.checkpoint import open_weights
from src.models.embedding_tables import EmbeddingTables, read_embeddings
from src.models.loading import load_tokenizer
from src.models.token_table import token_table
from src.report.finding import Finding
from src.report.geometry.lexicon.finding import LexiconFound, best_profiles, lexicon_finding
from src.report.geometry.lexicon.notebook import seeds_finding
from src.stage.context import Stage
from src.stage.geometry.lexicon_notebook import NotebookWork, prepare_notebook
from src.stage.geometry.lexicon_texts import Reading, Texts, find_texts
from src.text import tokenizer_identity

# fewer matched words than this leave wide intervals
_FEW_WORDS = 50
STATIC = "static"
# controls: what the texts say without a model
CONTEXT_WORDS, DEFINITION_WORDS = "context_words", "definition_words"


@dataclass(frozen=True, eq=False)
class LexiconAnalysis:
    """The words of one model. model: None where the embeddings alone are read."""

    config: GeometryConfig
    taxonomy: Taxonomy
    matches: Matches
    tables: EmbeddingTables
    tokenizer: dict[str, Any]
    texts: Texts
    model: LanguageModel | None
    layers: list[int]
    notebook: NotebookWork | None
    name: Analysis = "lexicon"
    parents: list[Parent] = field(default_factory=list)

    @property
    def title(self) -> str:
        """Of the report."""
        return f"Lexicon of {self.config.model.name}"

    @property
    def label(self) -> str:
        """Of the artifact."""
        source = self.taxonomy.source.split()[0].lower()
        return label(self.config.model.name, self.name, source, *([] if self.config.lexicon.pos == "n" else ["verbs"]))

    def identity(self) -> dict[str, Any]:
        """What decides the content."""
        left_out = {"taxonomy", "activations", "batch_size"}
        return {
            "analysis": self.name,
            "taxonomy": self.taxonomy.source,
            "embeddings": self.tables.digest,
            "model": None if self.model is None else self.model.identity(),
            "tokenizer": self.tokenizer,
            "texts": self.texts.identity(),
            "layers": self.layers,
            "settings": self.config.lexicon.model_dump(mode="json", exclude=left_out),
            "compat": self.config.compat,
            "seed": self.config.seed,
        }

    def measure(self, stage: Stage) -> list[Finding]:
        """Read all representations, and compare them with the taxonomy."""
        config, words = self.config.lexicon, self.matches.words
        rows = self._rows(stage)
        distances = word_distances(self.taxonomy, words, config.sense)
        frequency, source = self._log_frequency()
        settings = ProfileSettings(
            config.transform,
            config.permutations,
            config.class_permutations,
            config.min_class,
            config.neighbours,
            self.config.seed,
        )
        n_rows = sum(len(each.words) for each in rows)
        with stage.progress("comparing with the taxonomy", 3 * n_rows, "words") as advance:
            profiles = profile_words(
                rows, self.taxonomy, self.matches.senses, distances, frequency, settings, stage.device, advance
            )
        found = LexiconFound(
            self.config.model.name,
            self.taxonomy,
            self.matches,
            profiles,
            settings,
            source,
            self.texts.occurrences,
            self._model_settings(),
        )
        findings = [lexicon_finding(found)]
        if config.seeds:
            findings.append(self._seeds(best_profiles(profiles), rows, distances))
        if self.notebook is not None:
            findings.append(self.notebook.measure(stage))
        return findings

    def _seeds(
        self, best: list[WordProfile], rows: list[WordRows], distances: UInt8[np.ndarray, "word word"]
    ) -> Finding:
        """Parts of the words, at the best layer of each representation that all words have."""
        everyone = len(self.matches.words)
        chosen = {(each.representation, each.layer) for each in best if len(each.words) == everyone}
        shown = {}
        for each in rows:
            if (each.representation, each.layer) in chosen:
                values = each.rows.double().numpy()
                shown[each.representation] = values - values.mean(0) * (self.config.lexicon.transform != "raw")
        chains = notebook_chains(self.taxonomy, self.matches.senses)
        records = seed_summary(notebook_seeds(shown, distances, chains, self.config.lexicon.seeds))
        return seeds_finding(records, self.config.lexicon.seeds)

    def _model_settings(self) -> dict[str, Any]:
        return {
            **self.config.lexicon.model_dump(mode="json"),
            "dtype_of_embeddings": str(self.tables.input.dtype).removeprefix("torch."),
            "dtype_of_model": None if self.model is None else str(self.model.dtype).removeprefix("torch."),
            "seed": self.config.seed,
        }

    def _rows(self, stage: Stage) -> list[WordRows]:
        words, everyone = self.matches.words, np.arange(len(self.matches.words))
        found: list[WordRows] = []
        if STATIC in self.config.lexicon.representations:
            ids = [np.array(word.token_ids) for word in words]
            found.append(WordRows(STATIC, None, everyone, _mean_rows(self.tables.input, ids)))
        for reading in self.texts.readings:
            found += self._read(reading, stage)
        return found

    def _read(self, reading: Reading, stage: Stage) -> list[WordRows]:
        """All layers in one pass."""
        points = [HookPoint("resid_post", layer) for layer in self.layers]
        passages, name = reading.passages, reading.representations[0]
        if reading.store is not None:
            with stage.progress(f"reading {name}", reading.store.layout.n_tokens, "tokens") as advance:
                clouds = clouds_of_store(reading.store, points, passages.chosen, advance)
        else:
            assert self.model is not None
            assert passages.sequences is not None
            n_tokens = sum(len(passages.sequences[i].token_ids) for i in np.unique(passages.chosen.sequence))
            with stage.progress(f"reading {name}", n_tokens, "tokens") as advance:
                batch_size = self.config.lexicon.batch_size
                clouds = clouds_of_model(self.model, passages.sequences, points, passages.chosen, batch_size, advance)
        found, n = [], len(passages.words)
        by_sense = name.startswith("definition")
        for place, representation in enumerate(reading.representations):
            if representation in self.config.lexicon.representations:
                part = slice(place * n, (place + 1) * n)
                found += [
                    WordRows(
                        representation, point.layer, passages.words, torch.from_numpy(clouds[point][part]), by_sense
                    )
                    for point in points
                ]
        if name == "contexts":
            blocks = store_tokens(reading.store) if reading.store else sequence_tokens(passages.sequences or [])
            around = words_around(blocks, passages, self.tables.input)
            found.append(WordRows(CONTEXT_WORDS, None, passages.words, around))
        if by_sense:
            chosen = passages.chosen
            ids = [chosen.token_id[chosen.point == place] for place in range(n)]
            found.append(WordRows(DEFINITION_WORDS, None, passages.words, _mean_rows(self.tables.input, ids), True))
        return found

    def _log_frequency(self) -> tuple[np.ndarray | None, str]:
        counts = np.array([word.count for word in self.matches.words])
        if counts.any():
            return np.log1p(counts), "the taxonomy's tagged text"
        if self.texts.occurrences is not None:
            return np.log1p(self.texts.occurrences.count), "the text that contexts are from"
        return None, ""


def _mean_rows(table: Tensor, ids: list[np.ndarray]) -> Tensor:
    flat = torch.from_numpy(np.concatenate(ids).astype(np.int64))
    owner = torch.from_numpy(np.repeat(np.arange(len(ids)), [len(some) for some in ids]))
    sums = torch.zeros(len(ids), table.shape[1], dtype=torch.float64).index_add_(0, owner, table[flat].double())
    return sums / torch.bincount(owner)[:, None]


def prepare(config: GeometryConfig, stage: Stage) -> LexiconAnalysis:
    """Find taxonomy, words and texts, and load the model if texts are read.

    Raises:
        StrataError: what is not there or does not fit. NotApplicableError: too few words match.
    """
    settings = config.lexicon
    taxonomy = read_taxonomy(settings.taxonomy)
    tables = read_embeddings(open_weights(config.model))
    tokenizer = load_tokenizer(config.model)
    identity = tokenizer_identity(tokenizer)
    tokens = token_table(tokenizer, len(tables.input))
    matches = match_words(
        taxonomy, tokens, tokenizer, settings.pos, min_count=settings.min_count, max_words=settings.max_words
    )
    if len(matches.words) < _FEW_WORDS:
        stage.warn(f"only {len(matches.words)} words of {taxonomy.source} are tokens of this model: intervals are wide")
    texts = find_texts(config, stage, taxonomy, matches, tokenizer)
    parents = [reading.store.artifact.parent for reading in texts.readings if reading.store is not None]
    model = None
    if any(reading.store is None for reading in texts.readings) or config.compat == "notebook":
        model = load_model(config.model, stage.device)
    layers = _layers(config, model, texts) if texts.readings else []
    notebook = None
    if config.compat == "notebook":
        assert model is not None
        notebook = prepare_notebook(config, taxonomy, tokenizer, tables, model)
    return LexiconAnalysis(config, taxonomy, matches, tables, identity, texts, model, layers, notebook, parents=parents)


def _layers(config: GeometryConfig, model: LanguageModel | None, texts: Texts) -> list[int]:
    stores = [reading.store for reading in texts.readings if reading.store is not None]
    held = [{point.layer for point in store.layout.hook_points if point.hook == "resid_post"} for store in stores]
    n_layers = stores[0].layout.n_layers if model is None else model.n_layers
    wanted = config.lexicon.layers
    layers = sorted(set.intersection(set(range(n_layers)), *held)) if wanted == "all" else sorted(set(wanted))
    if beyond := [layer for layer in layers if layer >= n_layers]:
        raise StrataError(f"lexicon.layers={beyond}: {config.model.name} has layers 0..{n_layers - 1}")
    for store in stores:
        store.require([HookPoint("resid_post", layer) for layer in layers])
    if model is not None:
        model.check_hook_points([HookPoint("resid_post", layer) for layer in layers])
    if not layers:
        raise StrataError(f"{stores[0].path} holds no resid_post: collect it, or leave out lexicon.activations")
    return layers
