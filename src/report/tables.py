"""A table of results, and how its cells are written: the same on the terminal and in the report."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from typing_extensions import TypedDict  # pydantic needs this one before Python 3.12

# Beyond these a number is written with an exponent
_SMALLEST_FIXED = 1e-4
_LARGEST_FIXED = 1e7
# How numbers are written that JSON does not know
NON_FINITE = ("NaN", "∞", "-∞")


class Interval(TypedDict):
    """An estimate with the ends of its interval; the value of a count is an int."""

    value: int | float
    low: float
    high: float


class Link(TypedDict):
    """Words that lead to a place in another file of the artifacts' folder, as in `explanations/NAME/cards.html#f3`."""

    text: str
    href: str


Cell = str | int | float | bool | Interval | Link | None
# a report may come from someone else: nothing in it leads out of its folder, or to a script
_INSIDE = re.compile(r"(?:[\w=+-][\w.=+-]*/)*[\w=+-][\w.=+-]*(?:#[\w.-]+)?", re.ASCII)


@dataclass(frozen=True)
class Table:
    """A table whose numbers are still numbers: they are formatted when they are shown."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    caption: str = ""

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(
                    f"table {self.title!r}: {len(row)} cells in a row of {len(self.columns)} columns: {row}"
                )


@dataclass(frozen=True)
class CellText:
    """A cell as text: the number or words, and the interval if there is one."""

    text: str
    interval: str = ""
    href: str = ""


def cell_text(cell: Cell) -> CellText:
    """Write a cell: counts with thousands separators, floats with 4 significant digits, intervals in brackets.

    A link that leads out of the artifacts' folder is shown as its words alone.
    """
    if cell is None:
        return CellText("–")
    if isinstance(cell, bool):
        return CellText("yes" if cell else "no")
    if isinstance(cell, int):
        return CellText(f"{cell:,}")
    if isinstance(cell, float):
        return CellText(format_number(cell))
    if isinstance(cell, dict):
        return _interval_text(cell) if "value" in cell else _link_text(cell)
    return CellText(str(cell))


def interval_cell(value: float, low: float, high: float) -> Cell:
    """An estimate with its interval; alone where the ends are not known, a gap where it is not finite."""
    if not math.isfinite(value):
        return None
    if not (math.isfinite(low) and math.isfinite(high)):
        return value
    return {"value": value, "low": low, "high": high}


def finite_or_none(value: float | None) -> float | None:
    """Tables and charts have gaps where a number is not finite."""
    return None if value is None or not math.isfinite(value) else float(value)


def format_number(value: float) -> str:
    """4 significant digits, fewer where they say it all (0.01); an exponent only for the very small and very large."""
    if not math.isfinite(value):
        return NON_FINITE[0 if math.isnan(value) else 1 if value > 0 else 2]
    if value == 0:
        return "0"
    if not _SMALLEST_FIXED <= abs(value) < _LARGEST_FIXED:
        mantissa, exponent = f"{value:.3e}".split("e")
        return f"{mantissa}e{int(exponent)}"
    text = f"{value:,.{_decimals(value)}f}"
    # a number that somebody chose, such as an alpha: measured ones keep their zeros, so that columns line up
    exact = "." in text and float(f"{value:.4g}") == value
    return text.rstrip("0").removesuffix(".") if exact else text


def _decimals(value: float, digits: int = 4) -> int:
    """Decimals that show so many significant digits of a number."""
    return max(0, digits - 1 - math.floor(math.log10(abs(value))))


def _link_text(cell: Link) -> CellText:
    return CellText(cell["text"], href=cell["href"] if _INSIDE.fullmatch(cell["href"]) else "")


def _interval_text(cell: Interval) -> CellText:
    """One number of decimals for all three: 4 digits of the largest (4 decimals suffice), 2 digits of the width.

    A count (an int) has none, and its ends have one at most.
    """
    numbers = [float(cell["value"]), float(cell["low"]), float(cell["high"])]
    if isinstance(cell["value"], int) and all(map(math.isfinite, numbers)):
        low, high = (f"{number:,.1f}".removesuffix(".0") for number in numbers[1:])
        return CellText(f"{cell['value']:,}", f"[{low}, {high}]")
    sizes = [abs(number) for number in numbers if math.isfinite(number)]
    largest = max(sizes, default=0.0)
    if len(sizes) < 3 or not _SMALLEST_FIXED <= largest < _LARGEST_FIXED:
        value, low, high = (format_number(number) for number in numbers)
        return CellText(value, f"[{low}, {high}]")
    decimals = min(_decimals(largest), 4)
    width = numbers[2] - numbers[1]
    if width > 0:
        decimals = max(decimals, min(_decimals(width, digits=2), _decimals(largest) + 3))
    value, low, high = (f"{number:,.{decimals}f}" for number in numbers)
    return CellText(value, f"[{low}, {high}]")


def numeric_columns(table: Table) -> list[bool]:
    """For each column: does it hold numbers only (and gaps), so that it is aligned on the right?"""
    return [
        any(_is_number(row[column]) for row in table.rows)
        and all(row[column] is None or _is_number(row[column]) for row in table.rows)
        for column in range(len(table.columns))
    ]


def _is_number(cell: Cell) -> bool:
    return (
        cell in NON_FINITE
        if isinstance(cell, str)
        else "value" in cell
        if isinstance(cell, dict)
        else isinstance(cell, int | float) and not isinstance(cell, bool)
    )
