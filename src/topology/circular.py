"""Circular coordinates: where on a loop each point of a cloud lies.

An integer cocycle that is 1 on the loop, smoothed by least squares over potentials of the points, is a map to the
circle (de Silva, Morozov and Vejdemo-Johansson 2011, "Persistent cohomology and circular coordinates").
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy.linalg import solve
from scipy.sparse.csgraph import connected_components

from src.errors import StrataError
from src.topology.cocycles import Cocycles
from src.topology.distances import Distances

# Where between birth (0) and death (1) of a bar its cocycle is taken.
MIDDLE = 0.5


@dataclass(frozen=True)
class CircularCoordinate:
    """A map of points to the circle along one loop. Its zero and its direction are arbitrary.

    Attributes:
        turns: of each point, in [0, 1), as a share of a full turn; NaN for points that are not connected to the loop
            at `scale`.
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
    cocycles: Cocycles, birth: float, death: float, at: float = MIDDLE, scale: float | None = None
) -> CircularCoordinate:
    """The circular coordinate along the loop that lives from `birth` to `death`.

    Among all closed real cochains with period 1 on this loop and 0 on those of all other bars, it integrates the one
    with the least sum of squares over the edges that are there (the harmonic one): values f of the edges are replaced
    by f - (their difference of potentials), with potentials from the graph Laplacian, L theta = -div f; theta mod 1 is
    the coordinate.

    Args:
        cocycles: of the cloud.
        birth, death: of a bar of dimension 1 of the same distances.
        at: the scale is birth + at (death - birth): a low one joins few points, at a high one long edges cut across.
        scale: in place of `at`, between birth and death.

    Raises:
        StrataError: if the scale is not in [birth, death), the bar is of another cloud, or the class has torsion.
    """
    scale = birth + at * (death - birth) if scale is None else scale
    if not birth <= scale < death:
        raise StrataError(
            f"a loop that lives from {birth:g} to {death:g} has no coordinate at the scale {scale:g}: choose one between"
        )
    generator = cocycles.generator_of(birth, death)
    # rounding of a bar's ends by its backend must not push its own edge out
    scale = max(scale, float(cocycles.length[cocycles.generators[generator]]))
    cocycle = cocycles.dual(generator, scale)
    joined = cocycles.rank < np.searchsorted(cocycles.length, scale, side="right")
    component = connected_components(joined, directed=False)[1]
    on_loop = np.flatnonzero(component == component[cocycles.edges[cocycles.generators[generator], 0]])
    values, joined = cocycle[np.ix_(on_loop, on_loop)], joined[np.ix_(on_loop, on_loop)]
    potential = _potential(values, joined)
    turns = np.full(len(component), np.nan)
    turns[on_loop] = _one_turn(potential)
    steps = np.abs(values - (potential[None, :] - potential[:, None])).max(where=joined, initial=0.0)
    return CircularCoordinate(turns, float(scale), float(steps))


def _potential(
    values: Float[np.ndarray, "point point"], joined: Bool[np.ndarray, "point point"]
) -> Float[np.ndarray, "point"]:
    """The potential of a connected graph that minimises the sum over edges of (value - difference of potentials)^2."""
    laplacian = -joined.astype(np.float64)
    np.fill_diagonal(laplacian, joined.sum(axis=1))
    # constants are free: the first point has potential 0
    rest = solve(laplacian[1:, 1:], -values.sum(axis=1)[1:].astype(np.float64), assume_a="pos")
    return np.concatenate([[0.0], rest])


def _one_turn(turns: Float[np.ndarray, "point"]) -> Float[np.ndarray, "point"]:
    """Into [0, 1): the remainder of a tiny negative number rounds to 1."""
    remainder = np.mod(turns, 1.0)
    return np.where(remainder == 1.0, 0.0, remainder)
