"""Runs against each other: matrices, and a card for each pair while there are few."""

import numpy as np

from src.report.cube import Cube
from src.report.figure_pool import FigurePool
from src.report.figures.grid import grid
from src.report.run_comparison.blocks import Block, Card, Charts, Fold, Help, PagePart, Prose, ShadedTable
from src.report.run_comparison.compared import ComparedRuns
from src.report.run_comparison.within import METRIC_NAMES, layer_charts, layer_cube, summary_table
from src.report.run_comparison.words import BETWEEN
from src.report.tables import Cell, Table
from src.scenarios.comparing.pair_metrics import METRICS
from src.scenarios.comparing.runs import STATES

_WORDS = {"initial": "first step", "final": "last step"}
# beyond so many runs the cells of a matrix hold no numbers
_MOST_NUMBERS = 12


def between_part(found: ComparedRuns, pool: FigurePool) -> PagePart | None:
    """The section of pairs; None if there is one run only."""
    if len(found.runs) < 2:
        return None
    blocks: list[Block] = [Help(BETWEEN)]
    if found.between.left_out:
        blocks.append(_left_out(found))
    if not found.between.pairs:
        return PagePart(
            "between", "Runs against each other", [*blocks, Prose("No two of these runs could be compared.")]
        )
    blocks.append(ShadedTable(_aggregate(found)))
    blocks.append(ShadedTable(_legend(found), links=[one.anchor for one in found.runs]))
    cube = _matrices(found)
    for state_place, state in enumerate(STATES):
        first, *others = (_charts(found, cube, state_place, metric, statistic, pool) for metric, statistic in _SHOWN)
        more = Fold("Minimum cosine, MAE and overlap", others)
        blocks.append(Fold(f"Matrices at the {_WORDS[state]}", [first, more], is_open=True))
    if len(found.runs) <= found.pair_cards:
        blocks += _pair_cards(found, pool)
    else:
        words = (
            f"{len(found.runs)} runs: pairs have no charts of their own (pair_cards={found.pair_cards}); "
            "comparison_cosines.csv has every layer of every pair."
        )
        blocks.append(Prose(words))
    return PagePart("between", "Runs against each other", blocks)


_SHOWN = (("cosine", "mean"), ("cosine", "min"), ("mae", "mean"), ("overlap", "mean"))


def _matrices(found: ComparedRuns) -> Cube:
    """Statistics over layers of every pair, both ways round; the diagonal is what a run is to itself."""
    keys = {one.name: place for place, one in enumerate(found.runs)}
    n = len(keys)
    shape = (len(STATES), len(found.sources), n, n)
    values = {f"{statistic}_{metric}": np.full(shape, np.nan) for metric, statistic in _SHOWN}
    for pair in found.between.pairs:
        first, second, state = keys[pair.first.name], keys[pair.second.name], STATES.index(pair.state)
        for source, metrics in pair.by_source.items():
            for metric, statistic in _SHOWN:
                array = getattr(metrics, metric)
                known = array[~array.isnan()]
                if len(known):
                    value = float(known.mean() if statistic == "mean" else known.min())
                    place = found.sources.index(source)
                    values[f"{statistic}_{metric}"][state, place, [first, second], [second, first]] = value
    names = [one.key for one in found.runs]
    dims = {"state": list(STATES), "source": list(found.sources), "run": names, "other": names}
    full = [one.name for one in found.runs]
    return Cube(dims, values, {"run": {"name": full}, "other": {"other_name": full}})


def _charts(found: ComparedRuns, cube: Cube, state: int, metric: str, statistic: str, pool: FigurePool) -> Charts:
    few = len(found.runs) <= _MOST_NUMBERS
    label = f"{statistic} {METRIC_NAMES[metric]}"
    figures = [
        pool.place(
            grid, cube, source, fields={"value": f"{statistic}_{metric}"}, at={"state": state, "source": place},
            row="run", column="other", label=label, step=(36, 26) if few else (16, 16), numbers=few,
            reverse=metric == "mae", unit=metric == "overlap", about=["name", "other_name"],
        )
        for place, source in enumerate(found.sources)
    ]  # fmt: skip
    return Charts(figures, f"{label} over layers")


def _legend(found: ComparedRuns) -> Table:
    rows: list[list[Cell]] = [[one.key, one.name, one.compared.prompt, one.compared.generated] for one in found.runs]
    return Table("Which run is which", ["key", "run", "last message", "reply"], rows)


def _aggregate(found: ComparedRuns) -> Table:
    rows: list[list[Cell]] = []
    for state in STATES:
        for source in found.sources:
            pairs = [
                pair.by_source[source]
                for pair in found.between.pairs
                if pair.state == state and source in pair.by_source
            ]
            if not pairs:
                continue
            row: list[Cell] = [_WORDS[state], source, len(pairs)]
            for metric in METRICS:
                means = np.array([float(getattr(each, metric).nanmean()) for each in pairs])
                known = means[np.isfinite(means)]
                row += [float(known.mean()), float(known.std())] if len(known) else [None, None]
            rows.append(row)
    columns = [f"{part} {METRIC_NAMES[metric]}" for metric in METRICS for part in ("mean", "std of")]
    caption = (
        "Over pairs, of each pair's mean over layers; std with n in the denominator. Pairs share runs: they are no "
        "independent sample."
    )
    return Table("All pairs together", ["state", "source", "pairs", *columns], rows, caption)


def _left_out(found: ComparedRuns) -> Block:
    rows: list[list[Cell]] = [[each.first, each.second, each.reason] for each in found.between.left_out]
    return ShadedTable(Table("Not compared, or not wholly", ["run", "with", "why"], rows))


def _pair_cards(found: ComparedRuns, pool: FigurePool) -> list[Block]:
    keys = {one.name: one.key for one in found.runs}
    cards: dict[str, list[Block]] = {}
    for pair in found.between.pairs:
        title = f"{keys[pair.first.name]} and {keys[pair.second.name]}"
        if not pair.by_source:
            continue
        charts = layer_charts(pool, layer_cube(pair.by_source, found.sources))
        table = ShadedTable(summary_table(pair.by_source, "Over layers"))
        cards.setdefault(title, []).append(Fold(f"At the {_WORDS[pair.state]}", [charts, table]))
    return [Card(f"pair-{place + 1}", title, blocks) for place, (title, blocks) in enumerate(cards.items())]
