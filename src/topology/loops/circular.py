"""Circular coordinates: where on a loop each point of a cloud lies.

An integer cocycle that is 1 on the loop, smoothed by least squares over potentials of the points, is a map to the
circle (de Silva, Morozov and Vejdemo-Johansson 2011, "Persistent cohomology and circular coordinates").
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float
from scipy.linalg import solve
from scipy.sparse.csgraph import connected_components

from src.errors import StrataError
from src.topology.homology.cocycles import Cocycles

# Where between birth (0) and death (1) of a bar its cocycle is taken.
MIDDLE = 0.5


@dataclass(frozen=True)
class CircularCoordinate:
    """A map of points to the circle along one loop. Its zero and its direction are arbitrary.

    Attributes:
        turns: of each point, in [0, 1), as a share of a full turn; NaN for points that are not connected to the loop
            at `scale`, and for all points if the loop's class has no integer cocycle there (torsion, which is rare).
        scale: where the cocycle was taken.
        largest_step: the largest step along an edge, in turns. From 1/2 on the points near that edge could be joined
            either way round: the coordinate is not to be trusted there.
    """

    turns: Float[np.ndarray, "point"]
    scale: float
    largest_step: float

    @property
    def n_uncovered(self) -> int:
        """Number of points without a coordinate."""
        return int(np.isnan(self.turns).sum())

    def predict(self, distances: Float[np.ndarray, "new point"]) -> Float[np.ndarray, "new"]:
        """The coordinate of new points from their distances to the points of the cloud, in the cloud's metric.

        It is the direction of the mean of the neighbours' positions on the circle; neighbours are the points nearer
        than `scale`, with the weight scale - distance (the partition of unity of Perea 2020, "Sparse circular
        coordinates via principal Z-bundles"). NaN where there is no neighbour, or they cancel out.

        Raises:
            StrataError: if there is not one column for each point of the cloud.
        """
        distances = np.atleast_2d(np.asarray(distances, dtype=np.float64))
        if distances.shape[1] != len(self.turns):
            raise StrataError(
                f"the coordinate is of {len(self.turns)} points: distances to {distances.shape[1]} were given"
            )
        covered = np.isfinite(self.turns)
        weights = np.maximum(self.scale - distances[:, covered], 0.0)
        mean = weights @ np.exp(2j * np.pi * self.turns[covered])
        turns = _one_turn(np.angle(mean) / (2 * np.pi))
        return np.where(np.abs(mean) > 1e-12 * weights.sum(axis=1), turns, np.nan)


def circular_coordinate(
    cocycles: Cocycles,
    birth: float,
    death: float,
    at: float = MIDDLE,
    weights: Literal["density", "uniform"] = "density",
    walks: Sequence[Sequence[int]] = (),
) -> CircularCoordinate:
    """The circular coordinate along the loop that lives from `birth` to `death`.

    Among all closed real cochains with period 1 on this loop and 0 on those of all other bars, it integrates the one
    with the least weighted sum of squares over the edges that are there (the harmonic one): values f of the edges are
    replaced by f - (their difference of potentials), with potentials from the graph Laplacian, L theta = -div f; theta
    mod 1 is the coordinate.

    Where another loop is alive that lives longer, the class is known up to turns around that one: on a torus the
    coordinate of the shorter bar may be b + k a, with a that of the longer one.

    Where points are dense, many edges are there, and equal weights let the coordinate stand almost still. An edge
    between points with k and l neighbours therefore has the weight 1 / (k l), which makes the Laplacian that of the
    shape whatever the density (Coifman and Lafon 2006, "Diffusion maps", alpha = 1; for circular coordinates Paik and
    Park 2023, arXiv 2301.12742, weight edges to that end).

    Args:
        cocycles: of the cloud.
        birth: of a bar of dimension 1 of the same distances.
        death: of this bar.
        at: the scale is birth + at (death - birth), 0 <= at < 1: a low one joins few points, at a high one long edges
            cut across.
        weights: of the edges: `density`, as above; `uniform` is de Silva, Morozov and Vejdemo-Johansson's choice.
        walks: the bar's cycle, which tells it from other bars with the same birth and death.

    Raises:
        NoCocycleError: if no loop lives from `birth` to `death`, or its class has torsion there.
        StrataError: if the scale is not in [birth, death).
    """
    scale = birth + at * (death - birth)
    if not birth <= scale < death:
        raise StrataError(
            f"at={at:g} is not within the life of a loop: 0 is its birth, and less than 1 before its death"
        )
    generator = cocycles.generator_of(birth, death, walks)
    cocycle = cocycles.dual(generator, scale)
    joined = cocycles.rank < np.searchsorted(cocycles.length, scale, side="right")
    component = connected_components(joined, directed=False)[1]
    on_loop = np.flatnonzero(component == component[cocycles.edges[cocycles.generators[generator], 0]])
    values, joined = cocycle[np.ix_(on_loop, on_loop)], joined[np.ix_(on_loop, on_loop)]
    potential = _potential(values, joined / _products(joined) if weights == "density" else joined.astype(np.float64))
    turns = np.full(len(component), np.nan)
    turns[on_loop] = _one_turn(potential)
    steps = np.abs(values - (potential[None, :] - potential[:, None])).max(where=joined, initial=0.0)
    return CircularCoordinate(turns, float(scale), float(steps))


def _products(joined: Bool[np.ndarray, "point point"]) -> Float[np.ndarray, "point point"]:
    """Of the numbers of neighbours at the ends of each edge, a point counted among its own."""
    neighbours = joined.sum(axis=1) + 1.0
    return np.outer(neighbours, neighbours)


def _potential(
    values: Float[np.ndarray, "point point"], weights: Float[np.ndarray, "point point"]
) -> Float[np.ndarray, "point"]:
    """The potential that minimises the weighted sum over edges of (value - difference of potentials)^2.

    Edges are those with a weight; they connect all points. Constants are free: the first point has potential 0.
    """
    laplacian = np.diag(weights.sum(axis=1)) - weights
    divergence = (weights * values).sum(axis=1)
    return np.concatenate([[0.0], solve(laplacian[1:, 1:], -divergence[1:], assume_a="pos")])


def _one_turn(turns: Float[np.ndarray, "point"]) -> Float[np.ndarray, "point"]:
    """Into [0, 1): the remainder of a tiny negative number rounds to 1."""
    remainder = np.mod(turns, 1.0)
    return np.where(remainder == 1.0, 0.0, remainder)
