"""Points that lie on one another: last tokens that are all the same, prompts that occur twice."""

import numpy as np
from jaxtyping import Int

from src.topology.homology.distances import Distances


def first_of_kind(distances: Distances) -> Int[np.ndarray, "point"]:
    """For each point the first one at distance 0 from it: itself, unless it is a copy of an earlier one."""
    return (distances.matrix == 0).argmax(axis=1)


def distinct(distances: Distances) -> Distances:
    """The distances among points that are not copies of earlier ones; the same object where there are no copies."""
    kept = np.flatnonzero(first_of_kind(distances) == np.arange(distances.n_points))
    return distances if len(kept) == distances.n_points else distances.among(kept)
