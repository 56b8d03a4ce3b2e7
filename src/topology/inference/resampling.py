"""How far the statistics of a cloud move from subsample to subsample, at a size that other clouds can match.

Subsamples are drawn without replacement: copies of a point have no topology of their own, so that a bootstrap's clouds
differ from real ones (it lost most bars of a published package's clouds).
"""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, Shaped

from src.errors import StrataError
from src.topology.homology.distances import Distances
from src.topology.homology.persistence import Persistence, persistence

Statistics = Callable[[Distances, Persistence], Mapping[str, float]]

MATCHED_SHARE = 0.5


@dataclass(frozen=True)
class Band:
    """A statistic over subsamples of `size` points of one cloud.

    Attributes:
        low, high: quantiles. Between them lies the statistic of most subsamples of this size *of this cloud*: the band
            shrinks to a point as the size nears the cloud's, and is not a confidence interval for a population.
        sd: standard deviation over subsamples.
        standard_error: sd / sqrt(1 - size / n_points), the spread to be expected over fresh samples of `size` points
            from where the cloud came from: exact for means (finite population correction), from 0.9 to 1.4 times
            the truth where it was measured for others, at half of the points; NaN where the subsample is the cloud.
        size: points in a subsample. draws: subsamples in which the statistic is defined (not NaN).
    """

    mean: float
    sd: float
    low: float
    high: float
    standard_error: float
    size: int
    draws: int


def matched_size(n_points: Sequence[int], share: float = MATCHED_SHARE) -> int:
    """The size at which clouds of these sizes are compared: a share of the smallest.

    Raises:
        StrataError: if there is no cloud, the share is not in (0, 1], or fewer than 3 points would be left.
    """
    if not n_points or not 0 < share <= 1:
        raise StrataError(f"a matched size is a share in (0, 1] of the smallest cloud: {share} of {list(n_points)}")
    size = int(share * min(n_points))
    if size < 3:
        raise StrataError(f"{share} of the smallest cloud, {min(n_points)} points, is fewer than 3: take more points")
    return size


def subsample_bands(
    distances: Distances,
    statistics: Statistics,
    size: int,
    draws: int = 50,
    seed: int = 0,
    groups: Shaped[np.ndarray, "point"] | None = None,
    coverage: float = 0.95,
    max_dimension: int = 1,
    workers: int = 1,
) -> dict[str, Band]:
    """The band of every statistic over subsamples of `size` points, whose distances are blocks of the cloud's.

    Args:
        distances: of the cloud.
        statistics: all statistics of a subsample, by name, from its distances and its diagrams.
        size: points in a subsample; `matched_size` gives one for several clouds.
        draws: number of subsamples.
        seed: draw k depends on the seed and on k alone.
        groups: rows that belong together (tokens of a sequence): subsamples are then made of whole groups, but for the
            last one drawn, which is cut to the size.
        coverage: share of the subsamples that lie between low and high.
        max_dimension: of the homology.
        workers: threads.

    Raises:
        StrataError: if the size is not between 3 and the number of points, groups do not match the points, or there
            are fewer than 2 draws.
    """
    if not 3 <= size <= distances.n_points:
        raise StrataError(f"a subsample has 3 to {distances.n_points} points (all of the cloud): {size} were asked for")
    if draws < 2:
        raise StrataError(f"a band needs 2 or more subsamples: {draws} were asked for")
    label = checked_groups(groups, distances.n_points) if groups is not None else None

    def of_subsample(draw: int) -> Mapping[str, float]:
        block = distances.among(subsample(distances.n_points, size, generator(seed, draw), label))
        return statistics(block, persistence(block, max_dimension))

    found = gather(in_threads(of_subsample, draws, workers))
    return {name: _band(values, size, distances.n_points, coverage) for name, values in found.items()}


def subsample(
    n_points: int, size: int, random: np.random.Generator, label: Int[np.ndarray, "point"] | None = None
) -> Int[np.ndarray, "size"]:
    """Sorted rows, drawn without replacement; with `label` (0, 1, ...) group by group, the last one cut to the size."""
    if label is None:
        return np.sort(random.choice(n_points, size, replace=False))
    shuffled = random.permutation(n_points)
    place = random.permutation(label.max() + 1)[label[shuffled]]
    return np.sort(shuffled[np.argsort(place, kind="stable")[:size]])


def checked_groups(groups: Shaped[np.ndarray, "point"], n_points: int) -> Int[np.ndarray, "point"]:
    """The number (0, 1, ...) of each row's group.

    Raises:
        StrataError: if there is not one group per row.
    """
    groups = np.asarray(groups)
    if groups.shape != (n_points,):
        raise StrataError(f"groups name each of the {n_points} points' group: these have the shape {groups.shape}")
    return np.unique(groups, return_inverse=True)[1]


def generator(seed: int, draw: int) -> np.random.Generator:
    """Of one draw: the same however many others there are, and another than `default_rng(seed)`'s."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(draw,)))


def in_threads(
    of_draw: Callable[[int], Mapping[str, float]], draws: int, workers: int = 1
) -> list[Mapping[str, float]]:
    """The statistics of every draw, in order."""
    if workers == 1:
        return [of_draw(draw) for draw in range(draws)]
    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(of_draw, range(draws)))


def gather(found: Sequence[Mapping[str, float]]) -> dict[str, Float[np.ndarray, "draw"]]:
    """The values of every statistic over draws."""
    return {name: np.array([each[name] for each in found], dtype=np.float64) for name in found[0]}


def _band(values: Float[np.ndarray, "draw"], size: int, n_points: int, coverage: float) -> Band:
    values = values[~np.isnan(values)]
    if len(values) < 2:
        nan = float("nan")
        return Band(nan, nan, nan, nan, nan, size, len(values))
    low, high = np.quantile(values, [(1 - coverage) / 2, (1 + coverage) / 2])
    sd = float(values.std(ddof=1))
    error = sd / np.sqrt(1 - size / n_points) if size < n_points else float("nan")
    return Band(float(values.mean()), sd, float(low), float(high), float(error), size, len(values))
