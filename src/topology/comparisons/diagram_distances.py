"""Distances between persistence diagrams.

gudhi.hera is used (Kerber, Morozov & Nigmetov 2017; BSD), not gudhi.bottleneck: that one is under the GPL, and errs:
1.0 in place of 0.5 for {(0, 2), (1, 2), (1, 2)} and {(0, 1), (0, 1), (0, 1), (0, 2)} (gudhi 3.13).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float

from src.errors import StrataError
from src.topology.homology.persistence import Bars

Ground = Literal["maximum", "euclidean"]
_EXPONENT: dict[Ground, float] = {"maximum": np.inf, "euclidean": 2.0}
# relative error of a Wasserstein distance; the bottleneck distance is exact
ERROR = 1e-3


@dataclass(frozen=True)
class DiagramDistance:
    """Distances between two diagrams of one dimension.

    Bars that never die are matched with each other by birth; where their numbers differ, every distance is infinite.

    Attributes:
        bottleneck: the largest move of the best matching, in the maximum norm.
        unmatched: what `bottleneck` would be if no bar were matched with another: half of the longest lifetime. Where
            both agree, the distance says how long that bar is, and nothing of the other diagram.
        wasserstein_1, wasserstein_2: the sum of moves, and the root of the sum of their squares.
        n_infinite: bars of each diagram that never die.
    """

    bottleneck: float
    unmatched: float
    wasserstein_1: float
    wasserstein_2: float
    n_infinite: tuple[int, int]

    @property
    def is_trivial(self) -> bool:
        """Whether the bottleneck distance is that of matching nothing (up to float32: ripser's deaths)."""
        return np.isfinite(self.bottleneck) and self.bottleneck >= self.unmatched * (1 - 1e-6)


def diagram_distance(
    first: Bars, second: Bars, scales: tuple[float, float] = (1.0, 1.0), ground: Ground = "maximum"
) -> DiagramDistance:
    """Bottleneck and Wasserstein distances (orders 1 and 2) between the bars of two clouds.

    Args:
        first: bars of one cloud.
        second: bars of the other, of the same dimension.
        scales: of the clouds: births and deaths are divided by them. (1, 1): distances in the units of the clouds,
            which compare shapes only where both have one scale.
        ground: the norm in the plane of birth and death that Wasserstein distances add up.

    Raises:
        StrataError: for bars of different dimensions, or a scale that is not positive.
    """
    ours, theirs = _scaled(first, second, scales)
    return DiagramDistance(
        _bottleneck(ours, theirs),
        max((float(np.diff(finite).max()) / 2 for finite, _ in (ours, theirs) if len(finite)), default=0.0),
        _wasserstein(ours, theirs, 1, ground),
        _wasserstein(ours, theirs, 2, ground),
        (len(ours[1]), len(theirs[1])),
    )


def bottleneck_distance(first: Bars, second: Bars, scales: tuple[float, float] = (1.0, 1.0)) -> float:
    """The bottleneck distance alone; see `diagram_distance`."""
    return _bottleneck(*_scaled(first, second, scales))


def bottleneck_matrix(
    rows: Sequence[Bars], columns: Sequence[Bars], row_scales: Sequence[float], column_scales: Sequence[float]
) -> Float[np.ndarray, "row column"]:
    """Scale-free bottleneck distances of many clouds (layers); each pair once where rows and columns are the same."""
    found = np.zeros((len(rows), len(columns)))
    same = rows is columns and row_scales is column_scales
    for i, first in enumerate(rows):
        for j, second in enumerate(columns):
            if same and j <= i:
                found[i, j] = found[j, i]
            else:
                found[i, j] = bottleneck_distance(first, second, (row_scales[i], column_scales[j]))
    return found


_Parts = tuple[Float[np.ndarray, "finite_bar 2"], Float[np.ndarray, " infinite_bar"]]


def _scaled(first: Bars, second: Bars, scales: tuple[float, float]) -> tuple[_Parts, _Parts]:
    if first.dimension != second.dimension:
        raise StrataError(f"bars of dimension {first.dimension} have no distance to bars of {second.dimension}")
    if not all(np.isfinite(scale) and scale > 0 for scale in scales):
        raise StrataError(f"scales of clouds are positive: got {scales[0]:g} and {scales[1]:g}")
    return _parts(first, scales[0]), _parts(second, scales[1])


def _parts(bars: Bars, scale: float) -> _Parts:
    """Finite bars, and sorted births of the others."""
    return np.ascontiguousarray(bars.finite / scale), np.sort(bars.birth[~np.isfinite(bars.death)]) / scale


def _bottleneck(ours: _Parts, theirs: _Parts) -> float:
    if len(ours[1]) != len(theirs[1]):
        return np.inf
    from gudhi.hera import bottleneck_distance as hera

    infinite = float(np.abs(ours[1] - theirs[1]).max(initial=0.0))
    return max(infinite, float(hera(ours[0], theirs[0], delta=0.0)))


def _wasserstein(ours: _Parts, theirs: _Parts, order: int, ground: Ground) -> float:
    if len(ours[1]) != len(theirs[1]):
        return np.inf
    from gudhi.hera import wasserstein_distance as hera

    infinite = (np.abs(ours[1] - theirs[1]) ** order).sum()
    finite = float(hera(ours[0], theirs[0], order=order, internal_p=_EXPONENT[ground], delta=ERROR))
    return float((infinite + finite**order) ** (1 / order))
