"""Topology and perplexity: what compare_topology.py shows of the models' losses and of what goes along with them."""

import math

from src.features.training.reconstruction import Ratio
from src.report.artifact_report import NamedChart
from src.report.figures.topology_comparison import statistic_and_perplexity
from src.report.tables import Cell, Table, finite_or_none
from src.report.topology.compared import ComparedTopology, mean_over_layers
from src.report.topology.comparison import SHOWN, Group
from src.report.topology.comparison_words import pseudo_replication
from src.topology.measures.catalogue import STATISTICS

# panels of statistics, those of the largest correlations where none of the usual ones is there
_MOST_PANELS = 6


def perplexity_group(found: ComparedTopology) -> Group | None:
    """Perplexity of each model, and how statistics go along with it."""
    if not found.losses and not found.no_loss:
        return None
    rows: list[list[Cell]] = []
    for model, loss in found.losses.items():
        rows.append([model, _ratio(loss.perplexity), _ratio(loss.nll), _ratio(loss.bits_per_byte), loss.n_tokens, None])
    rows += [[model, *[None] * 4, reason] for model, reason in found.no_loss.items()]
    columns = ["model", "perplexity", "NLL (nats)", "bits per byte", "tokens", "note"]
    caption = (
        f"Of the counted tokens of {found.text}; padding and special tokens are left out. Brackets: 95 % intervals "
        "over documents. Models of different tokenizers compare by bits per byte alone."
    )
    tables = [Table("Perplexity", columns, rows, caption)]
    details, figures = [], []
    if found.correlations:
        details.append(_correlation_table(found))
        figures.append(_correlation_figure(found))
    return Group("Topology and perplexity", pseudo_replication(len(found.losses)), tables, figures, details)


def _correlation_table(found: ComparedTopology) -> Table:
    corrected = found.correlation_q()
    ranked = sorted(found.correlations.items(), key=lambda item: -abs(item[1].rho))
    rows: list[list[Cell]] = [
        [STATISTICS[name].label, each.rho, each.p, corrected.get(name), each.n] for name, each in ranked
    ]
    caption = (
        "Spearman's rank correlation over models of each statistic's mean over layers with bits per byte (above 0: the "
        "larger, the worse the model predicts). p: exact, from all orders of the models; q: corrected over the "
        "statistics (Benjamini-Hochberg)."
    )
    return Table("Rank correlation with perplexity", ["statistic", "ρ", "p", "q", "models"], rows, caption)


def _correlation_figure(found: ComparedTopology) -> NamedChart:
    names = sorted(found.correlations, key=lambda name: -abs(found.correlations[name].rho))
    shown = [name for name in SHOWN if name in found.correlations] or names[:_MOST_PANELS]
    records = [
        {"model": model, "statistic": STATISTICS[name].label, "value": finite_or_none(means[model]), "bits": bits}
        for name in shown
        for means in (mean_over_layers(found.results, name),)
        for model, bits in ((model, loss.bits_per_byte.value) for model, loss in found.losses.items())
    ]
    title = "Topology and perplexity"
    return NamedChart("perplexity", title, statistic_and_perplexity(records, title), "Each point is a model.")


def _ratio(ratio: Ratio) -> Cell:
    return {"value": ratio.value, "low": ratio.low, "high": ratio.high} if math.isfinite(ratio.low) else ratio.value
