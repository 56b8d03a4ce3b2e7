"""All ancestors of many senses at once, with the shortest way up to each, and how deep senses lie."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int, Int64, UInt8

from src.errors import StrataError
from src.geometry.lexicon.taxonomy import Taxonomy

# numbers of senses, in any order, some perhaps more than once
Senses = Sequence[int] | Int[np.ndarray, "sense"]
# two ways up, to an artificial root too, then add up to less than UNCONNECTED
STEPS_LIMIT = 126


@dataclass(frozen=True, eq=False)
class Ancestors:
    """The ancestors of senses, one entry for each pair of them, by row and then by ancestor.

    row: which of the senses that were asked for. sense: its ancestor; each sense is its own. distance: the fewest
    is-a edges from one up to the other.
    """

    row: Int64[np.ndarray, "entry"]
    sense: Int64[np.ndarray, "entry"]
    distance: UInt8[np.ndarray, "entry"]

    def descendants(self) -> Iterator[tuple[int, Int64[np.ndarray, "descendant"], UInt8[np.ndarray, "descendant"]]]:
        """Of each ancestor, by its number: the rows below it (itself too, if asked for) and how far they are."""
        order = np.argsort(self.sense, kind="stable")
        above, starts = np.unique(self.sense[order], return_index=True)
        stops = np.append(starts[1:], len(order))[: len(starts)]
        rows, distances = self.row[order], self.distance[order]
        for ancestor, start, stop in zip(above.tolist(), starts, stops, strict=True):
            yield ancestor, rows[start:stop], distances[start:stop]


def find_ancestors(taxonomy: Taxonomy, senses: Senses) -> Ancestors:
    """The ancestors of senses along all parents (spec D8): breadth first, all senses at once.

    Raises:
        StrataError: a way up of more than STEPS_LIMIT edges, as in a circle.
    """
    width = len(taxonomy.names)
    asked = np.asarray(senses, np.int64).reshape(-1)
    reached = [np.arange(len(asked)) * width + asked]
    while len(reached[-1]):
        if len(reached) > STEPS_LIMIT + 1:
            name = taxonomy.names[int(asked[reached[-1][0] // width])]
            raise StrataError(
                f"{taxonomy.source}: over {STEPS_LIMIT} steps lead up from {name}: is there a circle above it?"
            )
        rows, nodes = np.divmod(reached[-1], width)
        child, parents = parents_of(taxonomy, nodes)
        # a sense that an earlier step reached is let through here: unique below keeps its first, shortest distance
        reached.append(np.unique(rows[child] * width + parents))
    steps = np.repeat(np.arange(len(reached), dtype=np.uint8), [len(keys) for keys in reached])
    keys, first = np.unique(np.concatenate(reached), return_index=True)
    rows, above = np.divmod(keys, width)
    return Ancestors(rows, above, steps[first])


def parents_of(
    taxonomy: Taxonomy, senses: Int64[np.ndarray, "sense"]
) -> tuple[Int64[np.ndarray, "edge"], Int64[np.ndarray, "edge"]]:
    """The edges that lead up from senses: the index of the lower end among them, and the sense at the upper end."""
    starts = taxonomy.parent_start[senses].astype(np.int64)
    counts = taxonomy.parent_start[senses + 1] - starts
    child = np.repeat(np.arange(len(senses)), counts)
    within = np.arange(len(child)) - np.repeat(np.cumsum(counts) - counts, counts)
    return child, taxonomy.parent[starts[child] + within].astype(np.int64)


def depths(
    taxonomy: Taxonomy, senses: Int64[np.ndarray, "sense"]
) -> tuple[Int64[np.ndarray, "sense"], Int64[np.ndarray, "sense"]]:
    """Edges on the shortest and on the longest way from each sense up to a root (0 for a root).

    Raises:
        StrataError: over STEPS_LIMIT steps lead up, as in a circle.
    """
    above = find_ancestors(taxonomy, senses)
    is_root = np.diff(taxonomy.parent_start)[above.sense] == 0
    shortest = np.full(len(senses), STEPS_LIMIT, np.int64)
    np.minimum.at(shortest, above.row[is_root], above.distance[is_root])

    nodes = np.unique(above.sense)
    child, parents = parents_of(taxonomy, nodes)
    upper = np.searchsorted(nodes, parents)
    longest = np.zeros(len(nodes), np.int64)
    for _ in range(STEPS_LIMIT):
        longer = longest.copy()
        np.maximum.at(longer, child, longest[upper] + 1)
        if np.array_equal(longer, longest):
            break
        longest = longer
    return shortest, longest[np.searchsorted(nodes, senses)]


def path_to_ancestors(taxonomy: Taxonomy, ancestors: Ancestors) -> UInt8[np.ndarray, "entry"]:
    """Path distance of each sense to each of its ancestors: through another common one where that is shorter.

    (It then is shorter than the way straight up, as from a sense to the child of one of its parents.)
    """
    width = len(taxonomy.names)
    nodes, node = np.unique(ancestors.sense, return_inverse=True)
    higher = find_ancestors(taxonomy, nodes)
    counts = np.bincount(higher.row, minlength=len(nodes))
    starts = np.cumsum(counts) - counts
    # entry -> the ancestors of its ancestor: all of them are the row's too
    first = np.cumsum(counts[node]) - counts[node]
    entry = np.repeat(np.arange(len(node)), counts[node])
    met = np.arange(len(entry)) - first[entry] + starts[node][entry]
    keys = ancestors.row * width + ancestors.sense
    ours = np.searchsorted(keys, ancestors.row[entry] * width + higher.sense[met])
    return (
        np.minimum.reduceat(ancestors.distance[ours] + higher.distance[met], first)
        if len(node)
        else keys.astype(np.uint8)
    )
