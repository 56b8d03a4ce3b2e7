"""What the references of a scenario can tell apart, layer by layer."""

import numpy as np

from src.report.cube import Cube
from src.report.figure_pool import FigurePool
from src.report.figures.layer_lines import null_band
from src.report.run_comparison.blocks import Block, Card, Charts, Help, PagePart, Prose, ShadedTable
from src.report.run_comparison.compared import ComparedRuns, ScenarioFindings
from src.report.run_comparison.words import POSITIONS, SEPARABILITY
from src.report.tables import Cell, Table, interval_cell
from src.scenarios.comparing.separability import Separability, SourceSeparability

_LEVEL = 0.05
_FIELDS = {
    "value": "accuracy",
    "low": "low",
    "high": "high",
    "null": "null_mean",
    "null_low": "null_mean",
    "null_high": "null_high",
}


def separability_table(found: ComparedRuns) -> Table | None:
    """The best layer of each source; None where no references could be tested."""
    rows: list[list[Cell]] = []
    for scenario in found.scenarios:
        for each in scenario.separability:
            for source, it in each.by_source.items():
                if bool(it.accuracy.isnan().all()):
                    continue
                best = _clearest(it)
                rows.append(
                    [
                        *([scenario.name] if len(found.scenarios) > 1 else []),
                        each.position,
                        source,
                        each.layers[best],
                        interval_cell(float(it.accuracy[best]), float(it.low[best]), float(it.high[best])),
                        each.chance,
                        float(it.p_corrected[best]),
                        int((it.p_corrected <= _LEVEL).sum()),
                    ]
                )
    if not rows:
        return None
    columns = ["position", "source", "best layer", "own label found", "chance", "p", f"layers with p ≤ {_LEVEL}"]
    caption = (
        "Share of reference texts whose nearest label is their own, held out: each text, or example i of all labels at "
        "once where labels have equally many. p corrected for all layers and sources of a position; the layer was "
        "chosen "
        "by it, so its interval is too hopeful."
    )
    return Table(
        "What the references tell apart", ["scenario", *columns] if len(found.scenarios) > 1 else columns, rows, caption
    )


def separability_finding(found: ComparedRuns) -> str:
    """Where the references are told apart best, in a sentence; empty where none could be tested."""
    cells = [
        (float(it.p_corrected[best]), -float(it.accuracy[best]), source, each, best)
        for scenario in found.scenarios
        for each in scenario.separability
        for source, it in each.by_source.items()
        if not bool(it.accuracy.isnan().all())
        for best in (_clearest(it),)
    ]
    if not cells:
        return ""
    p, share, source, each, best = min(cells, key=lambda cell: cell[:2])
    told = "are told apart best" if p <= _LEVEL else "are not told apart beyond chance; the best is"
    return (
        f"The reference texts {told} by {source} of layer {each.layers[best]} at `{each.position}`: "
        f"{-share:.2f} of them find their own label, chance is {each.chance:.3g} (corrected p = {p:.2g})."
    )


def _clearest(found: SourceSeparability) -> int:
    """The layer of the smallest corrected p; of several the one with the greatest share."""
    known = [place for place in range(len(found.accuracy)) if not bool(found.accuracy[place].isnan())]
    return min(known, key=lambda place: (float(found.p_corrected[place]), -float(found.accuracy[place])))


def references_part(found: ComparedRuns, pool: FigurePool) -> PagePart | None:
    """The section of reference states; None if no scenario has any."""
    cards: list[Block] = []
    for number, scenario in enumerate(found.scenarios):
        if scenario.captured.references is not None:
            cards.append(Card(f"references-{number + 1}", scenario.name, _scenario_blocks(scenario, pool)))
    if not cards:
        return None
    table = separability_table(found)
    return PagePart(
        "references", "Reference states", [Help(SEPARABILITY), *([ShadedTable(table)] if table else []), *cards]
    )


def _scenario_blocks(scenario: ScenarioFindings, pool: FigurePool) -> list[Block]:
    references = scenario.captured.references
    assert references is not None
    rows: list[list[Cell]] = []
    for label in dict.fromkeys(text.label for text in references.texts):
        texts = [references.texts[row] for row in references.of(label)]
        rows.append([label, len(texts), "yes" if texts[0].neutral else "", texts[0].preview])
    blocks: list[Block] = [ShadedTable(Table("Texts", ["label", "texts", "neutral", "the first of them"], rows))]
    for each in scenario.separability:
        blocks += _position_blocks(each, pool)
    return blocks


def _position_blocks(found: Separability, pool: FigurePool) -> list[Block]:
    blocks: list[Block] = [Prose("\n\n".join(found.notes))] if found.notes else []
    if found.reason is not None:
        return [*blocks, Prose(f"At the {POSITIONS[found.position]}: {found.reason}")]
    sources = list(found.by_source)
    values = {
        name: np.stack([getattr(it, name).numpy() for it in found.by_source.values()]) for name in _FIELDS.values()
    }
    cube = Cube({"source": sources, "layer": list(found.layers)}, values)
    figures = [
        pool.place(null_band, cube, source, fields=_FIELDS, at={"source": place}, label="own label found", middle=True)
        for place, source in enumerate(sources)
    ]
    return [*blocks, Charts(figures, f"At the {POSITIONS[found.position]}")]
