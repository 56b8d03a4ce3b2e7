import json

import numpy as np
import pytest

from src.errors import StrataError
from src.topology.homology.distances import Distances
from src.topology.homology.persistence import persistence
from src.topology.loops.loops import Loop, cycle_test, loops_of
from tests.fixtures.planted_loops import agreement, circle, in_dimensions, noisy_circle


def measured(points):
    distances = Distances.from_points(points)
    return distances, persistence(distances)


def only_first(found, p=0.001):
    return np.where(np.arange(len(found.bars[1])) == 0, p, 0.9)


def test_the_points_of_a_planted_circle_are_on_its_loop_in_their_order():
    turns, points = noisy_circle(n=40, noise=0.02)
    blob = 3 + 0.02 * np.random.default_rng(1).normal(size=(10, points.shape[1]))
    distances, found = measured(np.concatenate([points, blob]))
    (loop,) = loops_of(distances, found, only_first(found))
    assert (loop.bar, loop.p) == (0, 0.001)
    assert loop.ratio == found.bars[1].death[0] / found.bars[1].birth[0] > 2
    assert max(loop.points) < 40
    around = np.mod(np.diff(turns[list(loop.points)], append=turns[loop.points[0]]) + 0.5, 1) - 0.5
    assert abs(around.sum()) == pytest.approx(1)
    assert (around > 0).all() or (around < 0).all()
    assert agreement(loop.coordinate.turns[:40], turns) > 0.97


def test_no_loop_is_found_where_none_is_significant():
    distances, found = measured(np.random.default_rng(0).normal(size=(30, 5)))
    assert loops_of(distances, found, np.full(len(found.bars[1]), 0.2)) == []
    assert loops_of(distances, found, np.full(len(found.bars[1]), np.nan), level=1) == []
    distances, found = measured(np.eye(5))
    assert loops_of(distances, found, np.empty(0)) == []


def test_as_many_loops_as_are_asked_for():
    distances, found = measured(np.random.default_rng(0).normal(size=(40, 5)))
    p = np.linspace(0.5, 0.9, len(found.bars[1]))
    assert [loop.bar for loop in loops_of(distances, found, p, level=1, at_most=2)] == [0, 1]
    with pytest.raises(StrataError, match="3 p-values were given"):
        loops_of(distances, found, np.zeros(3))


def test_a_loop_survives_its_file():
    _, points = noisy_circle(n=30, noise=0.02)
    points = np.concatenate([points, np.full((1, points.shape[1]), 9.0)])
    distances, found = measured(points)
    loop = loops_of(distances, found, only_first(found))[0]
    written = json.loads(json.dumps(loop.as_json([{"token": f"t{point}"} for point in range(31)]), allow_nan=False))
    assert [each["token"] for each in written["walks"][0]] == [f"t{point}" for point in loop.walks[0]]
    assert written["coordinate"]["uncovered"] == 1
    read = Loop.from_json(written)
    assert (read.bar, read.birth, read.death, read.p, read.walks) == (
        loop.bar,
        loop.birth,
        loop.death,
        loop.p,
        loop.walks,
    )
    assert np.allclose(read.coordinate.turns, loop.coordinate.turns, atol=1e-6, equal_nan=True)


def test_labels_in_their_order_around_a_loop():
    random = np.random.default_rng(0)
    labels = np.repeat(np.arange(7), 6)
    points = in_dimensions(circle(labels / 7 + 0.02 * random.normal(size=42)), 8, 0.05, 0)
    distances, found = measured(points)
    loop = loops_of(distances, found, only_first(found, 0.01))[0]
    test = cycle_test(loop, labels, 7)
    assert test is not None
    assert test.order.in_order
    assert abs(test.correlation.value) > 0.95
    assert test.explained is not None
    assert test.explained.value > 0.95
    # -2 (ln 0.01 + ln 1/360) under chi-squared with 4 degrees of freedom
    product = 0.01 / 360
    assert test.p == pytest.approx(product * (1 - np.log(product)))
    mixed = cycle_test(loop, np.array([0, 3, 1, 5, 2, 6, 4])[labels], 7)
    assert mixed is not None
    assert not mixed.order.in_order
    assert mixed.p > 0.01


def test_classes_of_one_point_have_no_explained_variance():
    distances, found = measured(circle(np.arange(7) / 7))
    loop = loops_of(distances, found, only_first(found))[0]
    test = cycle_test(loop, np.arange(7), 7)
    assert test is not None
    assert test.explained is None
    assert test.order.in_order


def test_a_loop_that_does_not_reach_every_class_is_no_circle_of_them():
    points = np.concatenate([circle(np.arange(7) / 7), [[20.0, 0.0]]])
    distances, found = measured(points)
    loop = loops_of(distances, found, only_first(found))[0]
    assert cycle_test(loop, np.arange(8), 8) is None
