"""What eval.py shows and writes of the matched-rank analysis: operators against the ceilings of every rank."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from jaxtyping import Float
from torch import Tensor

from src.report.artifact_report import NamedChart
from src.report.by_offset import figures_by_offset, pair_cells, pair_columns
from src.report.evaluation import interval
from src.report.figures.heatmap import pair_heatmap
from src.report.figures.rank import correlation_spectrum, efficiency_curves, rank_curves, shown_ranks
from src.report.records import estimate_fields
from src.report.tables import Cell, Table
from src.transport.bootstrap import Band
from src.transport.matched_rank import PairRanks
from src.transport.pairs import LayerPair
from src.transport.rank import OPTIMAL, Family
from src.transport.rank_factors import METRICS, Metric

Ranks = Mapping[LayerPair, PairRanks]

OPERATOR: Family = "truncated_svd"
CURVES: Mapping[Family, str] = {
    "reduced_rank_whitened": "reduced rank, whitened",
    "reduced_rank_raw": "reduced rank, raw",
    "truncated_svd": "operator, singular values cut",
}
CEILING = "ceiling"
_TABLED: Mapping[Family, str] = {OPTIMAL["whitened"]: "reduced rank", OPERATOR: "operator, cut"}
# of the R2 at full rank, for which the rank is told that reaches them
_SHARES = (0.5, 0.9)
# more panels than this can't be taken in
_MOST_PANELS = 12


def ceiling_table(ranks: Ranks) -> Table:
    """One row per pair: the operator (all of it) against its ceiling, in both metrics."""
    rows, pairs = [], list(ranks)
    for pair, each in ranks.items():
        row = pair_cells(pair, pairs)
        for metric in METRICS:
            row += [each.bands.ceiling[metric].at(-1).value, each.bands.r2[OPERATOR][metric].at(-1).value]
            row.append(interval(each.bands.efficiency[OPERATOR][metric].at(-1)))
        rows.append(row)
    columns = [*pair_columns(pairs), "ceiling", "R²", "efficiency", "raw ceiling", "raw R²", "raw efficiency"]
    caption = (
        f"Operators at full rank on {_rows(ranks)} test tokens, in the whitened metric (every direction of the "
        "target alike), then in the raw one (by variance). efficiency: R² / ceiling on the same rows. The ceiling: "
        "the directions of least squares on the training rows, each scaled at its best for these rows; a penalised or "
        "luckier map can pass it where rows are few. R² is about the training mean. 95 % intervals "
        "from the bootstrap over documents, centred at the estimate."
    )
    return Table("Matched rank: operators against their ceilings", columns, rows, caption)


def size_table(ranks: Ranks) -> Table:
    """One row per pair: how many dimensions are linearly transported, beside what shuffled documents give."""
    rows: list[list[Cell]] = []
    pairs = list(ranks)
    for pair, each in ranks.items():
        test = None if each.permutation is None else each.permutation.explained_dimensions
        rows.append(
            [
                *pair_cells(pair, pairs),
                interval(each.explained_dimensions),
                *([] if test is None else [test.quantiles[0.95], test.p_value]),
                interval(each.participation_ratio),
                each.matched.canonical.source_rank,
                each.matched.canonical.target_rank,
            ]
        )
    first = next(iter(ranks.values()))
    null = [] if first.permutation is None else ["null 95 %", "p"]
    columns = [*pair_columns(pairs), "explained dims", *null, "participation", "rank x", "rank y"]
    caption = (
        "explained dims: sum of squared canonical correlations, signs kept, cross-fitted over the folds of train: 0 on "
        "average where nothing is shared. participation: over how many directions it is spread. Intervals: 95 %, from "
        "leaving out one fold at a time; they tell of the documents that correlations are measured on, not of those "
        "that directions are found on. rank: directions above the eigenvalue floor."
    )
    if first.permutation is not None:
        n = len(first.permutation.explained_dimensions.null)
        caption += (
            f" null: {n} times whole documents of the target shuffled within their folds; the smallest p that so many "
            f"allow is {1 / (n + 1):.2g}."
        )
    return Table("Linear transport subspace", columns, rows, caption)


def rank_table(ranks: Ranks, shown: Sequence[int]) -> Table:
    """Two rows per pair: R2 in the whitened metric at a few ranks, of the best map and of the cut operator."""
    rows: list[list[Cell]] = []
    pairs = list(ranks)
    for pair, each in ranks.items():
        for family, name in _TABLED.items():
            r2 = each.bands.r2[family]["whitened"].value
            row = [*pair_cells(pair, pairs), name, *(float(r2[rank - 1]) for rank in shown)]
            rows.append([*row, *(_rank_that_reaches(share, r2) for share in _SHARES)])
    caption = (
        "R² on test tokens in the whitened metric at rank r, and the smallest rank that reaches a share of that at "
        "full rank. reduced rank: the best map of rank r. operator, cut: the operator with all but its r largest "
        "singular values set to 0, as in the literature; it falls short where the basis is wrong, not because less is "
        "transported. Intervals, the raw metric, efficiencies and all other ranks are in matched_rank.parquet."
    )
    columns = [*pair_columns(pairs), "map", *(f"r = {rank}" for rank in shown), *(f"{it:.0%} at" for it in _SHARES)]
    return Table("R² by rank", columns, rows, caption)


def _rank_that_reaches(share: float, r2: Float[Tensor, "d"]) -> int | None:
    """The smallest rank from which on R2 stays at that share of its last value; None if that is not above 0."""
    below = (r2 < share * r2[-1]).nonzero()
    return int(below.max()) + 2 if len(below) and r2[-1] > 0 else 1 if r2[-1] > 0 else None


def _rows(ranks: Ranks) -> str:
    return " or ".join(f"{count:,}" for count in sorted({each.matched.n_held_out for each in ranks.values()}))


def rank_figures(ranks: Ranks) -> list[NamedChart]:
    """Heat maps of efficiency and size over all pairs; curves over the ranks and spectra of some pairs.

    All of these once for each position offset.
    """
    return figures_by_offset(list(ranks), lambda chosen: _figures({pair: ranks[pair] for pair in chosen}))


def _figures(ranks: Ranks) -> list[NamedChart]:
    cells = [
        {
            "layer": pair.L,
            "leap": pair.k,
            **estimate_fields("efficiency", each.bands.efficiency[OPERATOR]["whitened"].at(-1)),
            **estimate_fields("dimensions", each.explained_dimensions),
        }
        for pair, each in ranks.items()
    ]
    some = _spread(list(ranks))
    shown = {pair: ranks[pair] for pair in some}
    which = "" if len(shown) == len(ranks) else f" {len(shown)} of {len(ranks)} pairs; the parquet files hold all."
    figures = [
        NamedChart(
            "efficiency",
            "Efficiency over (L, k)",
            pair_heatmap(cells, "efficiency", "Efficiency of the operators at full rank", label="R² / ceiling"),
            "R² over the ceiling (training directions at their best scale), whitened metric, on the same test tokens.",
        ),
        NamedChart(
            "explained_dimensions",
            "Linear transport subspace over (L, k)",
            pair_heatmap(cells, "dimensions", "Size of the linear transport subspace", label="dimensions"),
            "Sum of squared cross-fitted canonical correlations: dimensions of the target that the source explains.",
        ),
    ]
    for metric in METRICS:
        note = f"{metric} metric"
        for value, title, draw in (
            ("r2", "R² by rank", rank_curves),
            ("efficiency", "Efficiency by rank", efficiency_curves),
        ):
            records = [record for pair, each in shown.items() for record in _curve_records(pair, each, metric, value)]
            chart = draw(records, f"{title}, {metric} metric", subtitle="bands: 95 % intervals over documents")
            caption = f"On test tokens, in the {note}; maps and directions from the folds of train.{which}"
            figures.append(NamedChart(f"{value}_by_rank_{metric}", f"{title} ({metric})", chart, caption))
    chart = correlation_spectrum(
        [record for pair, each in shown.items() for record in _spectrum_records(pair, each)],
        [record for pair, each in shown.items() for record in _null_records(pair, each)],
        [{"layer": pair.L, "leap": pair.k, "edge": each.edge} for pair, each in shown.items()],
    )
    caption = "In-sample correlations are too high; cross-fitted ones are measured on folds that directions were not "
    figures.append(NamedChart("spectrum", "Canonical correlations", chart, f"{caption}found on.{which}"))
    return figures


def _spread(pairs: Sequence[LayerPair]) -> list[LayerPair]:
    """All pairs if they are few, else some that are spread over layers and leaps."""
    last, n = len(pairs) - 1, min(len(pairs), _MOST_PANELS)
    return [pairs[round(place * last / max(n - 1, 1))] for place in range(n)]


def _curve_records(pair: LayerPair, each: PairRanks, metric: Metric, value: str) -> Iterator[dict[str, Any]]:
    curves: dict[str, Band] = {
        name: getattr(each.bands, value)[family][metric]
        for family, name in CURVES.items()
        if family in (OPTIMAL[metric], OPERATOR)
    }
    if value == "r2":
        curves[CEILING] = each.bands.ceiling[metric]
    for name, band in curves.items():
        for rank in shown_ranks(each.d):
            record = {"layer": pair.L, "leap": pair.k, "rank": rank, "curve": name, "is_ceiling": name == CEILING}
            yield record | estimate_fields(value, band.at(rank - 1))


def _spectrum_records(pair: LayerPair, each: PairRanks) -> Iterator[dict[str, Any]]:
    kinds = {"in sample": each.matched.canonical.correlations, "cross-fitted": each.observed.correlations}
    kinds["test"] = each.matched.correlations
    for kind, correlations in kinds.items():
        values = correlations.tolist()
        for place in shown_ranks(each.d):
            record = {"layer": pair.L, "leap": pair.k, "place": place, "kind": kind}
            yield record | {"correlation": values[place - 1]}


def _null_records(pair: LayerPair, each: PairRanks) -> Iterator[dict[str, Any]]:
    if each.permutation is not None:
        low, high = (each.permutation.null_correlations[end].tolist() for end in (0.025, 0.975))
        for place in shown_ranks(each.d):
            record = {"layer": pair.L, "leap": pair.k, "place": place}
            yield record | {"low": low[place - 1], "high": high[place - 1]}


def rank_metrics(ranks: Ranks) -> dict[str, float]:
    """Efficiency and size of every pair, by name, for experiment trackers."""
    values: dict[str, float] = {}
    for pair, each in ranks.items():
        values[f"{pair}/efficiency"] = each.bands.efficiency[OPERATOR]["whitened"].at(-1).value
        values[f"{pair}/explained_dimensions"] = each.explained_dimensions.value
    return values
