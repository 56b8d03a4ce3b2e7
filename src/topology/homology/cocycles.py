"""Integer 1-cocycles dual to the loops of a Vietoris-Rips filtration.

A closed 1-cochain gives every directed edge a number so that the numbers around each triangle add up to 0. In the
reduced filtration (Koyama, Mémoli, Robins and Turner 2023, arXiv 2307.16333) an edge that enters when a common
neighbour of its ends (an apex) is there takes its value from the two edges to the apex; so a closed cochain is fixed by
its values on the edges without an apex: those of the spanning tree, which may be 0, and the generators, each of which
opens a loop. Where the common neighbours of an entering edge fall into several components, paths through different
components must agree: these relations, reduced in the order of the filtration, close the loops.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from jaxtyping import Float, Int
from numba import njit

from src.errors import StrataError
from src.topology.homology.distances import Distances
from src.topology.homology.memory import require_memory

# Relations are reduced modulo this prime (2^31 - 1): products fit into 64 bits, small integers come out as they are.
_PRIME = 2147483647
_TREE, _GENERATOR = -1, -2
# A bar is recognised by its birth and death, up to this part of its death.
_ROUNDING = 1e-6


class NoCocycleError(StrataError):
    """No integer cocycle belongs to a bar: it is of another cloud, or its class has torsion."""


@dataclass(frozen=True)
class Cocycles:
    """The loops of a filtration, and the relations that close them.

    Attributes:
        rank: the place of each edge in the filtration (by length, then by index), the number of edges where there is
            none: edges beyond the enclosing radius do not enter.
        edges: the points of each edge, smaller first, in the order of the filtration; `length` is theirs.
        apex: a common neighbour at entry, or -1 (tree) or -2 (generator).
        generators: the edges that are generators.
        relations: row g is the relation that closes generator g, in coefficients of generators 0 .. g (that of g is 1),
            modulo the prime; death: the edge that brings it.
    """

    rank: Int[np.ndarray, "point point"]
    edges: Int[np.ndarray, "edge 2"]
    length: Float[np.ndarray, "edge"]
    apex: Int[np.ndarray, "edge"]
    generators: Int[np.ndarray, "generator"]
    relations: Int[np.ndarray, "generator generator"]
    death: Int[np.ndarray, "generator"]

    @classmethod
    def of(cls, distances: Distances) -> Self:
        """Reduce the relations of a cloud: time grows as points^3, memory as points^2.

        Distances are rounded to float32, as `persistence` rounds them: births and deaths are the same.

        Raises:
            StrataError: if the machine has too little memory free.
        """
        n = distances.n_points
        require_memory(28 * n**2, n, "cocycles")
        upper, lower = np.tril_indices(n, -1)
        length = distances.matrix[upper, lower].astype(np.float32).astype(np.float64)
        entering = np.flatnonzero(length <= float(np.float32(distances.enclosing_radius)))
        entering = entering[np.argsort(length[entering], kind="stable")]
        edges = np.stack([lower[entering], upper[entering]], axis=1).astype(np.int32)
        rank = np.full((n, n), len(edges), dtype=np.int32)
        rank[edges[:, 0], edges[:, 1]] = rank[edges[:, 1], edges[:, 0]] = np.arange(len(edges))
        apex = _apices(rank, edges)
        generators = np.flatnonzero(apex == _GENERATOR)
        require_memory(8 * len(generators) ** 2, n, f"relations between {len(generators)} loops")
        relations, death = _relations(rank, edges, apex, generators)
        return cls(rank, edges, length[entering], apex, generators, relations, death)

    def generator_of(self, birth: float, death: float, walks: Sequence[Sequence[int]] = ()) -> int:
        """The generator whose loop lives from `birth` to `death`.

        Where several do (congruent shapes): the first whose cocycle goes around the loop's cycle, the closed `walks`
        through points, an odd number of times; without walks the first.

        Raises:
            NoCocycleError: if none does: so it is for a bar of other distances, and for one that is a loop modulo 2
                alone, as the twisted one of a projective plane.
        """
        closed = np.flatnonzero(self.death >= 0)
        lives = np.stack([self.length[self.generators[closed]], self.length[self.death[closed]]], axis=1)
        miss = np.abs(lives - [birth, death]).max(axis=1, initial=0.0)
        if not len(closed) or miss.min() > _ROUNDING * max(death, 1e-300):
            raise NoCocycleError(
                f"no loop of this cloud lives from {birth:g} to {death:g}: the bar is of other distances, or twisted"
            )
        alike = closed[miss == miss.min()].tolist()
        if len(alike) == 1 or not walks:
            return alike[0]
        return next((each for each in alike if self._turns(each, birth, walks) % 2), alike[0])

    def _turns(self, generator: int, scale: float, walks: Sequence[Sequence[int]]) -> int:
        """How often the cocycle of a generator goes around closed walks."""
        values = self.dual(generator, scale)
        return sum(int(values[walk, np.roll(walk, -1)].sum()) for walk in map(np.asarray, walks))

    def dual(self, generator: int, scale: float) -> Int[np.ndarray, "point point"]:
        """The integer cocycle at `scale` with period 1 on one loop and 0 on the loop of every other bar.

        The loop of a bar is the one that its death edge closes. Entry (i, j) is the value of the edge from i to j,
        antisymmetric; 0 where there is no edge up to `scale`.

        Raises:
            NoCocycleError: if the class has no integer cocycle there (torsion).
        """
        on_generators = np.zeros(len(self.generators), dtype=np.int64)
        last = int(np.searchsorted(self.length, scale, side="right"))
        for row in range(generator, int(np.searchsorted(self.generators, last))):
            others = np.flatnonzero(on_generators[generator:row]) + generator
            known = sum(int(self.relations[row, g]) * int(on_generators[g]) for g in others)
            on_generators[row] = (int(row == generator) - known) % _PRIME
        on_generators[on_generators > _PRIME // 2] -= _PRIME
        values = np.zeros((len(self.rank), len(self.rank)), dtype=np.int64)
        if not _extend(self.rank, self.edges, self.apex, self.generators, on_generators, last, values):
            raise NoCocycleError(f"the loop has no integer cocycle at the scale {scale:g}: choose another scale")
        return values


def _compiled(function: Callable) -> Any:
    try:
        return njit(cache=True, nogil=True)(function)
    except RuntimeError:  # neither the folder of this file nor a cache folder of the user's can be written to
        return njit(nogil=True)(function)


@_compiled
def _apices(rank, edges):  # noqa: ANN001, ANN202
    """An apex of each edge: the common neighbour that is there first."""
    n = len(rank)
    apex = np.empty(len(edges), np.int32)
    parent = np.arange(n)
    for e in range(len(edges)):
        u, v = np.int64(edges[e, 0]), np.int64(edges[e, 1])
        first, found = e, _GENERATOR
        for w in range(n):
            entry = max(rank[u, w], rank[v, w])
            if entry < first:
                first, found = entry, w
        if found == _GENERATOR:
            a, b = u, v
            while parent[a] != a:
                parent[a] = parent[parent[a]]
                a = parent[a]
            while parent[b] != b:
                parent[b] = parent[parent[b]]
                b = parent[b]
            if a != b:
                parent[a] = b
                found = _TREE
        apex[e] = found
    return apex


@_compiled
def _relations(rank, edges, apex, generators):  # noqa: ANN001, ANN202
    """The relation that closes each generator, reduced, and the edge that brings it (-1: none)."""
    n, count = len(rank), len(generators)
    number = np.full(len(edges), -1, np.int32)
    for g in range(count):
        number[generators[g]] = g
    reduced = np.zeros((count, count), np.int64)
    death = np.full(count, -1, np.int64)
    weight = np.zeros(len(edges) + 1, np.int64)
    column = np.zeros(count, np.int64)
    lune, rest, stack = np.empty(n, np.int64), np.empty(n, np.int64), np.empty(n, np.int64)
    alive = 0
    for e in range(len(edges)):
        if apex[e] == _GENERATOR:
            alive += 1
        if apex[e] < 0 or alive == 0:
            continue
        u, v = np.int64(edges[e, 0]), np.int64(edges[e, 1])
        n_rest = 0
        for w in range(n):
            if rank[u, w] < e and rank[v, w] < e and w != apex[e]:
                rest[n_rest] = w
                n_rest += 1
        lune[0], n_components = apex[e], 1
        stack[0], depth = apex[e], 1
        while n_rest > 0:
            if depth == 0:
                n_rest -= 1
                stack[0], depth = rest[n_rest], 1
                lune[n_components] = rest[n_rest]
                n_components += 1
                continue
            depth -= 1
            x = stack[depth]
            kept = 0
            for k in range(n_rest):
                y = rest[k]
                if rank[x, y] < e:
                    stack[depth] = y
                    depth += 1
                else:
                    rest[kept] = y
                    kept += 1
            n_rest = kept
        for k in range(1, n_components):
            _expand(rank, edges, apex, number, u, v, lune[0], lune[k], weight, column)
            g = count - 1
            while g >= 0:
                if column[g] == 0:
                    g -= 1
                elif death[g] >= 0:
                    factor = column[g]
                    for h in range(g + 1):
                        if reduced[g, h] != 0:
                            column[h] = (column[h] - factor * reduced[g, h]) % _PRIME
                    g -= 1
                else:
                    inverse = _inverse(column[g])
                    for h in range(g + 1):
                        reduced[g, h] = column[h] * inverse % _PRIME
                    death[g] = e
                    alive -= 1
                    break
            if alive == 0:
                break
    return reduced, death


@_compiled
def _expand(rank, edges, apex, number, u, v, first, second, weight, column):  # noqa: ANN001, ANN202
    """Into `column`: the loop u -> first -> v -> second -> u in generators, modulo the prime; `weight` stays 0."""
    column[:] = 0
    top = 0
    corners = (u, first, v, second, u)
    for k in range(4):
        a, b = corners[k], corners[k + 1]
        edge = rank[a, b]
        weight[edge] += 1 if a < b else -1
        top = max(top, edge)
    for edge in range(top, -1, -1):
        value = weight[edge]
        if value == 0:
            continue
        weight[edge] = 0
        if apex[edge] >= 0:
            a, b, w = edges[edge, 0], edges[edge, 1], apex[edge]
            near, far = rank[a, w], rank[w, b]
            weight[near] = (weight[near] + (value if a < w else -value)) % _PRIME
            weight[far] = (weight[far] + (value if w < b else -value)) % _PRIME
        elif apex[edge] == _GENERATOR:
            column[number[edge]] = value % _PRIME


@_compiled
def _inverse(value):  # noqa: ANN001, ANN202
    """By Fermat's little theorem."""
    result, power, exponent = 1, value, _PRIME - 2
    while exponent > 0:
        if exponent & 1:
            result = result * power % _PRIME
        power = power * power % _PRIME
        exponent >>= 1
    return result


@_compiled
def _extend(rank, edges, apex, generators, on_generators, last, values):  # noqa: ANN001, ANN202
    """Fill `values` for the first `last` edges from those on generators; False if a triangle does not add up to 0."""
    n, g = len(rank), 0
    for e in range(last):
        u, v = np.int64(edges[e, 0]), np.int64(edges[e, 1])
        value = 0
        if apex[e] >= 0:
            value = values[u, apex[e]] + values[apex[e], v]
            for w in range(n):
                if rank[u, w] < e and rank[v, w] < e and values[u, w] + values[w, v] != value:
                    return False
        elif apex[e] == _GENERATOR:
            value = on_generators[g]
            g += 1
        values[u, v], values[v, u] = value, -value
    return True
