"""Are two clouds' loops less alike than two halves of one cloud are?"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from src.topology.comparisons.diagram_distances import bottleneck_distance
from src.topology.homology.distances import Distances
from src.topology.homology.persistence import Bars, persistence
from src.topology.inference.relabelling import half_of_units

_COVERED = (0.025, 0.975)


@dataclass(frozen=True)
class SplitHalves:
    """Bottleneck distances of diagrams of halves, each in units of its cloud's median distance.

    Attributes:
        between: median over draws of the distance from a half of one cloud to a half of the other.
        within: median over draws and clouds of the distance between the two halves of one cloud.
        low, high: the central 95 % of the distances within.
    """

    between: float
    within: float
    low: float
    high: float

    @property
    def differ(self) -> bool:
        """Whether the clouds are farther from each other than a cloud's own halves are, as a rule."""
        return self.between > self.high


def split_halves(
    first: Distances,
    second: Distances,
    dimension: int = 1,
    draws: int = 20,
    seed: int = 0,
    units: tuple[Int[np.ndarray, " point"] | None, Int[np.ndarray, " other_point"] | None] = (None, None),
) -> SplitHalves:
    """Compare halves of two clouds with halves of each. Clouds of unlike sizes are compared at half of the smaller one.

    Args:
        first: distances of one cloud.
        second: distances of the other.
        dimension: of the homology.
        draws: random splits of each.
        seed: of the splits.
        units: of the points of each cloud (sequences, prompts), which stay in one half; None = each point.
    """
    random = np.random.default_rng(seed)
    size = min(first.n_points, second.n_points) // 2
    between, within = [], []
    for _ in range(draws):
        ours, theirs = (
            [_diagram(cloud, rows, dimension) for rows in _two_halves(cloud.n_points, size, unit, random)]
            for cloud, unit in zip((first, second), units, strict=True)
        )
        within += [_distance(*ours), _distance(*theirs)]
        between.append(_distance(ours[0], theirs[0]))
    if not draws:
        return SplitHalves(*[float("nan")] * 4)
    low, high = np.quantile(within, _COVERED)
    return SplitHalves(float(np.median(between)), float(np.median(within)), float(low), float(high))


_ScaledDiagram = tuple[Bars, float]


def _two_halves(
    n_points: int, size: int, units: Int[np.ndarray, " point"] | None, random: np.random.Generator
) -> list[Int[np.ndarray, " row"]]:
    """Two disjoint sets of at most `size` points."""
    half = half_of_units(units, n_points, random)
    rest = np.setdiff1d(np.arange(n_points), half)
    return [np.sort(random.permutation(rows)[:size]) for rows in (half, rest)]


def _diagram(cloud: Distances, rows: Int[np.ndarray, " row"], dimension: int) -> _ScaledDiagram:
    part = cloud.among(rows)
    return persistence(part, dimension).bars[dimension], part.median


def _distance(first: _ScaledDiagram, second: _ScaledDiagram) -> float:
    scales = first[1], second[1]
    return bottleneck_distance(first[0], second[0], scales) if min(scales) > 0 else np.nan
