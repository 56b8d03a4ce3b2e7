"""Compiled persistent homology: H0 and H1 of a Vietoris-Rips filtration over Z/2, exact, in memory O(n^2).

The reduced Vietoris-Rips filtration (Koyama, Memoli, Robins and Turner 2023, arXiv 2307.16333) has the same H0 and H1
with far fewer triangles. Edges enter one by one, shortest first. The *lune* of an entering edge uv is the set of points
that are neighbours of both u and v already. All triangles uvw with w in one connected component of the lune say the
same, so one per component is enough:

- an empty lune: the edge joins two components of the cloud (it is an edge of the minimum spanning tree) or it closes a
  cycle that nothing fills: it is a *generator* of H1;
- otherwise the first triangle tells what the edge amounts to, uv = uw + wv, and each further component k is a relation
  among earlier edges: the cycle u w_k v w is filled from now on.

Every edge is thus a sum of generators (edges of the tree count nothing), modulo what has been filled before; these
coordinates are worked out only for the few edges that relations need. A relation is reduced by those before it, the
youngest generator first, as in the standard algorithm; what is left names the class that dies.

Importing this module imports numba; the first call compiles, once per machine (numba's cache). All functions that are
compiled stand in this file: numba's cache sees no changes of other files.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int
from numba import njit

# Two points share the lower half of an edge's 64-bit key, its length (as float32) takes the upper half.
MAX_POINTS = 1 << 16

_LOW_HALF = np.uint64(0xFFFF)
_ONE, _ZERO = np.uint64(1), np.uint64(0)


def _compiled(function: Callable) -> Any:
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy"}
    try:
        return njit(cache=True, **options)(function)
    except RuntimeError:  # neither the folder of this file nor a cache folder of the user's can be written to
        return njit(**options)(function)


class ReducedRips(NamedTuple):
    """What the filtration comes to. Edges are pairs of points, lengths float32.

    Attributes:
        tree, tree_length: the minimum spanning tree's edges, shortest first: deaths in H0.
        generator, generator_length: the edges that close a cycle which nothing fills, shortest first.
        pivot: for each class of H1 that dies, its youngest generator: the birth.
        death, death_length: the edge whose entry ends the class.
        offset, member: the generators whose cycles add up to the class are member[offset[k] : offset[k + 1]].
    """

    tree: Int[np.ndarray, "join 2"]
    tree_length: Float[np.ndarray, "join"]
    generator: Int[np.ndarray, "generator 2"]
    generator_length: Float[np.ndarray, "generator"]
    pivot: Int[np.ndarray, "bar"]
    death: Int[np.ndarray, "bar 2"]
    death_length: Float[np.ndarray, "bar"]
    offset: Int[np.ndarray, "bar+1"]
    member: Int[np.ndarray, "member"]


def reduced_rips(matrix: Float[np.ndarray, "point point"]) -> ReducedRips:
    """H0 and H1 up to the enclosing radius, beyond which nothing is left to die.

    `matrix` holds symmetric distances, not negative, which are rounded to float32 (as ripser does); 1 to
    `MAX_POINTS` points.
    """
    # Central points first: a lune is seen to be connected at once when one of its points is a neighbour of all others,
    # and a central one is the likeliest.
    order = np.argsort(matrix.sum(axis=1), kind="stable")
    radius = np.float32(matrix.max(axis=1).min())
    keys = _sorted_keys(matrix, order, radius)
    tree, generator, pivot, death, offset, member = _sweep(keys, matrix, order)
    edges = [np.sort(order[_points(keys[each])], axis=1) for each in (tree, generator, death)]
    lengths = [_lengths(keys[each]) for each in (tree, generator, death)]
    return ReducedRips(edges[0], lengths[0], edges[1], lengths[1], pivot, edges[2], lengths[2], offset, member)


def _sorted_keys(
    matrix: Float[np.ndarray, "point point"], order: Int[np.ndarray, "point"], radius: np.float32
) -> np.ndarray:
    keys = _keys(np.ascontiguousarray(matrix), order, radius)
    keys.sort()
    return keys


def _points(keys: np.ndarray) -> np.ndarray:
    return np.stack([keys >> np.uint64(16) & _LOW_HALF, keys & _LOW_HALF], axis=1).astype(np.int64)


def _lengths(keys: np.ndarray) -> np.ndarray:
    return (keys >> np.uint64(32)).astype(np.uint32).view(np.float32)


@_compiled
def _keys(matrix, order, radius):  # noqa: ANN001, ANN202
    """The edges up to the radius, as numbers that sort by length: length << 32 | first << 16 | second.

    The bits of floats that are not negative sort as the floats do. Points are places in `order`, first > second.
    """
    n = len(order)
    keys = np.empty(n * (n - 1) // 2, np.uint64)
    row = np.empty(n, np.float32)
    bits = row.view(np.uint32)
    count = 0
    for first in range(1, n):
        distances = matrix[order[first]]
        for second in range(first):
            row[second] = abs(np.float32(distances[order[second]]))  # -0.0 would sort last
        for second in range(first):
            if row[second] <= radius:
                keys[count] = (np.uint64(bits[second]) << np.uint64(32)) | np.uint64((first << 16) | second)
                count += 1
    return keys[:count]


@_compiled
def _sweep(keys, matrix, order):  # noqa: ANN001, ANN202
    """Enter the edges one by one: see the head of this module.

    Returns the places in `keys` of (the tree's edges, the generators, the edges that end classes), the generators of
    classes' births in the order of deaths, and classes' generators as offset and member.
    """
    n = len(order)
    n_words = (n + 511) // 512 * 8
    neighbours = np.zeros((n, n_words), np.uint64)  # bit sets; a point is its own neighbour
    for i in range(n):
        neighbours[i, i >> 6] |= _ONE << np.uint64(i & 63)
    reached, rest = np.zeros(n_words, np.uint64), np.zeros(n_words, np.uint64)
    parent = np.arange(n)
    representative = np.zeros(n, np.int64)

    tree = np.empty(max(n - 1, 0), np.int64)
    n_joins = n_generators = n_deaths = n_members = 0
    generator, column_of = np.empty(256, np.int64), np.full(256, -1, np.int64)
    pivot, death, offset = np.empty(256, np.int64), np.empty(256, np.int64), np.zeros(257, np.int64)
    member = np.empty(1024, np.int64)
    column = np.zeros(4, np.uint64)  # bits of generators

    # what edges amount to: `table` finds an edge's row in `rows`, [length, generators ...]
    table = np.full((2, 4096), -1, np.int64)
    rows = np.zeros(4096, np.int64)
    used = np.array([0, 1])  # entries of the table, and of rows; row 0 is empty: that of a tree's edge
    stack = np.empty((64, 2), np.int64)

    for time in range(len(keys)):
        key = keys[time]
        u, v = np.int64(key >> np.uint64(16) & _LOW_HALF), np.int64(key & _LOW_HALF)
        of_u, of_v = neighbours[u], neighbours[v]
        word = 0
        while word < n_words and of_u[word] & of_v[word] == _ZERO:
            word += 1
        if word == n_words:
            first, second = _root(parent, u), _root(parent, v)
            if first != second:
                parent[first] = second
                tree[n_joins] = time
                n_joins += 1
                table = _enter(table, used, u * n + v, 0)
            else:
                generator = _roomy(generator, n_generators + 1)
                if n_generators + 1 > len(column_of):
                    column_of = np.concatenate((column_of, np.full(len(column_of), -1, np.int64)))
                if n_generators + 1 > 64 * len(column):
                    column = np.zeros(2 * len(column), np.uint64)
                rows = _roomy(rows, used[1] + 2)
                rows[used[1]], rows[used[1] + 1] = 1, n_generators
                table = _enter(table, used, u * n + v, used[1])
                used[1] += 2
                generator[n_generators] = time
                n_generators += 1
        elif n_deaths < n_generators:  # while no class is alive there is nothing to fill
            apex = 64 * word + _lowest_bit(of_u[word] & of_v[word])
            n_parts = _parts(of_u, of_v, neighbours, apex, reached, rest, representative)
            for part in range(1, n_parts):
                for place in range(2):
                    for end in (u, v):
                        table, rows, stack, row = _expand(
                            end, representative[part * place], matrix, order, table, rows, used, stack
                        )
                        _flip(rows[row + 1 : row + 1 + rows[row]], column)
                youngest = _reduce(column, column_of, offset, member, n_generators)
                if youngest < 0:
                    continue
                pivot, death = _roomy(pivot, n_deaths + 1), _roomy(death, n_deaths + 1)
                offset = _roomy(offset, n_deaths + 2)
                member = _roomy(member, n_members + youngest + 1)
                for each in range(youngest + 1):
                    if column[each >> 6] >> np.uint64(each & 63) & _ONE:
                        member[n_members] = each
                        n_members += 1
                column[:] = _ZERO
                pivot[n_deaths], death[n_deaths], offset[n_deaths + 1] = youngest, time, n_members
                column_of[youngest] = n_deaths
                n_deaths += 1
                if n_deaths == n_generators:
                    break
        of_u[v >> 6] |= _ONE << np.uint64(v & 63)
        of_v[u >> 6] |= _ONE << np.uint64(u & 63)
    return (
        tree[:n_joins],
        generator[:n_generators],
        pivot[:n_deaths],
        death[:n_deaths],
        offset[: n_deaths + 1],
        member[:n_members],
    )


@_compiled
def _parts(of_u, of_v, neighbours, apex, reached, rest, representative):  # noqa: ANN001, ANN202
    """The number of components of the lune, and a point of each in `representative`; `apex` is one of its points."""
    of_apex, left = neighbours[apex], _ZERO
    for word in range(len(rest)):
        lune = of_u[word] & of_v[word]
        rest[word] = lune & ~of_apex[word]
        reached[word] = lune & of_apex[word]
        left |= rest[word]
    representative[0] = apex
    parts = 1
    while left != _ZERO:
        moves, left = False, _ZERO
        for word in range(len(rest)):
            open_bits = rest[word]
            while open_bits != _ZERO:
                point = 64 * word + _lowest_bit(open_bits)
                bit = open_bits & (~open_bits + _ONE)
                open_bits ^= bit
                if _meet(neighbours[point], reached):
                    rest[word] ^= bit
                    reached[word] |= bit
                    moves = True
            left |= rest[word]
        if left != _ZERO and not moves:
            word = 0
            while rest[word] == _ZERO:
                word += 1
            representative[parts] = 64 * word + _lowest_bit(rest[word])
            parts += 1
            bit = rest[word] & (~rest[word] + _ONE)
            rest[word] ^= bit
            reached[:] = _ZERO
            reached[word] = bit
    return parts


@_compiled
def _meet(first, second):  # noqa: ANN001, ANN202
    word = 0
    while word < len(first) and first[word] & second[word] == _ZERO:
        word += 1
    return word < len(first)


@_compiled
def _expand(a, b, matrix, order, table, rows, used, stack):  # noqa: ANN001, ANN202
    """(table, rows, stack, row): `row` is where `rows` has what the edge ab, which has entered, amounts to.

    The first three are as given, or longer copies.
    """
    n = len(order)
    row = _find(table, max(a, b) * n + min(a, b))
    if row >= 0:
        return table, rows, stack, row
    depth = 1
    stack[0] = max(a, b), min(a, b)
    while depth:
        x, y = stack[depth - 1]
        apex = _apex(x, y, matrix, order)
        first = _find(table, max(x, apex) * n + min(x, apex))
        second = _find(table, max(y, apex) * n + min(y, apex))
        if first >= 0 and second >= 0:
            row = used[1]
            rows = _roomy(rows, row + 1 + rows[first] + rows[second])
            rows[row] = _symmetric_difference(rows, first, second, row + 1)
            used[1] += 1 + rows[row]
            table = _enter(table, used, x * n + y, row)
            depth -= 1
        else:
            if depth == len(stack):
                stack = np.concatenate((stack, np.empty_like(stack)))
            end = x if first < 0 else y
            stack[depth] = max(end, apex), min(end, apex)
            depth += 1
    return table, rows, stack, row


@_compiled
def _apex(x, y, matrix, order):  # noqa: ANN001, ANN202
    """The first point whose edges to x and to y entered before the edge xy, itself neither of them; x > y."""
    to_x, to_y = matrix[order[x]], matrix[order[y]]
    length = np.float32(to_x[order[y]])
    for w in range(len(order)):
        x_length, y_length = np.float32(to_x[order[w]]), np.float32(to_y[order[w]])
        # ties go by (first, second), as in the keys
        x_before = x_length < length or (x_length == length and w < y)
        y_before = y_length < length or (y_length == length and w < x)
        if x_before and y_before:
            return w
    return -1


@_compiled
def _symmetric_difference(rows, first, second, place):  # noqa: ANN001, ANN202
    """Write the generators that one of two rows has, ascending, from `place` on; how many there are."""
    i, end_i = first + 1, first + 1 + rows[first]
    j, end_j = second + 1, second + 1 + rows[second]
    start = place
    while i < end_i or j < end_j:
        if j == end_j or (i < end_i and rows[i] < rows[j]):
            rows[place] = rows[i]
            i += 1
            place += 1
        elif i == end_i or rows[j] < rows[i]:
            rows[place] = rows[j]
            j += 1
            place += 1
        else:
            i += 1
            j += 1
    return place - start


@_compiled
def _flip(generators, column):  # noqa: ANN001, ANN202
    for each in generators:
        column[each >> 6] ^= _ONE << np.uint64(each & 63)


@_compiled
def _reduce(column, column_of, offset, member, n_generators):  # noqa: ANN001, ANN202
    """Add earlier relations to this one while they share its youngest generator; that generator, -1 if none is left."""
    word = (n_generators - 1) >> 6
    while word >= 0:
        if column[word] == _ZERO:
            word -= 1
            continue
        bits, youngest = column[word], 64 * word + 63
        while bits >> np.uint64(63) == _ZERO:
            bits <<= _ONE
            youngest -= 1
        earlier = column_of[youngest]
        if earlier < 0:
            return youngest
        _flip(member[offset[earlier] : offset[earlier + 1]], column)
    return -1


@_compiled
def _lowest_bit(bits):  # noqa: ANN001, ANN202
    """The place of the lowest bit that is set; bits is not 0."""
    place = 0
    for step in (32, 16, 8, 4, 2, 1):
        if bits & ((_ONE << np.uint64(step)) - _ONE) == _ZERO:
            bits >>= np.uint64(step)
            place += step
    return place


@_compiled
def _root(parent, i):  # noqa: ANN001, ANN202
    while parent[i] != i:
        parent[i] = parent[parent[i]]
        i = parent[i]
    return i


@_compiled
def _roomy(array, size):  # noqa: ANN001, ANN202
    """The array, or a copy of twice the length that is needed."""
    if size <= len(array):
        return array
    copy = np.zeros(2 * size, array.dtype)
    copy[: len(array)] = array
    return copy


@_compiled
def _slot(table, edge):  # noqa: ANN001, ANN202
    """Where the edge is, or would be, in the hash table (edges, rows)."""
    mask = table.shape[1] - 1
    slot = (edge * 0x9E3779B1 >> 15) & mask
    while table[0, slot] != edge and table[0, slot] >= 0:
        slot = (slot + 1) & mask
    return slot


@_compiled
def _find(table, edge):  # noqa: ANN001, ANN202
    """The edge's row, or -1."""
    slot = _slot(table, edge)
    return table[1, slot] if table[0, slot] == edge else -1


@_compiled
def _enter(table, used, edge, row):  # noqa: ANN001, ANN202
    """The table, or one of twice the size, with one more edge in it."""
    if 2 * used[0] >= table.shape[1]:
        longer = np.full((2, 2 * table.shape[1]), -1, np.int64)
        for place in range(table.shape[1]):
            if table[0, place] >= 0:
                slot = _slot(longer, table[0, place])
                longer[:, slot] = table[:, place]
        table = longer
    slot = _slot(table, edge)
    table[0, slot], table[1, slot] = edge, row
    used[0] += 1
    return table
