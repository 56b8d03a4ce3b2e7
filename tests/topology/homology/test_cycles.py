"""Cycles are judged by linear algebra over Z/2 on the full complex, which knows nothing of the engine."""

from itertools import combinations

import numpy as np
import pytest

from src.errors import StrataError
from src.topology.homology.cycles import cycle_of
from src.topology.homology.distances import Distances
from src.topology.homology.persistence import persistence


class Complex:
    """The edges and triangles of a small cloud, as bits; scales are compared as float32."""

    def __init__(self, distances: Distances):
        length = distances.matrix.astype(np.float32)
        pairs = list(combinations(range(distances.n_points), 2))
        self.bit = {pair: 1 << place for place, pair in enumerate(pairs)}
        self.length = {pair: float(length[pair]) for pair in pairs}
        self.triangles = [
            (max(self.length[side] for side in combinations(points, 2)), self.chain(combinations(points, 2)))
            for points in combinations(range(distances.n_points), 3)
        ]

    def chain(self, edges) -> int:
        total = 0
        for a, b in edges:
            total ^= self.bit[min(a, b), max(a, b)]
        return total

    def boundaries(self, scale: float, open_end: bool = False) -> "Span":
        return Span(chain for at, chain in self.triangles if at < scale or (at == scale and not open_end))

    def cycles_before(self, scale: float) -> list[int]:
        """Generators of all cycles of edges shorter than `scale`: what each edge closes over a spanning forest."""
        paths, found = {}, []  # of each point, its component's root and the path there
        for (a, b), length in sorted(self.length.items(), key=lambda item: item[1]):
            if length >= scale:
                break
            root_a, path_a = paths.setdefault(a, (a, 0))
            root_b, path_b = paths.setdefault(b, (b, 0))
            joined = path_a ^ path_b ^ self.bit[a, b]
            if root_a == root_b:
                found.append(joined)
            for point, (root, path) in list(paths.items()):
                if root == root_b != root_a:
                    paths[point] = root_a, path ^ joined
        return found


class Span:
    """A linear space over Z/2, by its reduced basis."""

    def __init__(self, vectors=()):
        self.basis: dict[int, int] = {}
        for vector in vectors:
            self.add(vector)

    def rest(self, vector: int) -> int:
        while vector and vector.bit_length() in self.basis:
            vector ^= self.basis[vector.bit_length()]
        return vector

    def add(self, vector: int) -> bool:
        rest = self.rest(vector)
        if rest:
            self.basis[rest.bit_length()] = rest
        return bool(rest)


def small_distances(kind: str, seed: int) -> Distances:
    generator = np.random.default_rng(seed)
    if kind == "plane":
        return Distances.from_points(generator.standard_normal((22, 2)))
    if kind == "ring":
        angle = generator.uniform(0, 2 * np.pi, 18)
        ring = np.stack([np.cos(angle), np.sin(angle)], axis=1)
        return Distances.from_points(ring + 0.1 * generator.standard_normal((18, 2)))
    matrix = np.triu(generator.integers(1, 6, (16, 16)) if kind == "integer" else generator.random((16, 16)), 1)
    return Distances.precomputed(matrix + matrix.T)


CASES = [(kind, seed) for kind in ("plane", "ring", "integer", "not metric") for seed in range(4)]


@pytest.mark.parametrize("shorten", [False, True])
@pytest.mark.parametrize(("kind", "seed"), CASES)
def test_a_cycle_is_born_at_birth_and_filled_at_death_and_not_before(kind, seed, shorten):
    distances = small_distances(kind, seed)
    found, full = persistence(distances), Complex(distances)
    assert len(found.bars[1]) > 0
    for bar, (birth, death) in enumerate(found.bars[1].diagram):
        cycle = cycle_of(found, bar, distances, shorten)
        chain = full.chain(cycle.edges)
        assert not (np.bincount(cycle.edges.ravel()) % 2).any()
        assert max(full.length[tuple(edge)] for edge in cycle.edges.tolist()) <= birth
        assert full.boundaries(death).rest(chain) == 0
        assert full.boundaries(death, open_end=True).rest(chain) != 0
        older = full.boundaries(birth)
        for each in full.cycles_before(birth):
            older.add(each)
        assert older.rest(chain) != 0


