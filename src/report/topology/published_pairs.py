"""Two clouds as actopo compares them: its numbers to the last digit, and why its verdict is none."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from src.report.tables import Cell, Table


@dataclass(frozen=True)
class PublishedPair:
    """What actopo 0.1.0 prints of two clouds, under its names.

    unions: of its union test with own scales and with that of the first cloud. bottleneck: of its bottleneck distance.
    centre: normalised and raw. phi: ratio of survival rates. refused: why own scales give no verdict; empty if they do.
    """

    title: str
    unions: tuple[dict[str, Any], dict[str, Any]]
    bottleneck: dict[str, float]
    centre: tuple[float, float]
    phi: float | None
    refused: str


def published_tables(pairs: Sequence[PublishedPair], names: str) -> list[Table]:
    """The union tests, and the distances; nothing without pairs."""
    if not pairs:
        return []
    unions: list[list[Cell]] = [[pair.title, *union.values()] for pair in pairs for union in pair.unions]
    distances: list[list[Cell]] = [[pair.title, *pair.bottleneck.values(), *pair.centre, pair.phi] for pair in pairs]
    caption = (
        "Names, rounding and conventions of actopo. Its verdict is no test: with own scales the three counts are of "
        "bars above three lengths, with a shared one all are of bars above a length of the first cloud."
    )
    centres = ["center_distance", "center_distance (raw)", "phi"]
    return [
        Table(f"actopo's union test: {names}", ["clouds", *pairs[0].unions[0]], unions, caption),
        Table(
            f"actopo's distances: {names}",
            ["clouds", *pairs[0].bottleneck, *centres],
            distances,
            "Lengths are in the units of the clouds: distances between clouds of different scale say little.",
        ),
    ]


def refusals(pairs: Sequence[PublishedPair]) -> str:
    """Why the counts with own scales give no verdict, once per pair of clouds."""
    return " ".join(f"{pair.title}: {pair.refused}." for pair in pairs if pair.refused)
