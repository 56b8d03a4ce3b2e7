"""How statistics of a cloud move with the number of its points, and with the number of principal components."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from jaxtyping import Float, Shaped

from src.errors import StrataError
from src.topology.homology.distances import Distances, checked_points
from src.topology.homology.persistence import persistence
from src.topology.inference.resampling import Band, Statistics, subsample_bands
from src.topology.protocols.sampling import principal_scores

SIZES = (50, 100, 200, 500, 1000, 2000)
COMPONENTS = (10, 20, 50, 100, None)


def over_sizes(
    distances: Distances,
    statistics: Statistics,
    sizes: Sequence[int] = SIZES,
    draws: int = 20,
    seed: int = 0,
    groups: Shaped[np.ndarray, "point"] | None = None,
    max_dimension: int = 1,
    workers: int = 1,
) -> dict[int, dict[str, Band]]:
    """The band of every statistic over subsamples (without replacement) of each size, ascending; the last is the cloud.

    Sizes beyond the cloud are left out. The cloud itself is measured once, and has no spread. The bands are those of
    `resampling.subsample_bands`, whose other arguments these are: of sizes near the cloud's they are narrow because
    subsamples share most of their points.

    Raises:
        StrataError: a size below 3, fewer than 2 draws, or groups that do not match the points.
    """
    found = {
        size: subsample_bands(
            distances, statistics, size, draws, seed, groups=groups, max_dimension=max_dimension, workers=workers
        )
        for size in sorted(set(sizes))
        if size < distances.n_points
    }
    whole = statistics(distances, persistence(distances, max_dimension))
    return {**found, distances.n_points: {name: _alone(value, distances.n_points) for name, value in whole.items()}}


def over_components(
    points: Float[np.ndarray, "point d"],
    statistics: Statistics,
    components: Sequence[int | None] = COMPONENTS,
    metric: Literal["euclidean", "cosine"] = "euclidean",
    max_dimension: int = 1,
) -> dict[int | None, dict[str, float]]:
    """Every statistic of the cloud's first principal components, for each number of them; None = its coordinates.

    Nothing is drawn, so each is computed once, all from one SVD. Numbers that reach the rank of the cloud are left
    out: distances are those of the coordinates.

    Raises:
        StrataError: if the points are not a matrix of 3 or more finite rows, or a number is below 1.
    """
    points = checked_points(points)
    rank = min(len(points) - 1, points.shape[1])
    numbers = [number for number in components if number is not None]
    if numbers and min(numbers) < 1:
        raise StrataError(f"{min(numbers)} principal components were asked for: 1 is the least")
    scores = principal_scores(points, max(numbers)) if numbers else points
    found: dict[int | None, dict[str, float]] = {}
    for number in components:
        if number is None or number < rank:
            distances = Distances.from_points(points if number is None else scores[:, :number], metric)
            found[number] = dict(statistics(distances, persistence(distances, max_dimension)))
    return found


def _alone(value: float, n_points: int) -> Band:
    return Band(value, 0.0, value, value, float("nan"), n_points, 1)
