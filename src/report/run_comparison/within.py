"""Runs within themselves: the first step against the last."""

from collections.abc import Mapping, Sequence

import numpy as np

from src.report.cube import Cube
from src.report.figure_pool import FigurePool
from src.report.figures.grid import grid
from src.report.figures.layer_lines import layer_lines
from src.report.run_comparison.blocks import Block, Charts, Help, PagePart, ShadedTable
from src.report.run_comparison.compared import ComparedRuns
from src.report.run_comparison.words import LAYER_MAPS, WITHIN
from src.report.tables import Cell, Table, finite_or_none
from src.scenarios.comparing.pair_metrics import METRICS, PairMetrics

# as figures and tables call the metrics
METRIC_NAMES = {"cosine": "cosine", "mae": "MAE", "overlap": "overlap"}
_SHADES = (0.5, 1.0)
# with more layers the cells hold no numbers
_MOST_NUMBERS = 14


def overview_table(found: ComparedRuns) -> Table:
    """A row for each run: mean cosine of its first and last step over layers, for each source."""
    rows: list[list[Cell]] = []
    for one in found.runs:
        means = [
            finite_or_none(float(one.within[s].cosine.nanmean())) if s in one.within else None for s in found.sources
        ]
        known = [mean for mean in means if mean is not None]
        row: list[Cell] = [one.key, one.name, len(one.run.messages) - 1, len(one.run.generation.token_ids)]
        rows.append([*row, *means, float(np.mean(known)) if known else None])
    return Table(
        "Runs: cosine of first and last step, mean over layers",
        ["key", "run", "messages", "generated", *found.sources, "mean"],
        rows,
        caption="messages: read before the reply; generated: tokens of the reply.",
    )


def overview_block(found: ComparedRuns) -> ShadedTable:
    """The overview with shades and links to the runs."""
    table = overview_table(found)
    columns = range(4, len(table.columns))
    return ShadedTable(table, dict.fromkeys(columns, _SHADES), [one.anchor for one in found.runs])


def within_part(found: ComparedRuns, pool: FigurePool) -> PagePart | None:
    """The section of aggregates and layer heat maps; None for one run, whose card shows all of it."""
    if len(found.runs) < 2 or not any(one.within for one in found.runs):
        return None
    blocks: list[Block] = [Help(f"{WITHIN}\n\n{LAYER_MAPS}"), ShadedTable(_aggregate(found))]
    cube = _layer_cube(found)
    many = len(cube.dims["layer"]) > _MOST_NUMBERS
    for metric in METRICS:
        figures = [
            pool.place(
                grid, cube, source, fields={"value": metric}, at={"source": place}, row="run", column="layer",
                label=METRIC_NAMES[metric], step=(15, 20) if many else (30, 22), numbers=not many,
                reverse=metric == "mae", unit=metric == "overlap", column_label="layer", about=["name"],
            )
            for place, source in enumerate(found.sources)
        ]  # fmt: skip
        blocks.append(Charts(figures, f"{METRIC_NAMES[metric]} at each layer"))
    return PagePart("within", "First against last step", blocks)


def layer_cube(by_source: Mapping[str, PairMetrics], sources: Sequence[str]) -> Cube:
    """Metrics of one pair of states over sources and layers."""
    present = [source for source in sources if source in by_source]
    layers = next(iter(by_source.values())).layers
    values = {
        metric: np.stack([getattr(by_source[source], metric).numpy() for source in present]) for metric in METRICS
    }
    return Cube({"source": present, "layer": list(layers)}, values)


def layer_charts(pool: FigurePool, cube: Cube, caption: str = "") -> Charts:
    """Cosine, MAE and overlap over the layers, a line for each source."""
    return Charts(
        [
            pool.place(
                layer_lines, cube, f"{METRIC_NAMES[metric]} over layers", fields={"value": metric}, caption=caption,
                label=METRIC_NAMES[metric], series=list(cube.dims["source"]),
            )
            for metric in METRICS
        ]
    )  # fmt: skip


def summary_table(by_source: Mapping[str, PairMetrics], title: str) -> Table:
    """Activation Lab's summary of a pair of states: a row for each source."""
    summaries = {source: metrics.summary() for source, metrics in by_source.items()}
    columns = list(next(iter(summaries.values())))
    rows = [[source, *(_cell(summary[column]) for column in columns)] for source, summary in summaries.items()]
    return Table(title, ["source", *(column.replace("_", " ") for column in columns)], rows)


def _cell(value: float | int | None) -> Cell:
    return finite_or_none(value) if isinstance(value, float) else value


def _layer_cube(found: ComparedRuns) -> Cube:
    layers = sorted({layer for one in found.runs for layer in one.run.layers})
    shape = (len(found.sources), len(found.runs), len(layers))
    values = {metric: np.full(shape, np.nan) for metric in METRICS}
    for row, one in enumerate(found.runs):
        columns = [layers.index(layer) for layer in one.run.layers]
        for place, source in enumerate(found.sources):
            if source in one.within:
                for metric in METRICS:
                    values[metric][place, row, columns] = getattr(one.within[source], metric).numpy()
    dims = {"source": list(found.sources), "run": [one.key for one in found.runs], "layer": layers}
    return Cube(dims, values, {"run": {"name": [one.name for one in found.runs]}})


def _aggregate(found: ComparedRuns) -> Table:
    """Mean and standard deviation over runs of each run's mean over layers."""
    rows: list[list[Cell]] = []
    for source in found.sources:
        row: list[Cell] = [source]
        for metric in METRICS:
            means = [float(getattr(one.within[source], metric).nanmean()) for one in found.runs if source in one.within]
            known = [mean for mean in means if np.isfinite(mean)]
            row += [float(np.mean(known)), float(np.std(known))] if known else [None, None]
        rows.append(row)
    columns = ["source", *(f"{part} {METRIC_NAMES[metric]}" for metric in METRICS for part in ("mean", "std of"))]
    caption = (
        "Over runs, of each run's mean over layers; std: with n in the denominator. Runs of one conversation share "
        "its text: they are no independent sample."
    )
    return Table(f"All {len(found.runs)} runs together", columns, rows, caption)
