"""The dimension that the growth of the minimum spanning tree with the number of points shows.

Of n points drawn from a d-dimensional measure, the summed edges grow as n^((d - 1) / d) (Steele 1988; of homology in
dimension 0: Schweinhart 2021, Birdal et al. 2021, of texts: Tulchinskii et al. 2023, arXiv 2306.04723).
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from src.errors import StrataError
from src.topology.homology.distances import Distances
from src.topology.homology.spanning_tree import prim
from src.topology.measures.dimension import Estimate, from_halves

# points of the smallest subset, and of the cloud: its halves have subsets too
_SMALLEST = 20
FEWEST_POINTS = 80


@dataclass(frozen=True)
class Growth:
    """Summed edges of spanning trees of random subsets, and the dimension that their growth gives.

    Attributes:
        sizes: points of a subset.
        lengths: mean over subsets of the summed edges.
        slope: of ln(lengths) on ln(sizes), least squares.
    """

    sizes: Int[np.ndarray, "size"]
    lengths: Float[np.ndarray, "size"]
    slope: float
    estimate: Estimate


def homology_dimension(
    distances: Distances, seed: int, n_sizes: int = 7, subsets: int = 8, halves: int = 24, smallest_share: float = 0.1
) -> Growth:
    """1 / (1 - slope) over subsets of `smallest_share` of the points (20 at least) to all, in even ratios.

    The interval is from halves of the points (`dimension.from_halves`). A slope of 1 or more has no dimension: NaN.
    Copies have edges of length 0, and lower it: pass `for_dimension(distances)`.

    Raises:
        StrataError: if there are fewer than 80 points.
    """
    if distances.n_points < FEWEST_POINTS:
        raise StrataError(f"a dimension from growth needs {FEWEST_POINTS} points, there are {distances.n_points}")
    random = np.random.default_rng(seed)
    sizes, lengths = _growth(distances, random, n_sizes, subsets, smallest_share)
    slope = _slope(sizes, lengths)
    estimate = from_halves(
        _dimension(slope),
        distances,
        lambda half, draws: _dimension(_slope(*_growth(half, draws, n_sizes, subsets, smallest_share))),
        halves,
        random,
    )
    return Growth(sizes, lengths, slope, estimate)


def _growth(
    distances: Distances, random: np.random.Generator, n_sizes: int, subsets: int, smallest_share: float
) -> tuple[Int[np.ndarray, "size"], Float[np.ndarray, "size"]]:
    n = distances.n_points
    sizes = np.unique(np.geomspace(max(_SMALLEST, smallest_share * n), n, n_sizes).round().astype(int))
    lengths = np.zeros(len(sizes))
    # the subsets of one turn are nested, which takes part of the noise out of their growth
    orders = [random.permutation(n) for _ in range(subsets)]
    for position, size in enumerate(sizes):
        chosen = orders if size < n else orders[:1]
        lengths[position] = np.mean([prim(distances.matrix[np.ix_(o[:size], o[:size])])[0].sum() for o in chosen])
    return sizes, lengths


def _slope(sizes: Int[np.ndarray, "size"], lengths: Float[np.ndarray, "size"]) -> float:
    if not lengths.all():
        return float("nan")
    return float(np.polyfit(np.log(sizes), np.log(lengths), 1)[0])


def _dimension(slope: float) -> float:
    return 1 / (1 - slope) if slope < 1 else float("nan")
