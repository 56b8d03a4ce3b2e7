"""Which points make up the pool, and which of them the vertices of each simplex."""

import numpy as np
from jaxtyping import Float, Int

# below this many points for each vertex, rejection would throw most draws away
_ENOUGH_TO_REJECT = 4


def draw_pool(
    n_points: int, size: int, draws: np.random.Generator, weights: Float[np.ndarray, " point"] | None = None
) -> Int[np.ndarray, " drawn"]:
    """Indices of different points, ascending: `size` of them, or all that there are.

    weights: a point of weight 0 is never drawn; of the others, each next one with a probability in proportion to its
    weight among those that are left (Efraimidis and Spirakis 2006).
    """
    if weights is None:
        return np.arange(n_points) if n_points <= size else np.sort(draws.choice(n_points, size, replace=False))
    possible = np.flatnonzero(weights > 0)
    if len(possible) <= size:
        return possible
    keys = np.log(weights[possible]) + draws.gumbel(size=len(possible))
    return np.sort(possible[np.argpartition(keys, -size)[-size:]])


def draw_simplices(
    n_points: int, k: int, n_simplices: int, draws: np.random.Generator
) -> Int[np.ndarray, "simplex vertex"]:
    """Indices of the k + 1 vertices of each simplex, all tuples of different points alike; simplices may repeat.

    Raises ValueError where there are fewer than k + 1 points.
    """
    if n_points < k + 1:
        raise ValueError(f"a simplex of {k} dimensions needs {k + 1} points; there are {n_points}")
    if n_points < _ENOUGH_TO_REJECT * (k + 1):
        ranks = draws.random((n_simplices, n_points)).argsort(axis=1)
        return ranks[:, : k + 1]
    drawn = np.empty((n_simplices, k + 1), np.int64)
    rows = np.arange(n_simplices)
    while len(rows):
        drawn[rows] = draws.integers(n_points, size=(len(rows), k + 1))
        sorted_ = np.sort(drawn[rows], axis=1)
        rows = rows[(sorted_[:, 1:] == sorted_[:, :-1]).any(axis=1)]
    return drawn
