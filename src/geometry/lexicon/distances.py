"""Path distances and Wu-Palmer similarities of all pairs of senses at once, from ancestor tables."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float32, UInt8

from src.geometry.lexicon.taxonomy import UNCONNECTED, Taxonomy


def path_distances(taxonomy: Taxonomy, senses: Sequence[int]) -> UInt8[np.ndarray, "sense sense"]:
    """Shortest is-a path between senses through a common ancestor, in edges; UNCONNECTED without one.

    Path similarity is 1 / (1 + distance) (spec D4, D8). No artificial root connects what nothing connects.
    """
    above = [ancestors(taxonomy, sense) for sense in senses]
    found = np.full((len(senses), len(senses)), UNCONNECTED, np.uint8)
    for i, ours in enumerate(above):
        for j, theirs in enumerate(above):
            common = ours.keys() & theirs.keys()
            if common:
                found[i, j] = min(ours[sense] + theirs[sense] for sense in common)
    return found


def wu_palmer(taxonomy: Taxonomy, senses: Sequence[int]) -> Float32[np.ndarray, "sense sense"]:
    """Wu-Palmer similarities 2 D / (p_i + p_j + 2 D) (spec D8); NaN for senses that nothing connects."""
    raise NotImplementedError


def ancestors(taxonomy: Taxonomy, sense: int) -> dict[int, int]:
    """All senses above one, itself included, and the shortest upward distance of each."""
    found, edge = {sense: 0}, [sense]
    while edge:
        above = [int(parent) for child in edge for parent in taxonomy.parents(child)]
        steps = found[edge[0]] + 1
        edge = [parent for parent in dict.fromkeys(above) if parent not in found]
        found |= dict.fromkeys(edge, steps)
    return found
