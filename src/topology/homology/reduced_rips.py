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

# Neighbours are bit sets in 64-bit words, which are read this many at a time: what vector registers have room for.
_BLOCK = np.uint64(8)
# Digits of the radix sort.
_DIGIT = np.uint64(11)

# Places in bit sets are unsigned throughout: else the sign of each would be looked at, as negative places count from
# the end, and a sum of signed and unsigned numbers is a float.
_ZERO, _ONE, _WORD = np.uint64(0), np.uint64(1), np.uint64(64)
_LENGTH, _FIRST, _LOW_HALF = np.uint64(32), np.uint64(16), np.uint64(0xFFFF)


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
    matrix = np.ascontiguousarray(matrix).view()
    matrix.flags.writeable = False  # else read-only matrices would be compiled for once more
    order = np.argsort(matrix.sum(axis=1), kind="stable")
    radius = np.float32(matrix.max(axis=1).min())
    keys = _sorted(_keys(matrix, order, radius))
    tree, generator, pivot, death, offset, member = _sweep(keys, matrix, order)
    edges = [np.sort(order[_points(keys[each])], axis=1) for each in (tree, generator, death)]
    lengths = [_lengths(keys[each]) for each in (tree, generator, death)]
    return ReducedRips(edges[0], lengths[0], edges[1], lengths[1], pivot, edges[2], lengths[2], offset, member)


def _points(keys: np.ndarray) -> np.ndarray:
    return np.stack([keys >> _FIRST & _LOW_HALF, keys & _LOW_HALF], axis=1).astype(np.int64)


def _lengths(keys: np.ndarray) -> np.ndarray:
    return (keys >> _LENGTH).astype(np.uint32).view(np.float32)


