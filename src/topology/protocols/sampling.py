"""Fewer points of a large cloud, by four strategies, and its principal components.

Every strategy but `uniform` distorts the cloud: see `sample`. todacomm.py beside it has the draws of that package.
"""

import numpy as np
from jaxtyping import Bool, Float, Int

from src.errors import StrataError
from src.topology.homology.distances import Distances, centred, checked_points
from src.topology.protocols.protocol import Sampling

# multiscale: neighbourhoods that half of the points come from
NEIGHBOURHOODS = 10
# adaptive: the density at a point is 1 / its mean distance to so many nearest others
DENSITY_NEIGHBOURS = 20


def sample(
    cloud: Float[np.ndarray, "point d"] | Distances, n_points: int, strategy: Sampling = "uniform", seed: int = 0
) -> Int[np.ndarray, "row"]:
    """Which `n_points` of a cloud to keep; all where it has no more.

    Points are compared by euclidean distance, in memory that grows with their number only, or by given distances.

    - uniform: at random. The sample is distributed as the cloud is; rare outliers are mostly lost.
    - multiscale: half at random, half from 10 neighbourhoods of random points, half of the nearest points of each. It
      keeps small loops there, and overweighs the regions that they lie in.
    - adaptive: at random in proportion to the density, 1 / mean distance to the 20 nearest others. It overweighs dense
      regions, erases outliers and the rims of holes: long bars get shorter.
    - farthest: each time the point that is farthest from those chosen (greedy k-centre, Gonzalez 1985), from a random
      first one. It keeps outlines and all outliers, evens out the density, and so draws loops larger than the cloud's
      mass would: no statistic that depends on density holds for it. No point of the cloud is farther from the sample
      than twice the least possible radius.

    Rows are ascending; those of `farthest` stand in the order in which they were chosen, so that the first k of them
    are a sample of k.

    Raises:
        StrataError: fewer than 1 point wanted, an unknown strategy, or points that are no finite matrix.
    """
    chosen = {"uniform": _uniform, "multiscale": _multiscale, "adaptive": _adaptive, "farthest": _farthest}
    if strategy not in chosen:
        raise StrataError(f"sampling={strategy} is not known: it is one of {', '.join(chosen)}")
    if n_points < 1:
        raise StrataError(f"a sample of {n_points} points was asked for: 1 is the least")
    if not isinstance(cloud, Distances):
        cloud = checked_points(cloud)
    total = cloud.n_points if isinstance(cloud, Distances) else len(cloud)
    if total <= n_points:
        return np.arange(total)
    return chosen[strategy](cloud, total, n_points, np.random.default_rng(seed))


def principal_scores(points: Float[np.ndarray, "point d"], components: int) -> Float[np.ndarray, "point component"]:
    """Scores of the first principal components, by a full SVD in float64; all there are where there are fewer.

    The sign of a component is such that its largest loading is positive, so that scores do not depend on the machine.

    Raises:
        StrataError: if the points are not a matrix of 3 or more finite rows, or `components` is below 1.
    """
    if components < 1:
        raise StrataError(f"{components} principal components were asked for: 1 is the least")
    points = checked_points(points)
    left, size, loadings = np.linalg.svd(centred(points), full_matrices=False)
    largest = np.take_along_axis(loadings, np.abs(loadings).argmax(axis=1)[:, None], axis=1)[:, 0]
    return (left * size * np.where(largest < 0, -1.0, 1.0))[:, :components]


def _uniform(
    cloud: Float[np.ndarray, "point d"] | Distances, total: int, wanted: int, rng: np.random.Generator
) -> Int[np.ndarray, "row"]:
    return np.sort(rng.choice(total, wanted, replace=False))


def _multiscale(
    cloud: Float[np.ndarray, "point d"] | Distances, total: int, wanted: int, rng: np.random.Generator
) -> Int[np.ndarray, "row"]:
    kept = np.zeros(total, dtype=bool)
    kept[rng.choice(total, wanted - wanted // 2, replace=False)] = True
    each = wanted // 2 // NEIGHBOURHOODS
    for centre in rng.choice(total, min(NEIGHBOURHOODS, total), replace=False):
        near = np.argsort(_distances_of(cloud, centre), kind="stable")
        _add(kept, near[~kept[near]][: 2 * each], each, rng)
    _add(kept, np.flatnonzero(~kept), wanted - int(kept.sum()), rng)
    return np.flatnonzero(kept)


def _add(
    kept: Bool[np.ndarray, "point"], candidates: Int[np.ndarray, "candidate"], number: int, rng: np.random.Generator
) -> None:
    kept[rng.choice(candidates, min(number, len(candidates)), replace=False)] = True


def _adaptive(
    cloud: Float[np.ndarray, "point d"] | Distances, total: int, wanted: int, rng: np.random.Generator
) -> Int[np.ndarray, "row"]:
    neighbours = min(DENSITY_NEIGHBOURS, total - 1)
    if isinstance(cloud, Distances):
        near = cloud.nearest(neighbours)[0]
    else:
        from sklearn.neighbors import NearestNeighbors

        near = NearestNeighbors(n_neighbors=neighbours).fit(cloud).kneighbors()[0]  # without the point itself
    apart = near.mean(axis=1)
    if not apart.any():
        return _uniform(cloud, total, wanted, rng)
    density = 1 / np.maximum(apart, apart[apart > 0].min())  # points with 20 copies count as the densest others
    return np.sort(rng.choice(total, wanted, replace=False, p=density / density.sum()))


def _farthest(
    cloud: Float[np.ndarray, "point d"] | Distances, total: int, wanted: int, rng: np.random.Generator
) -> Int[np.ndarray, "row"]:
    rows = np.empty(wanted, dtype=np.int64)
    rows[0] = rng.integers(total)
    away = np.full(total, np.inf)
    for k in range(1, wanted):
        np.minimum(away, _distances_of(cloud, rows[k - 1]), out=away)
        away[rows[k - 1]] = -1.0  # never again, even among copies
        rows[k] = away.argmax()
    return rows


def _distances_of(cloud: Float[np.ndarray, "point d"] | Distances, row: int) -> Float[np.ndarray, "point"]:
    if isinstance(cloud, Distances):
        return cloud.matrix[row]
    difference = cloud - cloud[row]
    return np.sqrt(np.einsum("pd,pd->p", difference, difference))
