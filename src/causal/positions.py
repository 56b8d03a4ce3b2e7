"""Which positions are edited together, and which of them lie in reach of the sequences."""

from collections.abc import Collection, Sequence

import numpy as np
from jaxtyping import Bool

Positions = tuple[int, ...] | None
"""Positions that are edited together, ascending; None: all."""

POOLED = "pooled"


def position_text(positions: Positions) -> str:
    """`10`, `10,50,70`, `0-255`, or `all`."""
    if positions is None:
        return "all"
    runs: list[list[int]] = []
    for position in positions:
        if runs and position == runs[-1][1] + 1:
            runs[-1][1] = position
        else:
            runs.append([position, position])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)


def with_sources(flags: Bool[np.ndarray, "position"], offsets: Collection[int]) -> Bool[np.ndarray, "position"]:
    """The flags of those tokens whose sources, an offset before them, have the flag too, for each of the offsets."""
    places = np.arange(len(flags))
    kept = flags.copy()
    for offset in offsets:
        source = places - offset
        inside = (source >= 0) & (source < len(flags))
        kept &= inside & flags[source.clip(0, len(flags) - 1)]
    return kept


def reached_positions(
    sets: Sequence[Positions], editable: Sequence[Bool[np.ndarray, "position"]]
) -> tuple[list[Positions], list[int]]:
    """The sets without the positions at which no edit would change a prediction, and those positions.

    A position is reached if some sequence has a token there that may be edited, and another token after it. Sets of
    which nothing is left are left out, and of equal ones all but the first.
    """
    longest = max((len(flags) for flags in editable), default=0)
    reached = np.zeros(longest, bool)
    for flags in editable:
        reached[: len(flags) - 1] |= flags[:-1]
    left: list[Positions] = []
    unreached: set[int] = set()
    for positions in sets:
        if positions is None:
            if reached.any():
                left.append(None)
            continue
        kept = tuple(position for position in positions if position < longest and reached[position])
        unreached |= set(positions) - set(kept)
        if kept:
            left.append(kept)
    return list(dict.fromkeys(left)), sorted(unreached)
