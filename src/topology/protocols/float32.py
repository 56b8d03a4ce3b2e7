"""Distances as scikit-learn computes them for float32 points: what published numbers were made from."""

import numpy as np
from jaxtyping import Float

from src.errors import StrataError
from src.topology.homology.distances import Distances

# Where no squared distance is below this part of the points' squared norms, digits that differ between two ways to the
# same product lie far below float32 (1 of 4e7 distances differed in its last bit).
_CANCELLED = 1e-4


def float32_points(points: Float[np.ndarray, "point d"]) -> Float[np.ndarray, "point d"]:
    """The points in float32, C-contiguous.

    Raises:
        StrataError: if they are not a matrix of 1 or more rows and columns, or not finite in float32.
    """
    with np.errstate(over="ignore"):  # what overflows is told below
        points = np.ascontiguousarray(points, dtype=np.float32)
    if points.ndim != 2 or not points.size:
        raise StrataError(f"a cloud is a matrix of points by dimensions: this array has the shape {points.shape}")
    bad = np.flatnonzero(~np.isfinite(points).all(axis=1))
    if bad.size:
        raise StrataError(f"{bad.size} of {len(points)} points are not finite in float32, the first is point {bad[0]}")
    return points


def float32_distances(points: Float[np.ndarray, "point d"], metric: str = "euclidean") -> tuple[Distances, float]:
    """Distances of float32 points by scikit-learn's own steps (each rounded to float32), and their diameter.

    The diagrams that ripser.py makes of float32 points rest on the upper triangle of that matrix, and so do these
    distances; actopo takes its diameter from both triangles, which could differ in the last bit.

    Raises:
        StrataError: as float32_points.
    """
    points = float32_points(points)
    matrix = _by_one_product(points) if metric == "euclidean" else None
    if matrix is None:
        from sklearn.metrics import pairwise_distances

        matrix = pairwise_distances(points, metric=metric)
    diameter = float(matrix.max())
    if not np.array_equal(matrix, matrix.T):
        upper = np.triu(matrix, 1)
        matrix = upper + upper.T
    return Distances(matrix.astype(np.float64), "cosine" if metric == "cosine" else "euclidean"), diameter


def _by_one_product(points: Float[np.ndarray, "point d"]) -> Float[np.ndarray, "point point"] | None:
    """Half the time of scikit-learn's steps: one symmetric product in place of blocks.

    None where points lie so close together, for their distance from the origin, that rounding shows: copies of a point
    get scikit-learn's own noise.
    """
    wide = points.astype(np.float64)
    squares = np.einsum("pd,pd->p", wide, wide)
    squared = wide @ wide.T
    squared *= -2
    squared += squares[:, None]
    squared += squares[None, :]
    np.fill_diagonal(squared, np.inf)
    if squared.min() < _CANCELLED * 2 * squares.max():
        return None
    np.fill_diagonal(squared, 0.0)
    found = squared.astype(np.float32)
    return np.sqrt(found, out=found)