@pytest.mark.parametrize(("kind", "seed"), CASES)
def test_the_cycles_of_the_bars_alive_are_a_basis_of_homology(kind, seed):
    distances = small_distances(kind, seed)
    found, full = persistence(distances), Complex(distances)
    diagram = found.bars[1].diagram
    for scale in np.unique(diagram):
        alive = np.flatnonzero((diagram[:, 0] <= scale) & (diagram[:, 1] > scale))
        space = full.boundaries(scale)
        for bar in alive:
            assert space.add(full.chain(cycle_of(found, bar, distances).edges))
        n_cycles = len(full.cycles_before(np.nextafter(scale, np.inf)))
        assert len(space.basis) == n_cycles


@pytest.mark.parametrize(("kind", "seed"), CASES[::3])
def test_shortening_keeps_the_class_and_the_loops_are_closed(kind, seed):
    distances = small_distances(kind, seed)
    found, full = persistence(distances), Complex(distances)
    for bar, birth in enumerate(found.bars[1].birth):
        long, short = cycle_of(found, bar, distances, shorten=False), cycle_of(found, bar, distances)
        assert len(short.edges) <= len(long.edges)
        assert full.boundaries(birth).rest(full.chain(long.edges) ^ full.chain(short.edges)) == 0
        for cycle in (long, short):
            walked = [tuple(sorted(edge)) for loop in cycle.loops for edge in zip(loop, np.roll(loop, -1), strict=True)]
            assert sorted(walked) == sorted(map(tuple, cycle.edges.tolist()))
            assert all(len(set(loop.tolist())) == len(loop) >= 4 - (cycle is long) for loop in cycle.loops)
            assert np.array_equal(cycle.points, np.concatenate(cycle.loops))


def test_a_circle_among_noise_is_walked_once_around():
    generator = np.random.default_rng(0)
    angle = np.sort(generator.uniform(0, 2 * np.pi, 60))
    points = generator.standard_normal((90, 5)) * 0.1
    points[:60, 0] += 5 * np.cos(angle)
    points[:60, 1] += 5 * np.sin(angle)
    distances = Distances.from_points(points)
    found = persistence(distances)
    (loop,) = cycle_of(found, 0, distances).loops
    assert (loop < 60).all()
    steps = (np.diff(angle[np.append(loop, loop[0])]) + np.pi) % (2 * np.pi) - np.pi
    assert abs(steps.sum()) == pytest.approx(2 * np.pi)
    assert len(set(np.sign(steps))) == 1  # no way back
    # the tightest loop in the complex at birth has no shortcut
    assert (distances.matrix[loop, np.roll(loop, 2)].astype(np.float32) > found.bars[1].birth[0]).all()


def test_two_rings_that_one_edge_ties_together_are_two_bars():
    angle = np.linspace(0, 2 * np.pi, 12, endpoint=False)
    ring = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    distances = Distances.from_points(np.concatenate([ring, 1.3 * ring + [8, 0]]))
    found = persistence(distances)
    assert len(found.bars[1]) == 2
    assert sorted(cycle_of(found, 0, distances).points) == list(range(12, 24))
    assert sorted(cycle_of(found, 1, distances).points) == list(range(12))


def test_errors_say_what_to_do():
    distances = small_distances("plane", 0)
    with pytest.raises(StrataError, match="use backend auto"):
        cycle_of(persistence(distances, backend="gudhi"), 0, distances)
    with pytest.raises(StrataError, match="there is no H1 bar 99"):
        cycle_of(persistence(distances), 99, distances)
