"""What scaling_study.py shows: R2 against training tokens."""

from collections.abc import Sequence
from statistics import median
from typing import Any

from src.report.artifact_report import NamedChart
from src.report.by_offset import figures_by_offset, pair_cells, pair_columns
from src.report.evaluation import interval
from src.report.figures.scaling import MOST_PANELS, scaling_alpha, scaling_curves, scaling_panels
from src.report.scaling_records import n_documents
from src.report.tables import Table
from src.transport.scaling import ScalingPoint
from src.transport.scaling_summary import CurvePoint, Growth, OverSubsets

OPERATOR, VAL, SHIFT, IDENTITY = "operator", "operator on val documents", "identity + shift", "identity"


def growth_table(growths: Sequence[Growth], plateau: float) -> Table:
    """One row per pair: where its curve begins and ends, and whether it is still rising."""
    pairs = [growth.pair for growth in growths]
    rows = [
        [
            *pair_cells(growth.pair, pairs),
            round(growth.curve[-1].n_rows),
            growth.curve[0].test_r2.estimate.value,
            interval(growth.curve[-1].test_r2.estimate),
            _mean(growth.curve[-1], "shift"),
            interval(growth.improvement.estimate),
            interval(growth.slope.estimate),
            _spread(growth.slope),
            growth.plateau,
        ]
        for growth in growths
    ]
    first, last, end = growths[0].curve[0].fraction, growths[0].curve[-2].fraction, growths[0].curve[-1].fraction
    at_first, at_end = f"R² at {first:.0%}", f"R² at {end:.0%}"
    columns = [*pair_columns(pairs), "tokens", at_first, at_end, "shift", "gain", "per doubling", "subsets", "flat"]
    caption = (
        "R² on the test documents, mean over dimensions and subsets; brackets: 95 % intervals by a jackknife over test "
        f"documents. shift: y = x + mean(y - x). gain: from {first:.0%} to {end:.0%}. per doubling of the training "
        f"tokens, from {last:.0%} to {end:.0%}; subsets: lowest and highest of the random ones. flat: yes if interval "
        f"and subsets lie below {plateau:g}, no if above."
    )
    return Table("Growth of R² with the training data", columns, rows, caption)


def curve_table(growths: Sequence[Growth], documents: Sequence[int]) -> Table:
    """One row per pair and fraction."""
    pairs = [growth.pair for growth in growths]
    rows = [
        [
            *pair_cells(growth.pair, pairs),
            at.fraction,
            len(at.points),
            round(sum(n_documents(point, documents) for point in at.points) / len(at.points)),
            round(at.n_rows),
            _median([point.alpha for point in at.points]),
            _median([point.relative_alpha for point in at.points]),
            at.val_r2,
            interval(at.test_r2.estimate),
            _spread(at.test_r2),
        ]
        for growth in growths
        for at in growth.curve
    ]
    columns = [
        *pair_columns(pairs),
        "fraction",
        "subsets",
        "documents",
        "tokens",
        "alpha",
        "relative",
        "val R²",
        "test R²",
    ]
    caption = (
        "Means over the subsets of a fraction, medians for alpha. Brackets beside test R²: 95 % intervals over test "
        "documents; lowest and highest: of the subsets."
    )
    return Table("R² of every fraction", [*columns, "lowest to highest"], rows, caption)


def _mean(at: CurvePoint, predictor: str) -> float:
    scores = [getattr(point, predictor).test.r2_uniform[0] for point in at.points]
    return float(sum(scores) / len(scores))


def _median(values: Sequence[float | None]) -> float | None:
    there = [value for value in values if value is not None]
    return median(there) if there else None


def _spread(over: OverSubsets) -> str:
    return f"{over.lowest:.4f} to {over.highest:.4f}"


def scaling_text(growths: Sequence[Growth], n_test_documents: int, test_blocks: int) -> str:
    """What was fitted, on what intervals and bands rest, and what to look out for."""
    points = [point for growth in growths for at in growth.curve for point in at.points]
    flat = {word: sum(growth.plateau == word for growth in growths) for word in ("yes", "no", "undecided")}
    found = (
        f"With more training documents R² no longer grows for {flat['yes']} of {len(growths)} pairs, still grows for "
        f"{flat['no']}, and {flat['undecided']} can't be decided."
    )
    draws = max(len(at.points) for at in growths[0].curve)
    lines = [
        found,
        f"{len(points):,} fits of {len(growths)} pairs, from the moments of blocks of documents. For each fraction "
        f"there are {draws} random subsets of the training documents, nested within a draw; bands span them. Large "
        "subsets of the same documents overlap, so their bands are narrower than those of new documents would be. "
        f"Intervals come from leaving out each of {test_blocks} groups of the {n_test_documents:,} test documents.",
    ]
    edges = sum(bool(point.at_edge) for point in points)
    if edges:
        lines.append(f"The best alpha of {edges:,} fits lies at an edge of the grid: widen alphas to be sure of it.")
    if (warning := unconverged(points)) is not None:
        lines.append(warning[0].upper() + warning[1:] + ".")
    return " ".join(lines)


