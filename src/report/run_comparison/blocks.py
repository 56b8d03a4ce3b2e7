"""What the page of a comparison is made of. The template knows how each block looks; all text in them is plain text."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from src.report.figure_pool import PlacedFigure
from src.report.tables import Table


@dataclass(frozen=True)
class Prose:
    """Words; an empty line begins a new paragraph. anchor: a place on the page that a link leads to."""

    kind: ClassVar = "prose"
    text: str


@dataclass(frozen=True)
class Help:
    """How to read what follows."""

    kind: ClassVar = "help"
    text: str


@dataclass(frozen=True)
class Charts:
    """Charts side by side, as many as there is room for."""

    kind: ClassVar = "charts"
    figures: Sequence[PlacedFigure]
    heading: str = ""


@dataclass(frozen=True)
class ShadedTable:
    """A table; the columns of numbers in `shaded` have a background from the least (0) to the greatest (1) shade.

    shaded: column -> the values of no and of full shade. links: the row's first cell leads to this anchor of the page.
    """

    kind: ClassVar = "table"
    table: Table
    shaded: dict[int, tuple[float, float]] = field(default_factory=dict)
    links: Sequence[str] = ()

    def shade(self, row: int, column: int) -> float | None:
        """From 0 to 1, or None for a cell without a shade."""
        value = self.table.rows[row][column]
        if isinstance(value, dict) and "value" in value:
            value = value["value"]
        if column not in self.shaded or isinstance(value, bool) or not isinstance(value, int | float) or value != value:
            return None
        low, high = self.shaded[column]
        return round(min(max((value - low) / (high - low), 0.0), 1.0), 3) if high > low else None


@dataclass(frozen=True)
class SaidMessage:
    """A message of a conversation as the page shows it."""

    number: int
    role: str
    text: str
    label: str | None = None
    generated: bool = False


@dataclass(frozen=True)
class Talk:
    """Messages, one below the other."""

    kind: ClassVar = "talk"
    messages: Sequence[SaidMessage]


@dataclass(frozen=True)
class Reply:
    """What the model went on with."""

    kind: ClassVar = "reply"
    text: str
    about: str


@dataclass(frozen=True)
class Explorer:
    """The likeliest tokens of each step of a generation, with a slider. number: its place among the page's data."""

    kind: ClassVar = "explorer"
    number: int
    n_steps: int


@dataclass(frozen=True)
class Fold:
    """Blocks that are hidden until somebody opens them; their charts are drawn then. role: for a badge."""

    kind: ClassVar = "fold"
    summary: str
    blocks: Sequence["Block"]
    role: str = ""
    note: str = ""
    is_open: bool = False


@dataclass(frozen=True)
class Card:
    """Blocks under a heading of their own, with a place on the page."""

    kind: ClassVar = "card"
    anchor: str
    title: str
    blocks: Sequence["Block"]
    note: str = ""


Block = Prose | Help | Charts | ShadedTable | Talk | Reply | Explorer | Fold | Card


@dataclass(frozen=True)
class PagePart:
    """A section of the page."""

    anchor: str
    title: str
    blocks: Sequence[Block]
