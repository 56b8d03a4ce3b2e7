"""Path distances and Wu-Palmer similarities of all pairs of senses at once, from their ancestors."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from jaxtyping import Float32, Int64, UInt8

from src.geometry.lexicon.ancestors import Ancestors, Senses, depths, find_ancestors, path_to_ancestors
from src.geometry.lexicon.taxonomy import UNCONNECTED, Taxonomy

# pairs that are held beside the result
_BLOCK = 1 << 22
# what NLTK calls it: its name takes part in the order of names
_ARTIFICIAL_ROOT = "*ROOT*"


def path_distances(
    taxonomy: Taxonomy, senses: Senses, artificial_root: bool = False
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
    for part in _parts(len(rows), len(columns)):
        block = np.ix_(rows[part], columns)
        found[block] = np.minimum(found[block], up[part, None] + down)


def wu_palmer(taxonomy: Taxonomy, senses: Senses, artificial_root: bool = False) -> Float32[np.ndarray, "sense sense"]:
    """Wu-Palmer similarities 2 D / (p_i + p_j + 2 D); NaN for senses that nothing connects (spec D8).

    As NLTK has it: of the common ancestors, the one whose shortest way to a root is longest (among equals the row's own
    sense, else the first by name); D is one more than its longest way to a root, p the path distances to it. So the
    matrix is not always symmetric, and a sense's similarity to itself can be less than 1.

    Args:
        taxonomy: who is a kind of what.
        senses: of the rows and columns.
        artificial_root: as NLTK does, join what nothing connects (see `path_distances`); its D is 1.

    Raises:
        StrataError: more than 126 steps lead up, as in a circle.
    """
    ancestors = find_ancestors(taxonomy, senses)
    nodes = np.unique(ancestors.sense)
    shallow, deep = depths(taxonomy, nodes)
    groups = _grouped(ancestors, path_to_ancestors(taxonomy, ancestors))
    found = np.full((len(senses), len(senses)), np.nan, np.float32)
    root = steps_to_artificial_root(ancestors, len(senses))
    noun = np.array([taxonomy.pos[sense] == "n" for sense in senses], bool)
    everyone = np.arange(len(senses))

    names = [*(taxonomy.names[sense] for sense in nodes), _ARTIFICIAL_ROOT]
    # the deeper ancestor is written over the others, and the first by name over those of its depth
    by_name = sorted(range(len(names) if artificial_root else len(nodes)), key=names.__getitem__, reverse=True)
    for node in sorted(by_name, key=[*shallow.tolist(), 0].__getitem__):
        if node < len(nodes):
            rows, steps = groups[node]
            _write(found, int(deep[node]) + 1, rows, steps, rows, steps)
        else:
            _write(found, 1, everyone[~noun], root[~noun], everyone, root)
            _write(found, 1, everyone[noun], root[noun], everyone[~noun], root[~noun])

    own = np.searchsorted(nodes, np.asarray(senses, np.int64))
    for row in _among_the_deepest(ancestors, shallow[np.searchsorted(nodes, ancestors.sense)], shallow[own]).tolist():
        columns, steps = groups[own[row]]
        _write(found, int(deep[own[row]]) + 1, np.array([row]), np.zeros(1, np.uint8), columns, steps)
    return found


def _among_the_deepest(
    ancestors: Ancestors, depth: Int64[np.ndarray, "entry"], own: Int64[np.ndarray, "sense"]
) -> Int64[np.ndarray, "row"]:
    # rows whose own sense lies as deep as the deepest of several ancestors, or is a root, as deep as an artificial one
    highest = np.zeros(len(own), np.int64)
    np.maximum.at(highest, ancestors.row, depth)
    as_deep = np.bincount(ancestors.row[depth == highest[ancestors.row]], minlength=len(own))
    return np.flatnonzero((own == highest) & ((as_deep > 1) | (own == 0)))


def _grouped(
    ancestors: Ancestors, distances: UInt8[np.ndarray, "entry"]
) -> list[tuple[Int64[np.ndarray, "descendant"], UInt8[np.ndarray, "descendant"]]]:
    # as Ancestors.descendants, with other distances
    with_paths = replace(ancestors, distance=distances)
    return [(rows, steps) for _, rows, steps in with_paths.descendants()]


def _write(
    found: Float32[np.ndarray, "sense sense"],
    depth: int,
    rows: Int64[np.ndarray, "row"],
    up: UInt8[np.ndarray, "row"],
    columns: Int64[np.ndarray, "column"],
    down: UInt8[np.ndarray, "column"],
) -> None:
    # quotients of small whole numbers: float32 rounds them as it would round NLTK's float64
    twice = np.float32(2 * depth)
    for part in _parts(len(rows), len(columns)):
        found[np.ix_(rows[part], columns)] = twice / ((up[part, None] + down).astype(np.float32) + twice)


def _parts(rows: int, columns: int) -> Iterator[slice]:
    height = max(_BLOCK // max(columns, 1), 1)
    return (slice(start, start + height) for start in range(0, rows, height))
