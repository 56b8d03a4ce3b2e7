"""Path distances of all pairs of senses at once, from their ancestors."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float32, Int64, UInt8

from src.geometry.lexicon.ancestors import Ancestors, find_ancestors
from src.geometry.lexicon.taxonomy import UNCONNECTED, Taxonomy

# pairs that are held beside the result
_BLOCK = 1 << 22


def path_distances(
    taxonomy: Taxonomy, senses: Sequence[int], artificial_root: bool = False
) -> UInt8[np.ndarray, "sense sense"]:
    """Shortest is-a path between senses through a common ancestor, in edges; UNCONNECTED without one.

    Path similarity is 1 / (1 + distance) (spec D4, D8).

    Args:
        taxonomy: who is a kind of what.
        senses: of the rows and columns; a sense may come more than once (distance 0).
        artificial_root: as NLTK does, join what nothing connects: a root above the farthest ancestor of either, for
            pairs that are not both nouns. It puts any two adjectives at distance 2, whatever they mean (BUG D-3): for
            comparison only.

    Raises:
        StrataError: more than 126 steps lead up, as in a circle.
    """
    ancestors = find_ancestors(taxonomy, senses)
    found = np.full((len(senses), len(senses)), UNCONNECTED, np.uint8)
    for _, rows, steps in ancestors.descendants():
        if len(rows) > 1:
            _lower(found, rows, steps)
    if artificial_root:
        root = steps_to_artificial_root(ancestors, len(senses))
        noun = np.array([taxonomy.pos[sense] == "n" for sense in senses], bool)
        everyone = np.arange(len(senses))
        _lower(found, everyone[~noun], root[~noun], everyone, root)
        _lower(found, everyone[noun], root[noun], everyone[~noun], root[~noun])
    np.fill_diagonal(found, 0)
    return found


def steps_to_artificial_root(ancestors: Ancestors, senses: int) -> UInt8[np.ndarray, "sense"]:
    """One more than the distance of each row's farthest ancestor: where NLTK puts its root (spec D8)."""
    farthest = np.zeros(senses, np.uint8)
    np.maximum.at(farthest, ancestors.row, ancestors.distance)
    return farthest + np.uint8(1)


def _lower(
    found: UInt8[np.ndarray, "sense sense"],
    rows: Int64[np.ndarray, "row"],
    up: UInt8[np.ndarray, "row"],
    columns: Int64[np.ndarray, "column"] | None = None,
    down: UInt8[np.ndarray, "column"] | None = None,
) -> None:
    # found = min(found, up + down) at these rows and columns; the columns are the rows if not given
    if columns is None or down is None:
        columns, down = rows, up
    height = max(_BLOCK // max(len(columns), 1), 1)
    for start in range(0, len(rows), height):
        part = slice(start, start + height)
        block = np.ix_(rows[part], columns)
        found[block] = np.minimum(found[block], up[part, None] + down)


def wu_palmer(taxonomy: Taxonomy, senses: Sequence[int]) -> Float32[np.ndarray, "sense sense"]:
    """Wu-Palmer similarities 2 D / (p_i + p_j + 2 D) (spec D8); NaN for senses that nothing connects."""
    raise NotImplementedError
