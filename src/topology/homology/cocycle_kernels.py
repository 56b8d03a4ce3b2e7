"""The compiled part of cocycles: apexes, relations between generators, and cocycles from their values on generators.

Importing this module imports numba; the first call compiles, once per machine (numba's cache). All functions that are
compiled stand in this file: numba's cache sees no changes of other files.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit

# Relations are reduced modulo this prime (2^31 - 1): products fit into 64 bits, small integers come out as they are.
PRIME = 2147483647
TREE, GENERATOR = -1, -2


def _compiled(function: Callable) -> Any:
    try:
        return njit(cache=True, nogil=True)(function)
    except RuntimeError:  # neither the folder of this file nor a cache folder of the user's can be written to
        return njit(nogil=True)(function)


@_compiled
def apices(rank: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """An apex of each edge: the common neighbour that is there first."""
    n = len(rank)
    apex = np.empty(len(edges), np.int32)
    parent = np.arange(n)
    for e in range(len(edges)):
        u, v = np.int64(edges[e, 0]), np.int64(edges[e, 1])
        first, found = e, GENERATOR
        for w in range(n):
            entry = max(rank[u, w], rank[v, w])
            if entry < first:
                first, found = entry, w
        if found == GENERATOR:
            a, b = u, v
            while parent[a] != a:
                parent[a] = parent[parent[a]]
                a = parent[a]
            while parent[b] != b:
                parent[b] = parent[parent[b]]
                b = parent[b]
            if a != b:
                parent[a] = b
                found = TREE
        apex[e] = found
    return apex


@_compiled
def relations_of(
    rank: np.ndarray, edges: np.ndarray, apex: np.ndarray, generators: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
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
        if apex[e] == GENERATOR:
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
                            column[h] = (column[h] - factor * reduced[g, h]) % PRIME
                    g -= 1
                else:
                    inverse = _inverse(column[g])
                    for h in range(g + 1):
                        reduced[g, h] = column[h] * inverse % PRIME
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
            weight[near] = (weight[near] + (value if a < w else -value)) % PRIME
            weight[far] = (weight[far] + (value if w < b else -value)) % PRIME
        elif apex[edge] == GENERATOR:
            column[number[edge]] = value % PRIME


@_compiled
def _inverse(value):  # noqa: ANN001, ANN202
    """By Fermat's little theorem."""
    result, power, exponent = 1, value, PRIME - 2
    while exponent > 0:
        if exponent & 1:
            result = result * power % PRIME
        power = power * power % PRIME
        exponent >>= 1
    return result


@_compiled
def extend(
    rank: np.ndarray,
    edges: np.ndarray,
    apex: np.ndarray,
    generators: np.ndarray,
    on_generators: np.ndarray,
    last: int,
    values: np.ndarray,
) -> bool:
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
        elif apex[e] == GENERATOR:
            value = on_generators[g]
            g += 1
        values[u, v], values[v, u] = value, -value
    return True
