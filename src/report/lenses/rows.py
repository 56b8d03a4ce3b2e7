"""Rows of a captured run in tables and figures: their names, and how many are drawn."""

from src.report.token_text import visible
from src.scenarios.lenses.items import Items

# columns of a figure: of more steps or messages the first are drawn, and the figure says so
MOST_DRAWN = 24


def item_names(items: Items) -> list[str]:
    """A short name for each row, its own: number, and the token or role."""
    return [f"{number} {visible(word, 12)}" for number, word in zip(items.numbers, items.words, strict=True)]


def drawn_note(n_items: int, kind: str) -> str:
    """What a figure says that draws the first rows only; empty if it draws all."""
    return f"the first {MOST_DRAWN} of {n_items} {kind}" if n_items > MOST_DRAWN else ""


def sentence(*parts: str) -> str | None:
    """The parts that are not empty as one line; None without any."""
    return "; ".join(part for part in parts if part) or None
