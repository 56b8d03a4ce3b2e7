"""Loops over layers: which loop of one layer is which of the next, for clouds of the same points.

Tracks join bars of separate diagrams; they are no zigzag persistence, which would need maps between the complexes of
all layers (gudhi has none for clouds of such sizes).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float
from scipy.optimize import linear_sum_assignment

from src.errors import StrataError
from src.topology.loops.circular_statistics import circular_correlation
from src.topology.loops.loops import Loop

# Least similarity of two loops that are one.
THRESHOLD = 0.5


@dataclass(frozen=True, eq=False)
class Track:
    """A loop that lives over successive layers.

    Attributes:
        layers: where it was found, ascending; loops: what it is there.
        similarity: of each loop to the next one.
    """

    layers: list[int] = field(default_factory=list)
    loops: list[Loop] = field(default_factory=list)
    similarity: list[float] = field(default_factory=list)

    @property
    def birth_layer(self) -> int:
        """The first layer that has it."""
        return self.layers[0]

    @property
    def death_layer(self) -> int:
        """The last layer that has it."""
        return self.layers[-1]


def similarity(first: Loop, second: Loop) -> float:
    """How alike two loops through clouds of the same points are: the circular correlation of their coordinates.

    |rho_T| of Fisher and Lee over the points that have both, times their share of those that have either: 1 where the
    points stand alike around both loops, in whichever direction; 0 where too few points have both.
    """
    has_first, has_second = np.isfinite(first.coordinate.turns), np.isfinite(second.coordinate.turns)
    both, either = has_first & has_second, has_first | has_second
    if both.sum() < 3:
        return 0.0
    rho = circular_correlation(first.coordinate.turns[both], second.coordinate.turns[both])
    return 0.0 if np.isnan(rho) else abs(rho) * both.sum() / either.sum()


def track_loops(layers: Sequence[int], loops: Sequence[Sequence[Loop]], threshold: float = THRESHOLD) -> list[Track]:
    """Join the loops of each layer with those of the next: the pairs whose similarities have the largest sum.

    Pairs below the threshold are not joined: there one loop ends, and another begins.

    Args:
        layers: their numbers, ascending.
        loops: of each layer, from clouds of the same points in the same order. Take more than the significant ones
            (`loops_of` with a level of 1 and `at_most`) where a loop shall be followed through layers in which it is
            weak.
        threshold: of `similarity`.

    Returns:
        Tracks by the layer of their birth, then by the place of their first loop.

    Raises:
        StrataError: if there is not one list of loops for each layer, or points differ in number.
    """
    if len(layers) != len(loops) or sorted(set(layers)) != list(layers):
        raise StrataError(
            f"{len(layers)} layers {list(layers)} do not fit {len(loops)} lists of loops, in rising order"
        )
    sizes = {len(loop.coordinate.turns) for of_layer in loops for loop in of_layer}
    if len(sizes) > 1:
        raise StrataError(
            f"loops are of clouds with {sorted(sizes)} points: only loops through the same points compare"
        )
    tracks: list[Track] = []
    open_tracks: list[Track] = []
    for layer, of_layer in zip(layers, loops, strict=True):
        table = _similarities([track.loops[-1] for track in open_tracks], of_layer)
        rows, columns = linear_sum_assignment(np.where(table < threshold, 0.0, table), maximize=True)
        joined = {
            int(column): (open_tracks[row], float(table[row, column]))
            for row, column in zip(rows, columns, strict=True)
            if table[row, column] >= threshold
        }
        open_tracks = []
        for place, loop in enumerate(of_layer):
            if place in joined:
                track, alike = joined[place]
                track.similarity.append(alike)
            else:
                track = Track()
                tracks.append(track)
            track.layers.append(layer)
            track.loops.append(loop)
            open_tracks.append(track)
    return tracks


def _similarities(earlier: Sequence[Loop], later: Sequence[Loop]) -> Float[np.ndarray, "earlier later"]:
    return np.array([[similarity(first, second) for second in later] for first in earlier]).reshape(
        len(earlier), len(later)
    )