@_compiled
def _keys(matrix, order, radius):  # noqa: ANN001, ANN202
    """The edges up to the radius, as numbers that sort by length: length << 32 | first << 16 | second.

    The bits of floats that are not negative sort as the floats do. Points are places in `order`, first > second; edges
    come in the order of (first, second).
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
                keys[count] = (np.uint64(bits[second]) << _LENGTH) | np.uint64((first << 16) | second)
                count += 1
    return keys[:count]


@_compiled
def _sorted(keys):  # noqa: ANN001, ANN202
    """The keys in ascending order, by a stable radix sort of the lengths, since ties are in order already."""
    least, most = np.uint64(0xFFFFFFFF), _ZERO
    for key in keys:
        least, most = min(least, key >> _LENGTH), max(most, key >> _LENGTH)
    other, shift, mask = np.empty_like(keys), _ZERO, (_ONE << _DIGIT) - _ONE
    while len(keys) and (most - least) >> shift != _ZERO:
        start = np.zeros(mask + _ONE + _ONE, np.int64)
        for key in keys:
            start[((((key >> _LENGTH) - least) >> shift) & mask) + _ONE] += 1
        for digit in range(_ONE, mask + _ONE):
            start[digit] += start[digit - _ONE]
        for key in keys:
            digit = (((key >> _LENGTH) - least) >> shift) & mask
            other[start[digit]] = key
            start[digit] += 1
        keys, other, shift = other, keys, shift + _DIGIT
    return keys


@_compiled
def _sweep(keys, matrix, order):  # noqa: ANN001, ANN202
    """Enter the edges one by one: see the head of this module.

    Returns the places in `keys` of (the tree's edges, the generators, the edges that end classes), the generators of
    classes' births in the order of deaths, and classes' generators as offset and member.
    """
    n = len(order)
    n_words = (np.uint64(n) + _WORD * _BLOCK - _ONE) // (_WORD * _BLOCK) * _BLOCK
    neighbours = np.zeros(n * np.int64(n_words), np.uint64)  # row after row
    for i in range(n):
        _join(neighbours, n_words, np.uint64(i), np.uint64(i))  # a point is its own neighbour
    reached, rest = np.zeros(n_words, np.uint64), np.zeros(n_words, np.uint64)
    parent = np.arange(n)
    representative = np.zeros(n, np.int64)

    tree = np.empty(max(n - 1, 0), np.int64)
    n_joins = n_generators = n_deaths = n_members = 0
    generator, column_of = np.empty(256, np.int64), np.empty(256, np.int64)
    pivot, death, offset = np.empty(256, np.int64), np.empty(256, np.int64), np.zeros(257, np.int64)
    member = np.empty(1024, np.int64)
    column = np.zeros(4, np.uint64)  # bits of generators

    # what edges amount to: `table` finds an edge's row in `rows`, [length, generators ...]
    table = np.full((2, 4096), -1, np.int64)
    rows = np.zeros(4096, np.int64)
    used = np.array([0, 1])  # entries of the table, and of rows; row 0 is empty: that of a tree's edge
    stack = np.empty(128, np.int64)

    time = _enter_edges(keys, 0, neighbours, n_words, False)
    while time < len(keys):
        u, v = (keys[time] >> _FIRST) & _LOW_HALF, keys[time] & _LOW_HALF
        of_u, of_v = u * n_words, v * n_words
        apex = _first_common(neighbours, n_words, of_u, of_v)
        if apex == _WORD * n_words:
            edge = np.int64(u) * n + np.int64(v)
            first, second = _root(parent, np.int64(u)), _root(parent, np.int64(v))
            if first != second:
                parent[first] = second
                tree[n_joins] = time
                n_joins += 1
                table = _enter(table, used, edge, 0)
            else:
                generator = _roomy(generator, n_generators + 1)
                column_of = _roomy(column_of, n_generators + 1)
                column_of[n_generators] = -1
                if n_generators + 1 > 64 * len(column):
                    column = np.zeros(2 * len(column), np.uint64)
                rows = _roomy(rows, used[1] + 2)
                rows[used[1]], rows[used[1] + 1] = 1, n_generators
                table = _enter(table, used, edge, used[1])
                used[1] += 2
                generator[n_generators] = time
                n_generators += 1
        else:
            n_parts = _parts(neighbours, n_words, of_u, of_v, apex, reached, rest, representative)
            for part in range(1, n_parts):
                for place in (0, part):
                    for end in (np.int64(u), np.int64(v)):
                        table, rows, stack, row = _expand(
                            end, representative[place], matrix, order, table, rows, used, stack
                        )
                        _flip(rows, row + 1, row + 1 + rows[row], column)
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
                column.fill(_ZERO)
                pivot[n_deaths], death[n_deaths], offset[n_deaths + 1] = youngest, time, n_members
                column_of[youngest] = n_deaths
                n_deaths += 1
                if n_deaths == n_generators:
                    break
        _join(neighbours, n_words, u, v)
        _join(neighbours, n_words, v, u)
        time = _enter_edges(keys, time + 1, neighbours, n_words, n_deaths < n_generators)
    return (
        tree[:n_joins],
        generator[:n_generators],
        pivot[:n_deaths],
        death[:n_deaths],
        offset[: n_deaths + 1],
        member[:n_members],
    )


@_compiled
def _enter_edges(keys, time, neighbours, n_words, alive):  # noqa: ANN001, ANN202
    """Enter edges from `time` on, up to the first whose lune is empty or perhaps not connected; its time.

    While no class is `alive` there is nothing to fill: then lunes need not be connected.
    """
    while time < len(keys):
        u, v = (keys[time] >> _FIRST) & _LOW_HALF, keys[time] & _LOW_HALF
        of_u, of_v = u * n_words, v * n_words
        apex = _first_common(neighbours, n_words, of_u, of_v)
        if apex == _WORD * n_words or (alive and not _is_connected(neighbours, n_words, of_u, of_v, apex)):
            break
        _join(neighbours, n_words, u, v)
        _join(neighbours, n_words, v, u)
        time += 1
    return time


@_compiled
def _first_common(neighbours, n_words, of_u, of_v):  # noqa: ANN001, ANN202
    """The first point of the lune, the number of bits if it is empty."""
    word = _ZERO
    while word < n_words and neighbours[of_u + word] & neighbours[of_v + word] == _ZERO:
        word += _ONE
    if word == n_words:
        return _WORD * n_words
    return _WORD * word + _lowest_bit(neighbours[of_u + word] & neighbours[of_v + word])


@_compiled
def _join(neighbours, n_words, u, v):  # noqa: ANN001, ANN202
    neighbours[u * n_words + v // _WORD] |= _ONE << v % _WORD


@_compiled
def _is_connected(neighbours, n_words, of_u, of_v, apex):  # noqa: ANN001, ANN202
    """Whether every point of the lune is a neighbour of `apex`, one of them, or of a neighbour of it in the lune.

    False decides nothing; nearly all lunes that are connected are found to be so here, at a small part of the cost.
    """
    of_apex = apex * n_words
    for block in range(_ZERO, n_words, _BLOCK):
        left = _ZERO
        for word in range(block, block + _BLOCK):
            left |= neighbours[of_u + word] & neighbours[of_v + word] & ~neighbours[of_apex + word]
        if left == _ZERO:
            continue
        for word in range(block, block + _BLOCK):
            bits = neighbours[of_u + word] & neighbours[of_v + word] & ~neighbours[of_apex + word]
            while bits != _ZERO:
                of_point = (_WORD * word + _lowest_bit(bits)) * n_words
                bits &= bits - _ONE
                at = _ZERO
                while at < n_words and (
                    neighbours[of_u + at] & neighbours[of_v + at] & neighbours[of_apex + at] & neighbours[of_point + at]
                    == _ZERO
                ):
                    at += _ONE
                if at == n_words:
                    return False
    return True


@_compiled
def _parts(neighbours, n_words, of_u, of_v, apex, reached, rest, representative):  # noqa: ANN001, ANN202
    """The number of components of the lune, and a point of each in `representative`; `apex` is one of its points."""
    left = _ZERO
    for word in range(n_words):
        lune = neighbours[of_u + word] & neighbours[of_v + word]
        rest[word] = lune & ~neighbours[apex * n_words + word]
        reached[word] = lune & neighbours[apex * n_words + word]
        left |= rest[word]
    representative[0] = apex
    parts = 1
    while left != _ZERO:
        moves, left = False, _ZERO
        for word in range(n_words):
            bits = rest[word]
            while bits != _ZERO:
                of_point = (_WORD * word + _lowest_bit(bits)) * n_words
                bit = bits & (~bits + _ONE)
                bits ^= bit
                at = _ZERO
                while at < n_words and neighbours[of_point + at] & reached[at] == _ZERO:
                    at += _ONE
                if at < n_words:
                    rest[word] ^= bit
                    reached[word] |= bit
                    moves = True
            left |= rest[word]
        if left != _ZERO and not moves:  # this component is complete: begin the next
            word = _ZERO
            while rest[word] == _ZERO:
                word += _ONE
            representative[parts] = _WORD * word + _lowest_bit(rest[word])
            parts += 1
            bit = rest[word] & (~rest[word] + _ONE)
            rest[word] ^= bit
            reached.fill(_ZERO)
            reached[word] = bit
    return parts


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
    stack[0], stack[1] = max(a, b), min(a, b)
    while depth:
        x, y = stack[2 * depth - 2], stack[2 * depth - 1]
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
            stack = _roomy(stack, 2 * depth + 2)
            end = x if first < 0 else y
            stack[2 * depth], stack[2 * depth + 1] = max(end, apex), min(end, apex)
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
def _flip(generators, start, end, column):  # noqa: ANN001, ANN202
    for place in range(start, end):
        column[generators[place] >> 6] ^= _ONE << np.uint64(generators[place] & 63)


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
        _flip(member, offset[earlier], offset[earlier + 1], column)
    return -1


@_compiled
def _lowest_bit(bits):  # noqa: ANN001, ANN202
    """The place of the lowest bit that is set; bits is not 0."""
    below = (bits & (~bits + _ONE)) - _ONE
    # the bits below it, counted; LLVM knows this idiom and takes the processor's instruction
    below -= (below >> np.uint64(1)) & np.uint64(0x5555555555555555)
    below = (below & np.uint64(0x3333333333333333)) + ((below >> np.uint64(2)) & np.uint64(0x3333333333333333))
    below = (below + (below >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return (below * np.uint64(0x0101010101010101)) >> np.uint64(56)


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
    for place in range(len(array)):
        copy[place] = array[place]
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
                longer[0, slot], longer[1, slot] = table[0, place], table[1, place]
        table = longer
    slot = _slot(table, edge)
    table[0, slot], table[1, slot] = edge, row
    used[0] += 1
    return table
