"""The distances of one cloud, computed once and shared by everything that is measured on it."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, Self

import numpy as np
from jaxtyping import Float, Int

from src.errors import StrataError

Metric = Literal["euclidean", "cosine", "precomputed"]

# A squared distance below this part of its points' squared norms has lost digits in the Gram matrix: it is computed
# anew from the difference, so that copies of a point have distance 0.
_CANCELLED = 1e-6
# Differences are taken for this many pairs at a time.
_PAIRS = 4096


@dataclass(frozen=True)
class Distances:
    """All distances between the points of a cloud.

    Attributes:
        matrix: float64, exactly symmetric, 0 on the diagonal, finite and not negative.
        metric: what the distances are. Euclidean distances come from centred float64 points (one matrix product), so
            that a large common offset costs no digits.
    """

    matrix: Float[np.ndarray, "point point"]
    metric: Metric

    @classmethod
    def from_points(
        cls, points: Float[np.ndarray, "point d"], metric: Literal["euclidean", "cosine"] = "euclidean"
    ) -> Self:
        """Distances between rows; `metric` cosine is 1 - cosine similarity.

        Raises:
            StrataError: if `points` is not a matrix of 3 or more finite rows, or a row is 0 and the metric cosine.
        """
        points = checked_points(points)
        if metric == "cosine":
            norms = np.linalg.norm(points, axis=1, keepdims=True)
            if not norms.all():
                row = int(np.flatnonzero(norms[:, 0] == 0)[0])
                raise StrataError(f"point {row} is zero: it has no cosine distance; leave it out or use euclidean")
            # half the squared distance of unit vectors, which keeps the digits of small angles
            return cls(_squared_distances(points / norms) / 2, metric)
        return cls(np.sqrt(_squared_distances(points - points.mean(axis=0))), metric)

    @classmethod
    def precomputed(cls, matrix: Float[np.ndarray, "point point"]) -> Self:
        """Distances as given; they need not obey the triangle inequality.

        Raises:
            StrataError: if the matrix is not square, symmetric, finite, not negative and 0 on its diagonal.
        """
        matrix = np.asarray(matrix, dtype=np.float64)
        if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
            raise StrataError(f"a distance matrix is square: this one has the shape {matrix.shape}")
        if not np.isfinite(matrix).all():
            raise StrataError("the distance matrix has values that are not finite")
        if (matrix < 0).any() or matrix.diagonal().any():
            raise StrataError("a distance matrix has no negative value, and zeros on its diagonal")
        if not np.array_equal(matrix, matrix.T):
            raise StrataError("the distance matrix is not exactly symmetric: pass (D + D.T) / 2")
        return cls(matrix, "precomputed")

    @property
    def n_points(self) -> int:
        """Number of points."""
        return self.matrix.shape[0]

    @cached_property
    def diameter(self) -> float:
        """The largest distance."""
        return float(self.matrix.max(initial=0.0))

    @cached_property
    def enclosing_radius(self) -> float:
        """The least scale at which one point reaches all others: no homology above dimension 0 is left from it on."""
        return float(self.matrix.max(axis=1, initial=0.0).min(initial=np.inf)) if self.n_points else 0.0

    @cached_property
    def pairs(self) -> Float[np.ndarray, "pair"]:
        """The distance of each pair once, sorted."""
        return np.sort(self.matrix[np.triu_indices(self.n_points, 1)])

    @cached_property
    def median(self) -> float:
        """The median distance of pairs, 0 where there are none."""
        return self.quantile(0.5)

    def quantile(self, share: float) -> float:
        """The distance that `share` of the pairs do not exceed (linear interpolation); 0 where there are no pairs."""
        return float(np.quantile(self.pairs, share)) if self.pairs.size else 0.0

    def among(self, rows: Sequence[int] | Int[np.ndarray, "row"]) -> Self:
        """The distances among some of the points, in the order given."""
        return type(self)(self.matrix[np.ix_(np.asarray(rows), np.asarray(rows))], self.metric)

    def between(
        self, rows: Sequence[int] | Int[np.ndarray, "row"], columns: Sequence[int] | Int[np.ndarray, "column"]
    ) -> Float[np.ndarray, "row column"]:
        """The distances of some points (rows) to others (columns)."""
        return self.matrix[np.ix_(np.asarray(rows), np.asarray(columns))]

    def nearest(self, k: int) -> tuple[Float[np.ndarray, "point k"], Int[np.ndarray, "point k"]]:
        """Distances and indices of each point's k nearest others, nearest first, ties by index.

        Raises:
            StrataError: if there are no k others.
        """
        if not 1 <= k < self.n_points:
            raise StrataError(f"{k} nearest neighbours were asked for among {self.n_points} points")
        others = self.matrix.copy()
        np.fill_diagonal(others, np.inf)
        farthest = np.partition(others, k - 1, axis=1)[:, k - 1]
        # a row has more than k others where several tie for the last place: each row's candidates in the order of
        # (point, distance, index), of which the first k are kept
        point, index = np.nonzero(others <= farthest[:, None])
        order = np.lexsort((others[point, index], point))
        counts = np.bincount(point, minlength=self.n_points)
        first = np.cumsum(counts) - counts
        index = index[order[first[:, None] + np.arange(k)]]
        return np.take_along_axis(others, index, axis=1), index


def checked_points(points: Float[np.ndarray, "point d"]) -> Float[np.ndarray, "point d"]:
    """The points in float64.

    Raises:
        StrataError: if they are not a matrix of 3 or more rows, or hold values that are not finite.
    """
    points = np.asarray(points, dtype=np.float64)
    if points.ndim != 2:
        raise StrataError(f"a cloud is a matrix of points by dimensions: this array has the shape {points.shape}")
    if points.shape[0] < 3 or points.shape[1] < 1:
        raise StrataError(f"a cloud needs 3 or more points of 1 or more dimensions: this one has {points.shape}")
    bad = np.flatnonzero(~np.isfinite(points).all(axis=1))
    if bad.size:
        raise StrataError(f"{bad.size} of {len(points)} points are not finite, the first is point {bad[0]}")
    return points


def _squared_distances(points: Float[np.ndarray, "point d"]) -> Float[np.ndarray, "point point"]:
    squares = np.einsum("pd,pd->p", points, points)
    sums = squares[:, None] + squares[None, :]  # one sum for both orders: the result is symmetric to the last bit
    squared = points @ points.T
    squared *= -2
    squared += sums
    squared = np.maximum(squared, squared.T)
    close = squared < _CANCELLED * sums
    close[np.tril_indices(len(points))] = False
    first, second = np.nonzero(close)
    for start in range(0, len(first), _PAIRS):
        rows, columns = first[start : start + _PAIRS], second[start : start + _PAIRS]
        exact = np.square(points[rows] - points[columns]).sum(axis=1)
        squared[rows, columns] = squared[columns, rows] = exact
    np.fill_diagonal(squared, 0.0)
    return np.maximum(squared, 0.0, out=squared)
