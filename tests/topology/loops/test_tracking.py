import numpy as np
import pytest

from src.errors import StrataError
from src.topology.homology.distances import Distances
from src.topology.homology.persistence import persistence
from src.topology.loops.loops import loops_of
from src.topology.loops.tracking import similarity, track_loops
from tests.fixtures.planted_loops import circle, in_dimensions, noisy_circle

N = 30
ANGLES = np.arange(N) / N


def layer(radius, other_radius, seed):
    """Two groups of points far apart, each a circle of its own size (0: a blob), in a fresh embedding with noise."""
    flat = np.concatenate([circle(ANGLES, radius), circle(ANGLES, other_radius, centre=(9.0, 0.0))])
    return in_dimensions(flat, 10, 0.04, seed)


def loops(points, at_most=3):
    distances = Distances.from_points(points)
    found = persistence(distances)
    return loops_of(distances, found, np.linspace(0.1, 0.9, len(found.bars[1])), level=1, at_most=at_most)


def test_loops_that_persist_appear_and_vanish():
    sizes = [(0, 0), (1, 0), (1.2, 1), (1, 0.8), (0, 1), (0, 0)]
    tracks = track_loops(range(6), [loops(layer(one, other, seed)) for seed, (one, other) in enumerate(sizes)])
    strong = [track for track in tracks if max(loop.ratio for loop in track.loops) > 2]
    assert [(track.birth_layer, track.death_layer) for track in strong] == [(1, 3), (2, 4)]
    first, second = strong
    assert all(max(loop.points) < N for loop in first.loops)
    assert all(min(loop.points) >= N for loop in second.loops)
    assert min(first.similarity + second.similarity) > 0.9
    # loops of noise do not live on
    assert all(len(track.layers) <= 2 for track in tracks if track not in strong)


def test_a_loop_through_other_points_in_other_order_is_another_one():
    _, points = noisy_circle(n=40, noise=0.02)
    shuffled = points[np.random.default_rng(0).permutation(40)]
    (loop,), (other,) = loops(points, 1), loops(shuffled, 1)
    assert similarity(loop, loop) == pytest.approx(1)
    assert similarity(loop, other) < 0.3
    assert [track.layers for track in track_loops([3, 5], [[loop], [other]])] == [[3], [5]]


def test_the_best_pairs_are_joined():
    _, points = noisy_circle(n=40, noise=0.02)
    (loop,) = loops(points, 1)
    (rough,) = loops(points + 0.1 * np.random.default_rng(1).normal(size=points.shape), 1)
    assert 0.5 < similarity(loop, rough) < 1
    tracks = track_loops([0, 1], [[loop, rough], [rough, loop]])
    assert [track.similarity for track in tracks] == [pytest.approx([1.0]), pytest.approx([1.0])]
    assert tracks[0].loops[1] is loop


def test_layers_without_loops_end_tracks():
    _, points = noisy_circle(n=30, noise=0.02)
    (loop,) = loops(points, 1)
    tracks = track_loops([0, 1, 2], [[loop], [], [loop]])
    assert [track.layers for track in tracks] == [[0], [2]]
    assert track_loops([0, 1], [[], []]) == []


def test_what_cannot_be_tracked_is_refused():
    small, large = loops(noisy_circle(n=30)[1], 1), loops(noisy_circle(n=31)[1], 1)
    with pytest.raises(StrataError, match=r"clouds with \[30, 31\] points"):
        track_loops([0, 1], [small, large])
    with pytest.raises(StrataError, match="rising order"):
        track_loops([1, 0], [small, small])
