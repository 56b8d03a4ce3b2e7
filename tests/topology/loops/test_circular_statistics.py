import itertools

import numpy as np
import pytest

from src.errors import StrataError
from src.topology.loops.circular_statistics import (
    circular_correlation,
    cyclic_correlation,
    explained_by_label,
    order_test,
    orders_by_adjacency,
)

RANDOM = np.random.default_rng(0)
TURNS = RANDOM.uniform(size=50)


def test_correlation_is_the_sum_over_pairs():
    first, second = TURNS, np.mod(0.3 - TURNS + 0.1 * RANDOM.normal(size=50), 1)

    def sines(turns):
        return np.sin(2 * np.pi * (turns[:, None] - turns[None, :]))

    a, b = sines(first), sines(second)
    expected = (a * b).sum() / np.sqrt((a**2).sum() * (b**2).sum())
    assert circular_correlation(first, second) == pytest.approx(expected)
    assert expected < -0.5


@pytest.mark.parametrize(("shift", "sign"), [(0.2, 1), (0.7, -1)])
def test_correlation_knows_neither_zero_nor_direction(shift, sign):
    labels = np.arange(7) / 7
    found = cyclic_correlation(np.mod(sign * labels + shift, 1), labels)
    assert found.value == pytest.approx(sign)
    # 14 of 5040 orders are as good: rotations and reflections
    assert found.p == pytest.approx(14 / 5040, abs=0.005)


def test_points_without_a_coordinate_are_left_out():
    turns = np.append(TURNS, np.nan)
    found = cyclic_correlation(turns, np.append(TURNS, 0.5), draws=99)
    assert (found.n_points, found.p) == (50, 0.01)
    assert found.value == pytest.approx(1)


def test_p_is_uniform_where_labels_say_nothing():
    p = [cyclic_correlation(RANDOM.uniform(size=20), RANDOM.uniform(size=20), 99, seed).p for seed in range(200)]
    assert 0.02 < np.mean(np.array(p) <= 0.05) < 0.1
    assert np.mean(p) == pytest.approx(0.5, abs=0.08)


def test_explained_variance_is_that_of_a_regression_on_classes():
    labels = np.array(["x", "y", "z", "z", "y"] * 10)
    turns = np.mod(TURNS / 4 + (labels == "z") / 3, 1)
    waves = np.stack([np.cos(2 * np.pi * turns), np.sin(2 * np.pi * turns)], axis=1)
    classes = (labels[:, None] == np.unique(labels)).astype(float)
    left = waves - classes @ np.linalg.lstsq(classes, waves, rcond=None)[0]
    found = explained_by_label(turns, labels)
    assert found.value == pytest.approx(1 - (left**2).sum() / ((waves - waves.mean(0)) ** 2).sum())
    assert found.p == 0.001
    assert found.null_mean == pytest.approx(2 / 49, abs=0.01)  # (classes - 1) / (n - 1)


@pytest.mark.parametrize("k", [4, 5, 6, 7])
def test_numbers_of_orders_are_those_of_all_orders(k):
    counts = [0] * (k + 1)
    for rest in itertools.permutations(range(1, k)):
        order = (0, *rest)
        counts[sum((order[(i + 1) % k] - order[i]) % k in (1, k - 1) for i in range(k))] += 1
    assert list(orders_by_adjacency(k)) == [count // 2 for count in counts]


@pytest.mark.parametrize("sign", [1, -1])
def test_classes_in_order_are_one_of_360(sign):
    labels = np.repeat(np.arange(7), 5)
    turns = np.mod(sign * labels / 7 + 0.4 + 0.02 * RANDOM.normal(size=35), 1)
    found = order_test(turns, labels, 7)
    assert found.in_order
    assert found.order == tuple(range(7))
    assert found.p == 1 / 360


def test_two_classes_that_changed_places_are_seen():
    labels = np.arange(8)
    places = np.array([0, 1, 3, 2, 4, 5, 6, 7]) / 8
    found = order_test(places, labels, 8)
    assert not found.in_order
    assert found.order == (0, 1, 3, 2, 4, 5, 6, 7)
    assert found.n_adjacent == 6
    assert found.p == pytest.approx(21 / 2520)  # 20 orders keep six neighbours, and the given one keeps all


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(StrataError, match="50 points have a coordinate, and 3 a label"):
        explained_by_label(TURNS, np.zeros(3))
    with pytest.raises(StrataError, match="only 2 points"):
        cyclic_correlation(np.array([0.1, 0.2, np.nan]), np.zeros(3))
    with pytest.raises(StrataError, match="no correlation"):
        cyclic_correlation(TURNS, np.full(50, 0.3))
    with pytest.raises(StrataError, match="no variance"):
        explained_by_label(np.full(50, 0.25), np.arange(50))
    with pytest.raises(StrataError, match="4 or more"):
        order_test(TURNS[:3], np.arange(3), 3)
    with pytest.raises(StrataError, match="all 7 classes"):
        order_test(TURNS[:6], np.arange(6), 7)
