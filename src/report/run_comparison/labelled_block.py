"""Messages that the scenario labels: do their states show the label, and does it fade over later turns?"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from src.report.cube import Cube
from src.report.figure_pool import FigurePool
from src.report.figures.layer_lines import layer_lines, null_band
from src.report.run_comparison.blocks import Block, Card, Charts, Help, PagePart, Prose, ShadedTable
from src.report.run_comparison.compared import ComparedRuns, ScenarioFindings
from src.report.run_comparison.words import FADING, LABELLED, POSITIONS
from src.report.tables import Cell, Table, finite_or_none, interval_cell
from src.scenarios.comparing.fading import Fading, SourceFading
from src.scenarios.comparing.labelled import LabelledMessages, Tested

_FIELDS = {name: name for name in ("value", "low", "high", "null_low", "null_high")}
_LAGS: dict[str, Any] = {"x": "lag", "x_label": "turns later"}
_BOTH = ["labelled", "neutral"]
_STATISTICS = {"accuracy": "share with their own label nearest", "excess": "excess along their own label"}


def labelled_part(found: ComparedRuns, pool: FigurePool) -> PagePart | None:
    """The section; None if no scenario has labelled messages that could be tested."""
    cards: list[Block] = []
    for number, scenario in enumerate(found.scenarios):
        blocks = _blocks(scenario, pool)
        if blocks:
            cards.append(Card(f"labelled-{number + 1}", scenario.name, blocks))
    if not cards:
        return None
    table = labelled_table(found)
    return PagePart("labelled", "Labelled messages", [Help(LABELLED), *([ShadedTable(table)] if table else []), *cards])


def labelled_table(found: ComparedRuns) -> Table | None:
    """The layer of the smallest p for each source; None where nothing could be tested."""
    rows: list[list[Cell]] = []
    for scenario in found.scenarios:
        for each in scenario.labelled:
            for source, it in each.by_source.items():
                if bool(it.accuracy.value.isnan().all()):
                    continue
                best = int(np.nanargmax(it.accuracy.value.numpy()))
                accuracy, excess = it.accuracy, it.excess
                rows.append(
                    [
                        *([scenario.name] if len(found.scenarios) > 1 else []),
                        each.position, source, len(each.messages), each.layers[best],
                        _cell(accuracy, best), each.chance,
                        finite_or_none(float(accuracy.p_corrected[best])), _cell(excess, best),
                        finite_or_none(float(excess.p_corrected[best])),
                    ]
                )  # fmt: skip
    if not rows:
        return None
    columns = ["position", "source", "messages", "best layer", "own label nearest", "chance", "p", "excess", "its p"]
    caption = (
        "p corrected for all layers and sources; the best layer was chosen by its share. Intervals: over "
        "conversations, "
        "where there are enough."
    )
    return Table(
        "Messages with a label of their own",
        ["scenario", *columns] if len(found.scenarios) > 1 else columns,
        rows,
        caption,
    )


def _cell(tested: Tested, layer: int) -> Cell:
    return interval_cell(float(tested.value[layer]), float(tested.low[layer]), float(tested.high[layer]))


def _blocks(scenario: ScenarioFindings, pool: FigurePool) -> list[Block]:
    blocks: list[Block] = []
    for each in scenario.labelled:
        if each.by_source:
            blocks += _labelled_blocks(each, pool)
    fading = [each for each in scenario.fading if each.by_source]
    if fading:
        blocks.append(Help(FADING))
    for each in fading:
        blocks += _fading_blocks(each, pool)
    return blocks


def _labelled_blocks(found: LabelledMessages, pool: FigurePool) -> list[Block]:
    sources = list(found.by_source)
    blocks: list[Block] = [_notes(found.notes)]
    for name, label in _STATISTICS.items():
        tested = [getattr(it, name) for it in found.by_source.values()]
        values = {field: np.stack([getattr(it, field).numpy() for it in tested]) for field in ("value", "low", "high")}
        # of what shuffled labels give, only the mean is known
        values |= dict.fromkeys(("null", "null_low", "null_high"), np.stack([it.null_mean.numpy() for it in tested]))
        cube = Cube({"source": sources, "layer": list(found.layers)}, _drawable(values))
        figures = [
            pool.place(
                null_band,
                cube,
                source,
                fields=_FIELDS | {"null": "null"},
                at={"source": place},
                label=label.partition(" ")[0],
                middle=True,
            )
            for place, source in enumerate(sources)
            if np.isfinite(values["value"][place]).any()
        ]
        heading = f"At the {POSITIONS[found.position]}: {label} ({len(found.messages)} messages of {found.role})"
        blocks.append(Charts(figures, heading))
    return blocks


def _fading_blocks(found: Fading, pool: FigurePool) -> list[Block]:
    curves, projections, rows = [], [], []
    for source, it in found.by_source.items():
        if bool(it.curve[:, 0].isnan().all()):
            continue
        layer = int(np.nanargmax(it.curve[:, 0].numpy()))
        title = f"{source}, layer {found.layers[layer]}"
        values = {field: getattr(it, "curve" if field == "value" else field)[layer].numpy() for field in _FIELDS}
        cube = Cube({"lag": found.lags}, _drawable(values))
        curves.append(pool.place(null_band, cube, title, fields=_FIELDS, label="excess", **_LAGS))
        if not bool(it.neutral[layer].isnan().all()):
            both = np.stack([it.projection[layer].numpy(), it.neutral[layer].numpy()])
            cube = Cube({"of": _BOTH, "lag": found.lags}, {"value": both})
            fields = {"value": "value"}
            projections.append(
                pool.place(layer_lines, cube, title, fields=fields, label="projection", series=_BOTH, by="of", **_LAGS)
            )
        rows.append([source, found.layers[layer], *_fading_cells(it, layer)])
    if not rows:
        return []
    columns = [
        "source",
        "layer",
        "lag 0",
        "lag 1",
        "lag 2",
        "slope per turn",
        "its p",
        "half-life",
        "with place",
        "its p ",
    ]
    caption = (
        "slope: change of the excess per turn over the turns after the label's own; half-life: in turns, only where "
        "the "
        "label carries over and falls; with place: change of the own label's excess per turn of place when the same "
        "turns stand at other places (needs shuffled orders). p corrected for all layers and sources."
    )
    blocks: list[Block] = [_notes(found.notes)]
    blocks.append(Charts(curves, f"At the {POSITIONS[found.position]}: what is left of a label some turns later"))
    if projections:
        blocks.append(Charts(projections, f"The same as projections, beside the neutral {', '.join(found.controls)}"))
    return [*blocks, ShadedTable(Table("Fading", columns, rows, caption))]


def _fading_cells(it: SourceFading, layer: int) -> list[Cell]:
    lags = [float(it.curve[layer, lag]) if lag < it.curve.shape[1] else float("nan") for lag in range(3)]
    place = (
        [float("nan")] * 2 if it.place is None else [float(it.place.slope[layer]), float(it.place.p_corrected[layer])]
    )
    slope = interval_cell(float(it.slope[layer]), float(it.slope_low[layer]), float(it.slope_high[layer]))
    rest = [float(it.slope_p_corrected[layer]), float(it.half_life[layer]), *place]
    return [*map(finite_or_none, lags), slope, *map(finite_or_none, rest)]


def _drawable(values: dict[str, NDArray[np.floating]]) -> dict[str, NDArray[np.floating]]:
    """Where ends of an interval are not known, the value stands for them: its bar is not seen."""
    return {name: np.where(np.isfinite(array), array, values["value"]) for name, array in values.items()}


def _notes(notes: Sequence[str]) -> Block:
    return Prose("; ".join(notes))
