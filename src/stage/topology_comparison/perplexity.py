"""The perplexity of the models whose clouds are compared, and what of their topology goes along with it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from src.artifacts import Artifact
from src.causal.text_loss import TextLoss, text_loss
from src.config.compare_topology import CompareTopologyConfig
from src.config.shared import ModelConfig
from src.errors import NotApplicableError, StrataError
from src.models import load_model
from src.models.loading import load_tokenizer
from src.report.topology.compared import ResultProfile, mean_over_layers, scale_free_statistics
from src.stage.context import Stage
from src.stage.sequences import Reading, prepare_table
from src.stage.topology_comparison.results import Result, measured_model
from src.text import Keep, SequenceTable, TokenSequence, content_hashes
from src.topology.inference.rank_correlation import RankCorrelation, rank_correlation


@dataclass(frozen=True, eq=False)
class ReadText:
    """A model of the results, the digest of its weights when it was measured, and the text that it is to read."""

    name: str
    model: ModelConfig
    weights: str | None
    text: Artifact


def prepare_texts(config: CompareTopologyConfig, results: Sequence[Result], stage: Stage) -> list[ReadText]:
    """The text for each different model, in its tokens; none where perplexity is not asked for.

    Raises:
        StrataError: a text that can't be read.
    """
    models: dict[str, tuple[ModelConfig, str | None]] = {}
    for result in results:
        if config.perplexity.measure and result.topology.model_name is not None:
            models.setdefault(result.topology.model_name, measured_model(result))
    reading = Reading(config.perplexity.context_window, num_tokens=config.perplexity.max_tokens)
    return [
        ReadText(name, model, weights, prepare_table(stage, model, config.dataset, reading))
        for name, (model, weights) in models.items()
    ]


def measure_losses(
    config: CompareTopologyConfig, texts: Sequence[ReadText], stage: Stage
) -> tuple[dict[str, TextLoss], dict[str, str]]:
    """The loss of each model by name, and why a model has none."""
    losses: dict[str, TextLoss] = {}
    no_loss: dict[str, str] = {}
    for each in texts:
        table = SequenceTable(each.text.path)
        sequences = _different(table.read(0, table.n_sequences))
        try:
            model = load_model(each.model, stage.device)
            if each.weights not in (None, model.identity()["weights"]):
                raise StrataError("its weights are not those that were measured; measure its topology again")
            with stage.progress(f"reading the text ({each.name})", len(sequences), "documents") as advance:
                n_bytes = _bytes(each.model, sequences)
                losses[each.name] = text_loss(model, sequences, n_bytes, config.perplexity.batch_size, advance)
        except NotApplicableError as error:
            no_loss[each.name] = str(error)
        except StrataError as error:
            stage.warn(f"no perplexity of {each.name}: {error}")
            no_loss[each.name] = str(error)
    return losses, no_loss


def correlate(results: Sequence[ResultProfile], losses: dict[str, TextLoss], seed: int) -> dict[str, RankCorrelation]:
    """Spearman's correlation of each statistic's mean over layers with bits per byte, over models."""
    models = list(losses)
    if len(models) < 2:
        return {}
    bits = np.array([losses[model].bits_per_byte.value for model in models])
    found = {}
    for name in scale_free_statistics(results):
        means = mean_over_layers(results, name)
        correlation = rank_correlation(np.array([means[model] for model in models]), bits, seed)
        if np.isfinite(correlation.rho):
            found[name] = correlation
    return found


def _different(sequences: Sequence[TokenSequence]) -> list[TokenSequence]:
    """Each text once: documents are the units of intervals."""
    first = np.unique(content_hashes((it.token_ids for it in sequences), seed=0), return_index=True)[1]
    return [sequences[place] for place in sorted(first)]


def _bytes(config: ModelConfig, sequences: Sequence[TokenSequence]) -> list[int]:
    """UTF-8 bytes of the text of each document's predicted tokens."""
    tokenizer = load_tokenizer(config)
    predicted = [it.token_ids[1:][it.roles[1:] == Keep.COUNTED].tolist() for it in sequences]
    return [len(str(text).encode()) for text in tokenizer.batch_decode(predicted, clean_up_tokenization_spaces=False)]
