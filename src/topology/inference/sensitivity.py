"""What the most outlying points of a cloud do to its statistics."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from src.errors import StrataError
from src.topology.homology.distances import Distances
from src.topology.homology.persistence import Persistence, persistence
from src.topology.inference.resampling import Statistics

OUTLIER_SHARE = 0.01


@dataclass(frozen=True)
class Sensitivity:
    """A statistic with all points, and without the outlying ones; relative_change is NaN where it was 0."""

    with_all: float
    without: float

    @property
    def change(self) -> float:
        """What leaving the outlying points out adds."""
        return self.without - self.with_all

    @property
    def relative_change(self) -> float:
        """The change as a share of what the statistic was."""
        return self.change / abs(self.with_all) if self.with_all else float("nan")


@dataclass(frozen=True)
class OutlierSensitivity:
    """Every statistic by name, and which points were left out, most outlying first."""

    statistics: dict[str, Sensitivity]
    left_out: Int[np.ndarray, "outlier"]


def most_outlying(distances: Distances, share: float = OUTLIER_SHARE) -> Int[np.ndarray, "outlier"]:
    """The points with the largest mean distance to the others, most outlying first; one at least.

    The mean distance rather than that to a near neighbour: outliers of activations come in groups (first tokens,
    separators), which are near to each other.

    Raises:
        StrataError: if the share is not between 0 and 1, or fewer than 3 points would be left.
    """
    n_points = distances.n_points
    count = max(1, round(share * n_points))
    if not 0 < share < 1 or n_points - count < 3:
        raise StrataError(f"leaving out a share of {share:g} of {n_points} points must leave 3 of them or more")
    return np.argsort(-distances.matrix.mean(axis=1), kind="stable")[:count]


def outlier_sensitivity(
    distances: Distances,
    statistics: Statistics,
    share: float = OUTLIER_SHARE,
    found: Persistence | None = None,
    max_dimension: int = 1,
) -> OutlierSensitivity:
    """Every statistic with all points and without the most outlying `share` of them.

    Args:
        distances: of the cloud.
        statistics: all statistics of a cloud by name, from its distances and its diagrams.
        share: of the points that is left out.
        found: the cloud's diagrams, if they are known.
        max_dimension: of the homology.

    Raises:
        StrataError: as `most_outlying`.
    """
    left_out = most_outlying(distances, share)
    rest = distances.among(np.setdiff1d(np.arange(distances.n_points), left_out))
    before = statistics(distances, found if found is not None else persistence(distances, max_dimension))
    after = statistics(rest, persistence(rest, max_dimension))
    return OutlierSensitivity({name: Sensitivity(value, after[name]) for name, value in before.items()}, left_out)
