"""Two clouds in the plane that shows most of their union, with what joins them."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from src.topology.homology.distances import Distances
from src.topology.homology.persistence import Persistence
from src.topology.homology.spanning_tree import spanning_tree
from src.topology.protocols.sampling import principal_scores


@dataclass(frozen=True, eq=False)
class UnionPicture:
    """The union of two clouds, projected.

    Attributes:
        places: the points on the first two principal components of the union, those of the first cloud first.
        n_first: how many these are.
        cross_edges: edges of the union's minimum spanning tree from one cloud to the other, as points.
        share: of the union's variance that lies in the plane.
    """

    places: Float[np.ndarray, "point 2"]
    n_first: int
    cross_edges: Int[np.ndarray, "edge 2"]
    share: float


def union_picture(
    points: Float[np.ndarray, "point d"], n_first: int, distances: Distances, found: Persistence
) -> UnionPicture:
    """The picture of a union: its points, their distances and their diagram."""
    edges = spanning_tree(distances, found).edges
    crossing = (edges[:, 0] < n_first) != (edges[:, 1] < n_first)
    places = principal_scores(points, min(2, points.shape[1]))
    variance = np.square(points - points.mean(axis=0)).sum()
    share = float(np.square(places).sum() / variance) if variance > 0 else float("nan")
    if places.shape[1] == 1:
        places = np.concatenate([places, np.zeros_like(places)], axis=1)
    return UnionPicture(places, n_first, edges[crossing], share)
