import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from src.errors import StrataError
from src.topology.homology.cocycles import Cocycles, NoCocycleError
from src.topology.homology.cycles import cycle_of
from src.topology.homology.distances import Distances
from src.topology.homology.persistence import persistence
from src.topology.loops.loops import loops_of
from tests.fixtures.planted_loops import circle, in_dimensions


def period(cocycle, walk):
    return sum(int(cocycle[a, b]) for a, b in zip(walk, [*walk[1:], walk[0]], strict=True))


@st.composite
def matrices(draw):
    n = draw(st.integers(4, 14))
    highest = draw(st.sampled_from([3, 6, 1000]))
    values = draw(st.lists(st.integers(1, highest), min_size=n * (n - 1) // 2, max_size=n * (n - 1) // 2))
    matrix = np.zeros((n, n))
    matrix[np.triu_indices(n, 1)] = values
    return Distances.precomputed(matrix + matrix.T)


@settings(max_examples=150)
@given(matrices())
def test_bars_are_those_of_persistence_and_cocycles_are_closed(distances):
    cocycles = Cocycles.of(distances)
    bars = persistence(distances).bars[1]
    lives = np.stack([cocycles.length[cocycles.generators], cocycles.length[cocycles.death]], axis=1)
    lives = lives[lives[:, 1] > lives[:, 0]]
    assert sorted(map(tuple, lives)) == sorted(map(tuple, bars.diagram))
    for birth, death in bars.diagram[:2]:
        cocycle = cocycles.dual(cocycles.generator_of(birth, death), (birth + death) / 2)
        joined = (distances.matrix <= (birth + death) / 2) & (distances.matrix > 0)
        assert (cocycle == -cocycle.T).all()
        assert not cocycle[~joined].any()
        for a, b, c in itertools.combinations(range(distances.n_points), 3):
            if joined[a, b] and joined[b, c] and joined[a, c]:
                assert cocycle[a, b] + cocycle[b, c] + cocycle[c, a] == 0


def test_periods_tell_two_loops_apart():
    turns = np.arange(12) / 12
    eight = np.concatenate([circle(turns), circle(turns[:-1] + 1 / 24, radius=0.8, centre=(1.9, 0.0))])
    distances = Distances.from_points(in_dimensions(eight, 6, 0.02, 0))
    found, cocycles = persistence(distances), Cocycles.of(distances)
    first, second = (cycle_of(found, bar, distances).loops for bar in (0, 1))
    assert len(first) == len(second) == 1
    bars = found.bars[1].diagram
    scale = max(bars[:2, 0]) + 0.01
    assert scale < min(bars[:2, 1])
    for own, other, bar in ((first[0], second[0], bars[0]), (second[0], first[0], bars[1])):
        cocycle = cocycles.dual(cocycles.generator_of(*bar), scale)
        assert abs(period(cocycle, own.tolist())) == 1
        assert period(cocycle, other.tolist()) == 0


def test_a_hole_beside_the_gap_of_a_circle_is_not_gone_around():
    # the edge that opens the hole closes a path right around the circle: the hole must have period 0 all the same
    turns = np.arange(1, 24) / 24
    hole = circle(np.arange(8) / 8, radius=0.22, centre=(1.0, 0.0))
    points = np.concatenate([circle(turns), hole])
    distances = Distances.from_points(points + np.random.default_rng(1).normal(size=points.shape) * 1e-3)
    found, cocycles = persistence(distances), Cocycles.of(distances)
    large, small = found.bars[1].diagram[:2]
    scale = (max(large[0], small[0]) + small[1]) / 2
    assert scale < large[1]
    cocycle = cocycles.dual(cocycles.generator_of(*large), scale)
    around_hole = list(range(23, 31))
    assert (distances.matrix[around_hole, np.roll(around_hole, -1)] <= scale).all()
    assert period(cocycle, around_hole) == 0
    assert abs(period(cocycle, cycle_of(found, 0, distances).points.tolist())) == 1


def test_a_bar_of_another_cloud_is_refused():
    cocycles = Cocycles.of(Distances.from_points(circle(np.arange(9) / 9)))
    with pytest.raises(StrataError, match=r"no loop of this cloud lives from 0\.1 to 0\.2"):
        cocycles.generator_of(0.1, 0.2)


@pytest.mark.parametrize(
    ("free", "purpose"), [([10_000], "cocycles of 30"), ([10**6, 1000], "relations between .* loops of 30")]
)
def test_cocycles_that_do_not_fit_in_memory_are_refused(monkeypatch, free, purpose):
    distances = Distances.from_points(np.random.default_rng(0).normal(size=(30, 400)))
    left = iter(free)
    monkeypatch.setattr("psutil.virtual_memory", lambda: type("Memory", (), {"available": next(left)}))
    with pytest.raises(StrataError, match=purpose):
        Cocycles.of(distances)


def test_a_cloud_without_loops_has_no_generators():
    cocycles = Cocycles.of(Distances.from_points(np.eye(3)))
    assert len(cocycles.generators) == 0
    with pytest.raises(StrataError, match="no loop"):
        cocycles.generator_of(1.0, 2.0)


def test_congruent_loops_have_a_coordinate_each():
    square = np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 1.0], [1.0, 0.0]])
    distances = Distances.from_points(np.concatenate([square, square + np.array([10.0, 0.0])]))
    first, second = loops_of(distances, persistence(distances), np.array([0.0, 0.0, 1.0]))
    assert (first.birth, first.death) == (second.birth, second.death)
    for loop in (first, second):
        assert set(np.flatnonzero(np.isfinite(loop.coordinate.turns)).tolist()) == set(loop.points)


def test_a_twisted_class_has_no_integer_cocycle():
    # six points, every triangle of the projective plane: its loop is a class of order 2
    faces = [
        (0, 1, 2),
        (0, 2, 3),
        (0, 3, 4),
        (0, 4, 5),
        (0, 5, 1),
        (1, 2, 4),
        (2, 3, 5),
        (3, 4, 1),
        (4, 5, 2),
        (5, 1, 3),
    ]
    # barycentric subdivision is a flag complex
    cells = [(v,) for v in range(6)] + sorted({e for f in faces for e in itertools.combinations(sorted(f), 2)})
    cells += [tuple(sorted(face)) for face in faces]
    matrix = np.array(
        [[0.0 if a == b else 1.0 if set(a) < set(b) or set(b) < set(a) else 2.0 for b in cells] for a in cells]
    )
    distances = Distances.precomputed(matrix)
    found = persistence(distances)
    assert found.bars[1].diagram.tolist() == [[1.0, 2.0]]  # over Z/2
    cocycles = Cocycles.of(distances)
    with pytest.raises(NoCocycleError, match="twisted"):
        cocycles.generator_of(1.0, 2.0)
    (loop,) = loops_of(distances, found, np.zeros(1))
    assert len(loop.points) >= 4
    assert loop.coordinate.n_uncovered == len(cells)