def unconverged(points: Sequence[ScalingPoint]) -> str | None:
    """A warning of fits that ran out of iterations; None if none did."""
    n_stopped = sum(bool(point.unconverged) for point in points)
    if not n_stopped:
        return None
    return (
        f"max_iter stopped {n_stopped:,} of {len(points):,} fits before they reached tol: raise max_iter, or leave out "
        "small alphas"
    )


def scaling_figures(growths: Sequence[Growth], relative: bool) -> list[NamedChart]:
    """R2 against tokens for all pairs and pair by pair, and the alphas that were chosen, for each position offset.

    relative: the unit in which alphas are drawn, that of the grid.
    """
    by_pair = {growth.pair: growth for growth in growths}
    return figures_by_offset(list(by_pair), lambda pairs: _figures([by_pair[pair] for pair in pairs], relative))


def _figures(growths: Sequence[Growth], relative: bool) -> list[NamedChart]:
    curves = [
        {
            **_place(growth, at),
            "r2": at.test_r2.estimate.value,
            "lowest": at.test_r2.lowest,
            "highest": at.test_r2.highest,
            "low": at.test_r2.estimate.low,
            "high": at.test_r2.estimate.high,
        }
        for growth in growths
        for at in growth.curve
    ]
    bands = "Bands span the random subsets; the line at the last point is the 95 % interval over test documents."
    figures = [
        NamedChart(
            "scaling_curves",
            "R² against training tokens",
            scaling_curves(curves),
            f"On test documents, mean over dimensions. {bands}",
        )
    ]
    if len(growths) <= MOST_PANELS:
        lines = [{**_place(growth, at), **line} for growth in growths for at in growth.curve for line in _lines(at)]
        caption = (
            "Test documents, where nothing else is said. Each panel has an axis of its own. identity + shift: y = x + "
            "mean(y - x); identity: y = x. Alpha was chosen on neither val nor test: only their documents differ."
        )
        figures.append(NamedChart("scaling_pairs", "Each pair beside its baselines", scaling_panels(lines), caption))
    alphas = [
        {
            **_place(growth, at),
            "alpha": median(there),
            "lowest": min(there),
            "highest": max(there),
        }
        for growth in growths
        for at in growth.curve
        if (there := _chosen(at, relative))
    ]
    if alphas:
        caption = "Median and range over the subsets. It moves in the steps of the grid: set alphas for smaller ones."
        chart = scaling_alpha(alphas, label=f"alpha, {'relative' if relative else 'as scikit-learn counts it'}")
        figures.append(NamedChart("scaling_alpha", "Chosen alpha", chart, caption))
    return figures


def _chosen(at: CurvePoint, relative: bool) -> list[float]:
    """The alphas of the subsets that were chosen by cross-validation."""
    tuned = [point for point in at.points if point.cv_score is not None]
    alphas = [point.relative_alpha if relative else point.alpha for point in tuned]
    return [alpha for alpha in alphas if alpha is not None]


def _place(growth: Growth, at: CurvePoint) -> dict[str, Any]:
    return {"layer": growth.pair.L, "leap": growth.pair.k, "tokens": at.n_rows}


def _lines(at: CurvePoint) -> list[dict[str, Any]]:
    over = at.test_r2
    baselines = ((SHIFT, "shift"), (IDENTITY, "identity"))
    return [
        {"predictor": OPERATOR, "r2": over.estimate.value, "lowest": over.lowest, "highest": over.highest},
        {"predictor": VAL, "r2": at.val_r2},
        *({"predictor": name, "r2": _mean(at, field), "is_baseline": True} for name, field in baselines),
    ]


def scaling_metrics(growths: Sequence[Growth]) -> dict[str, float]:
    """R2 on all training documents and the slope there, by pair, for experiment trackers."""
    return {
        f"{growth.pair}/{name}": value
        for growth in growths
        for name, value in (
            ("test_r2", growth.curve[-1].test_r2.estimate.value),
            ("slope", growth.slope.estimate.value),
        )
    }
