"""The minimum spanning tree of a cloud: what its homology in dimension 0 is made of.

The finite bars of dimension 0 are the tree's edges (single linkage): a bar's death is an edge's length. Edges between
copies of a point have length 0, and no bar.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy.stats import skew

from src.topology.homology.copies import first_of_kind
from src.topology.homology.distances import Distances
from src.topology.homology.persistence import Persistence

_OF_LENGTH = ["mst_cv", "mst_skew", "mst_gini", "mst_leaf_share", "mst_max_degree"]


@dataclass(frozen=True)
class SpanningTree:
    """A minimum spanning tree of all points.

    Attributes:
        lengths: of the n - 1 edges, longest first; those between copies are 0.
        edges: the points that each edge of a length above 0 joins, each copy called by the first of its kind.
        n_distinct: points that are not copies of an earlier one.
    """

    lengths: Float[np.ndarray, "edge"]
    edges: Int[np.ndarray, "long_edge 2"]
    n_distinct: int


def spanning_tree(distances: Distances, found: Persistence | None = None) -> SpanningTree:
    """The tree from the edges that end the bars of dimension 0, where `found` tells them, else by Prim's algorithm.

    Where distances tie there are several minimum spanning trees: their lengths are the same, their edges may not be.
    """
    ends = found.bars[0].death_edge if found is not None else None
    edges = prim(distances.matrix)[1] if ends is None else ends[ends[:, 0] >= 0]
    lengths = distances.matrix[edges[:, 0], edges[:, 1]]
    lengths, edges = lengths[lengths > 0], edges[lengths > 0]
    order = np.argsort(-lengths, kind="stable")
    all_lengths = np.zeros(max(distances.n_points - 1, 0))
    all_lengths[: len(lengths)] = lengths[order]
    first = first_of_kind(distances)
    return SpanningTree(all_lengths, first[edges[order]], int((first == np.arange(len(first))).sum()))


def prim(matrix: Float[np.ndarray, "point point"]) -> tuple[Float[np.ndarray, "edge"], Int[np.ndarray, "edge 2"]]:
    """Lengths and ends of the edges of a minimum spanning tree of the complete graph (Prim 1957), in O(n^2).

    SciPy's minimum_spanning_tree sorts all pairs, and takes a distance of 0 for no edge.
    """
    n = len(matrix)
    outside = np.ones(n, dtype=bool)
    reach, nearest = np.full(n, np.inf), np.zeros(n, dtype=np.int64)
    lengths, edges = np.empty(max(n - 1, 0)), np.empty((max(n - 1, 0), 2), dtype=np.int64)
    newest = 0
    for edge in range(n - 1):
        outside[newest], reach[newest] = False, np.inf
        closer = outside & (matrix[newest] < reach)
        reach[closer], nearest[closer] = matrix[newest, closer], newest
        newest = int(reach.argmin())
        lengths[edge], edges[edge] = reach[newest], (nearest[newest], newest)
    return lengths, edges


def tree_statistics(tree: SpanningTree) -> dict[str, float]:
    """The spread of edge lengths, copies included, and the degrees of distinct points; NaN where there is no length.

    mst_cv: standard deviation / mean; mst_skew: Fisher-Pearson; mst_gini: mean absolute difference of two edges (with
    replacement) / twice the mean, 0 where all are equal; mst_leaf_share: share of distinct points with one edge (2 / n
    on a line, 0.22 of uniform points in the plane, Steele, Shepp and Eddy 1987, more above); mst_max_degree: edges of
    the point with the most, a hub of the tree.
    """
    lengths = np.sort(tree.lengths)
    n, mean = len(lengths), lengths.mean() if len(lengths) else 0.0
    if mean == 0:
        return {"mst_mean": 0.0, "mst_sd": 0.0} | dict.fromkeys(_OF_LENGTH, float("nan"))
    degrees = np.bincount(tree.edges.ravel())
    varies = lengths[-1] > lengths[0]
    return {
        "mst_mean": float(mean),
        "mst_sd": float(lengths.std()),
        "mst_cv": float(lengths.std() / mean),
        "mst_skew": float(skew(lengths)) if varies else float("nan"),
        "mst_gini": float((2 * np.arange(1, n + 1) - n - 1) @ lengths / (n * lengths.sum())),
        "mst_leaf_share": float((degrees == 1).sum() / tree.n_distinct),
        "mst_max_degree": float(degrees.max()),
    }
