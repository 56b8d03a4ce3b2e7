"""The distances of one cloud, computed once and shared by everything that is measured on it."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, Self

import numpy as np
from jaxtyping import Float, Int

from src.errors import StrataError
from src.topology.homology.memory import require_memory

Metric = Literal["euclidean", "cosine", "precomputed"]

# A squared distance below this part of its points' squared norms has lost digits in the Gram matrix: it is computed
# anew from the difference, so that copies of a point have distance 0.
_CANCELLED = 1e-6
# Cosine distances that rounding gives to multiples of one vector: they are copies.
_SAME_DIRECTION = 8 * np.finfo(np.float64).eps ** 2
# Squares of larger coordinates, added up, are beyond float64.
_LARGEST = 1e150
# Differences are taken for this many pairs at a time, and rows worked on in blocks of this many.
_PAIRS, _ROWS = 4096, 128


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
            StrataError: if `points` is not a matrix of 3 or more finite rows, a row is 0 and the metric cosine, or the
                machine has too little memory free.
        """
        points = checked_points(points)
        require_memory(8 * len(points) ** 2 + points.nbytes, len(points), "the distances")
        if metric == "cosine":
            norms = np.linalg.norm(points, axis=1, keepdims=True)
            if not norms.all():
                row = int(np.flatnonzero(norms[:, 0] == 0)[0])
                raise StrataError(f"point {row} is zero: it has no cosine distance; leave it out or use euclidean")
            # half the squared distance of unit vectors, which keeps the digits of small angles
            matrix = _squared_distances(points / norms)
            matrix *= 0.5
            matrix[matrix < _SAME_DIRECTION] = 0
        else:
            matrix = _squared_distances(points - points.mean(axis=0))
            np.sqrt(matrix, out=matrix)
        return cls(matrix, metric)

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
        pairs = np.concatenate([np.empty(0), *(row[:i] for i, row in enumerate(self.matrix))])
        pairs.sort()
        return pairs

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
        index = np.empty((self.n_points, k), dtype=np.int64)
        for start in range(0, self.n_points, _ROWS):
            others = self.matrix[start : start + _ROWS].copy()
            np.fill_diagonal(others[:, start:], np.inf)
            farthest = np.partition(others, k - 1, axis=1)[:, k - 1]
            # a row has more than k others where several tie for the last place: each row's candidates in the order
            # of (point, distance, index), of which the first k are kept
            point, candidate = np.nonzero(others <= farthest[:, None])
            order = np.lexsort((others[point, candidate], point))
            counts = np.bincount(point, minlength=len(others))
            first = np.cumsum(counts) - counts
            index[start : start + _ROWS] = candidate[order[first[:, None] + np.arange(k)]]
        return np.take_along_axis(self.matrix, index, axis=1), index


def checked_points(points: Float[np.ndarray, "point d"]) -> Float[np.ndarray, "point d"]:
    """The points in float64.

    Raises:
        StrataError: if they are not a matrix of 3 or more rows, or hold values that are not finite or beyond 1e150.
    """
    points = np.asarray(points, dtype=np.float64)
    if points.ndim != 2:
        raise StrataError(f"a cloud is a matrix of points by dimensions: this array has the shape {points.shape}")
    if points.shape[0] < 3 or points.shape[1] < 1:
        raise StrataError(f"a cloud needs 3 or more points of 1 or more dimensions: this one has {points.shape}")
    bad = np.flatnonzero(~np.isfinite(points).all(axis=1))
    if bad.size:
        raise StrataError(f"{bad.size} of {len(points)} points are not finite, the first is point {bad[0]}")
    largest = float(np.abs(points).max())
    if largest > _LARGEST:
        raise StrataError(f"the largest coordinate, {largest:g}, has no square in float64: scale the points down")
    return points


def centred(points: Float[np.ndarray, "point d"]) -> Float[np.ndarray, "point d"]:
    """The points about their mean; a coordinate in which all are equal becomes 0, however its mean was rounded."""
    about = points - points.mean(axis=0)
    about[:, (points == points[0]).all(axis=0)] = 0
    return about


def _squared_distances(points: Float[np.ndarray, "point d"]) -> Float[np.ndarray, "point point"]:
    """Squared Euclidean distances, in the memory of the result: |x|^2 + |y|^2 - 2 xy."""
    squares = np.einsum("pd,pd->p", points, points)
    squared = points @ points.T
    for start in range(0, len(points), _ROWS):
        rows = slice(start, min(start + _ROWS, len(points)))
        part = squared[rows, : rows.stop]  # up to the diagonal, and its mirror image later
        sums = squares[rows, None] + squares[None, : rows.stop]
        part *= -2
        part += sums
        sums *= _CANCELLED
        first, second = np.nonzero(part < sums)
        first += start
        for pairs in range(0, len(first), _PAIRS):
            i, j = first[pairs : pairs + _PAIRS], second[pairs : pairs + _PAIRS]
            squared[i, j] = np.square(points[i] - points[j]).sum(axis=1)
        squared[: rows.start, rows] = part[:, : rows.start].T
        corner = part[:, rows.start :]
        corner[:] = np.tril(corner, -1)
        corner += np.tril(corner, -1).T
    return squared
