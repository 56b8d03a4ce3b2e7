"""Pairs with a position offset, shown: the column of a table, and figures over (L, k) once for each offset."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from src.report.artifact_report import NamedChart
from src.report.figures.theme import titled_further
from src.report.tables import Cell
from src.transport.pairs import LayerPair


def pair_columns(pairs: Sequence[LayerPair]) -> list[str]:
    """L and k, and the offset if any pair has one."""
    return ["L", "k", *(["offset"] if any(pair.offset for pair in pairs) else [])]


def pair_cells(pair: LayerPair, pairs: Sequence[LayerPair]) -> list[Cell]:
    """The cells of a pair in the columns that `pair_columns` gives all of them."""
    numbers = [pair.L, pair.k, pair.offset]
    return [*numbers[: len(pair_columns(pairs))]]


def figures_by_offset(
    pairs: Sequence[LayerPair], draw: Callable[[list[LayerPair]], list[NamedChart]]
) -> list[NamedChart]:
    """The figures that `draw` makes of the pairs of one offset, for each offset; name and title tell them apart."""
    offsets = sorted({pair.offset for pair in pairs}, key=lambda offset: (abs(offset), offset))
    figures = []
    for offset in offsets:
        for figure in draw([pair for pair in pairs if pair.offset == offset]):
            if offsets == [0]:
                figures.append(figure)
                continue
            more = f", {offset_text(offset)}"
            name = f"{figure.name}_offset_{offset}" if offset else figure.name
            chart = titled_further(figure.chart, more)
            figures.append(replace(figure, name=name, title=figure.title + more, chart=chart))
    return figures


def offset_text(offset: int) -> str:
    """What token an operator predicts, as `j = i + 1`."""
    sign = "+" if offset > 0 else "\N{MINUS SIGN}"
    return f"j = i {sign} {abs(offset)}" if offset else "j = i"
