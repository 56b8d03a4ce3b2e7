"""Dimension as the number of principal components of neighbourhoods (Fukunaga and Olsen 1971)."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from src.errors import StrataError
from src.topology.homology.distances import Distances
from src.topology.measures.dimension import Estimate, from_halves
from src.topology.measures.neighbours import Neighbours

# neighbourhoods taken at a time
_ROWS = 256


@dataclass(frozen=True)
class LocalPCA:
    """Components needed in each point's neighbourhood, and their mean over points."""

    needed: Int[np.ndarray, "point"]
    k: int
    share: float
    estimate: Estimate


def local_pca_dimension(distances: Distances, seed: int, k: int = 30, share: float = 0.9, halves: int = 24) -> LocalPCA:
    """The number of components that hold `share` of the variance of a neighbourhood, a point and its k neighbours.

    Variances are the eigenvalues of the doubly centred squared distances (classical scaling), so no coordinates are
    needed. At most k components can be found: a mean near to k says that there were too few neighbours, not what the
    dimension is. The interval is of the mean, from halves of the points.

    Raises:
        StrataError: if distances are not euclidean, share is not between 0 and 1, or half of the points are not more
            than k.
    """
    if distances.metric != "euclidean":
        raise StrataError(f"local PCA needs euclidean distances, these are {distances.metric}")
    if not 0 < share < 1:
        raise StrataError(f"local PCA: the share of variance lies between 0 and 1, not at {share}")
    if distances.n_points // 2 <= k:
        raise StrataError(f"local PCA of {k} neighbours needs {2 * k + 2} points, there are {distances.n_points}")
    needed = _needed(distances, k, share)
    estimate = from_halves(
        float(needed.mean()),
        distances,
        lambda half, _: float(_needed(half, k, share).mean()),
        halves,
        np.random.default_rng(seed),
    )
    return LocalPCA(needed, k, share, estimate)


def _needed(distances: Distances, k: int, share: float) -> Int[np.ndarray, "point"]:
    index = Neighbours.of(distances, k).index
    hoods = np.concatenate([np.arange(len(index))[:, None], index], axis=1)
    return np.concatenate(
        [_components(distances, hoods[start : start + _ROWS], share) for start in range(0, len(hoods), _ROWS)]
    )


def _components(distances: Distances, hoods: Int[np.ndarray, "point hood"], share: float) -> Int[np.ndarray, "point"]:
    squared = np.square(distances.matrix[hoods[:, :, None], hoods[:, None, :]])
    centred = squared - squared.mean(axis=1, keepdims=True) - squared.mean(axis=2, keepdims=True)
    centred += squared.mean(axis=(1, 2), keepdims=True)
    variances = np.maximum(np.linalg.eigvalsh(centred / -2)[:, ::-1], 0.0)
    reached = variances.cumsum(axis=1) / variances.sum(axis=1, keepdims=True)
    return (reached < share).sum(axis=1) + 1
