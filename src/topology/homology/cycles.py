"""The loops in the cloud that bars of H1 stand for."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.sparse import coo_array
from scipy.sparse.csgraph import breadth_first_order

from src.errors import StrataError
from src.topology.homology.distances import Distances
from src.topology.homology.persistence import Generators, Persistence

_Edges = set[tuple[int, int]]


@dataclass(frozen=True)
class Cycle:
    """A cycle over Z/2: every point is on an even number of its edges.

    Attributes:
        edges: pairs of points, none longer than the bar's birth.
        loops: the closed loops that the cycle falls into, the one with most points first, each as its points in
            walking order (the last is joined to the first). One loop in most cases; where there are several, the class
            is their sum, and no loop alone need stand for it.
    """

    edges: Int[np.ndarray, "edge 2"]
    loops: tuple[Int[np.ndarray, "point"], ...]

    @property
    def points(self) -> Int[np.ndarray, "point"]:
        """The points in walking order, loop after loop."""
        return np.concatenate(self.loops)


def cycle_of(found: Persistence, bar: int, distances: Distances, shorten: bool = True) -> Cycle:
    """A cycle that appears at the birth of H1 bar `bar` and is filled at its death.

    It adds up the cycles of the class's generators (the tree's path between the ends of each closing edge) and is then
    shortened within its homology class at the scale of the birth: a path through points that are all neighbours of one
    point x goes through x instead, while that takes fewer edges, or as many of less total length. The result is tight,
    not the shortest possible: to find that is hard.

    Args:
        found: diagrams with generators: backend auto or reduced.
        bar: place in `found.bars[1]`.
        distances: that `found` was computed from.
        shorten: False leaves the cycle as the generators give it.

    Raises:
        StrataError: if `found` has no generators or no such bar.
    """
    if found.generators is None:
        raise StrataError(f"backend {found.backend} with these dimensions tells no cycles: use backend auto, H1")
    if not 0 <= bar < len(found.bars[1]):
        raise StrataError(f"there is no H1 bar {bar}: this cloud has {len(found.bars[1])}, the first is 0")
    loops = _loops(_generating_edges(found.generators, bar, found.n_points))
    if shorten:
        loops = _shortened(loops, distances.matrix, np.float32(found.bars[1].birth[bar]))
    loops = sorted(loops, key=lambda loop: (-len(loop), loop))
    edges = [np.sort(np.stack([loop, np.roll(loop, -1)], axis=1), axis=1) for loop in loops]
    return Cycle(np.concatenate(edges), tuple(np.array(loop) for loop in loops))


def _generating_edges(generators: Generators, bar: int, n_points: int) -> _Edges:
    """The closing edges, and the edges of the tree that join up their ends."""
    closing = generators.of(bar)
    start, end = generators.tree.T
    tree = coo_array((np.ones(len(start)), (start, end)), shape=(n_points, n_points)).tocsr()
    order, parent = breadth_first_order(tree, 0, directed=False)
    odd = np.bincount(closing.ravel(), minlength=n_points) % 2 == 1
    edges = {(int(a), int(b)) for a, b in closing}
    for point in order[:0:-1]:  # leaves first: an odd number of ends below a point leaves by the edge above it
        if odd[point]:
            above = int(parent[point])
            odd[above] ^= True
            edges.add((min(point.item(), above), max(point.item(), above)))
    return edges


def _loops(edges: _Edges) -> list[list[int]]:
    """The edges of a cycle as closed loops, each of which passes no point twice."""
    neighbours: dict[int, list[int]] = {}
    for a, b in sorted(edges):
        neighbours.setdefault(a, []).append(b)
        neighbours.setdefault(b, []).append(a)
    loops = []
    for start in sorted(neighbours):
        while neighbours[start]:
            path, place = [start], {start: 0}
            while neighbours[start]:
                point = neighbours[path[-1]].pop(0)
                neighbours[point].remove(path[-1])
                if point in place:  # cut off the loop that closes here, and walk on from where it began
                    loops.append(path[place[point] :])
                    for each in path[place[point] + 1 :]:
                        del place[each]
                    del path[place[point] + 1 :]
                else:
                    place[point] = len(path)
                    path.append(point)
    return loops


def _edges(loops: list[list[int]]) -> _Edges:
    """The sum of closed walks over Z/2: edges that are passed an even number of times cancel."""
    edges: _Edges = set()
    for loop in loops:
        for a, b in zip(loop, loop[1:] + loop[:1], strict=True):
            edges ^= {(min(a, b), max(a, b))}
    return edges


def _shortened(loops: list[list[int]], matrix: Float[np.ndarray, "point point"], birth: np.float32) -> list[list[int]]:
    """Loops that add up to the same class among edges no longer than `birth`."""
    unfinished, done = loops, []
    while unfinished:
        loop = unfinished.pop()
        rows = matrix[loop]
        near = rows.astype(np.float32) <= birth
        if near.all(axis=0).any():  # one point fills the loop
            continue
        better = _fewer_points(loop, near) or _less_length(loop, near, rows)
        if better is None:
            done.append(loop)
        else:
            unfinished += _loops(_edges([better]))
    edges = _edges(done)
    together = _loops(edges)
    # loops that share edges, which cancel, have become another loop
    return together if len(edges) == sum(map(len, done)) else _shortened(together, matrix, birth)


def _fewer_points(loop: list[int], near: Bool[np.ndarray, "place point"]) -> list[int] | None:
    """The loop through the point that replaces most points of the loop at once; None if no point replaces two."""
    size = len(loop)
    twice = np.concatenate([near, near])  # runs of neighbours may pass the loop's beginning
    places = np.arange(1, 2 * size + 1)[:, None]
    run = places - np.maximum.accumulate(np.where(twice, 0, places), axis=0)
    last, point = divmod(int(run.argmax()), run.shape[1])
    length = int(run[last, point])
    if length < 4:
        return None
    walk = loop + loop
    return [point, *walk[last : last + size - length + 2]]


def _less_length(
    loop: list[int], near: Bool[np.ndarray, "place point"], rows: Float[np.ndarray, "place point"]
) -> list[int] | None:
    """The loop with one point replaced by the one that saves most length; None if none saves any."""
    size = len(loop)
    places = np.arange(size)
    before, after = np.roll(rows, 1, axis=0), np.roll(rows, -1, axis=0)
    length = before + after
    fits = near & np.roll(near, 1, axis=0) & np.roll(near, -1, axis=0)
    saved = np.where(fits, length[places, loop][:, None] - length, 0.0)
    place, point = divmod(int(saved.argmax()), saved.shape[1])
    # what rounding seems to save could be saved for ever
    if saved[place, point] <= 1e-9 * length[place, loop[place]]:
        return None
    return [*loop[:place], point, *loop[place + 1 :]]
