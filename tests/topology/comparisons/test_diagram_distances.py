"""Distances of diagrams against matchings found by SciPy, and closed forms."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_bipartite_matching

from src.errors import StrataError
from src.topology.comparisons.diagram_distances import bottleneck_distance, bottleneck_matrix, diagram_distance
from src.topology.homology.distances import Distances
from src.topology.homology.persistence import Bars, persistence


def bars(pairs, dimension=1):
    births, deaths = np.array(pairs, dtype=float).reshape(-1, 2).T
    return Bars(dimension, births, deaths)


def costs(first, second, norm):
    """Of matching each bar of one diagram with each of the other, or with the nearest point of the diagonal."""
    n, m = len(first), len(second)
    cost = np.zeros((n + m, n + m))
    to_diagonal = 0.5 if norm == np.inf else np.sqrt(0.5)
    cost[:n, :m] = np.linalg.norm(first[:, None] - second[None], ord=norm, axis=2)
    cost[:n, m:] = to_diagonal * np.diff(first)
    cost[n:, :m] = to_diagonal * np.diff(second).T
    return cost


def bottleneck(first, second):
    """The least cost at which a perfect matching is left. (gudhi.bottleneck errs on 1 in 500 small diagrams.)"""
    cost = costs(first, second, np.inf)
    for limit in np.unique(cost):
        if (maximum_bipartite_matching(csr_array(cost <= limit), perm_type="column") >= 0).all():
            return limit
    return 0.0


def assignment(first, second, order, norm):
    """Wasserstein distance by the Hungarian method."""
    cost = costs(first, second, norm)
    rows, columns = linear_sum_assignment(cost**order)
    return (cost[rows, columns] ** order).sum() ** (1 / order)


def diagram(least=0):
    finite = st.floats(0, 5, width=16)
    bar = st.tuples(finite, finite.filter(lambda length: length > 0.01)).map(lambda it: (it[0], it[0] + it[1]))
    return st.lists(bar, min_size=least, max_size=12)


@settings(max_examples=60)
@given(diagram(), diagram())
def test_distances_are_those_of_the_best_matching(first, second):
    ours, theirs = bars(first), bars(second)
    found = diagram_distance(ours, theirs)
    assert found.bottleneck == pytest.approx(bottleneck(ours.diagram, theirs.diagram), abs=1e-6)
    assert found.wasserstein_1 == pytest.approx(assignment(ours.diagram, theirs.diagram, 1, np.inf), rel=2e-3, abs=1e-6)
    euclidean = diagram_distance(ours, theirs, ground="euclidean")
    assert euclidean.wasserstein_2 == pytest.approx(assignment(ours.diagram, theirs.diagram, 2, 2), rel=2e-3, abs=1e-6)
    assert euclidean.bottleneck == found.bottleneck
    assert found.bottleneck <= found.unmatched + 1e-6


def test_scales_divide_births_and_deaths():
    first, second = bars([(1, 3), (2, 2.5)]), bars([(10, 30), (20, 25)])
    assert diagram_distance(first, second, (1, 10)).bottleneck == 0
    raw = diagram_distance(first, second)
    assert raw.bottleneck == raw.unmatched == 10
    assert raw.is_trivial
    near = diagram_distance(first, bars([(1.1, 3.2)]))
    assert near.bottleneck == pytest.approx(0.25)  # the short bar goes to the diagonal
    assert not near.is_trivial


def test_bars_that_never_die_are_matched_by_birth():
    first, second = bars([(0, np.inf), (1, np.inf), (0, 1)]), bars([(1.4, np.inf), (0.1, np.inf), (0, 1)])
    found = diagram_distance(first, second)
    assert found.n_infinite == (2, 2)
    assert found.bottleneck == pytest.approx(0.4)
    assert found.wasserstein_1 == pytest.approx(0.5)
    assert found.wasserstein_2 == pytest.approx(np.hypot(0.4, 0.1))
    unequal = diagram_distance(first, bars([(0, np.inf)]))
    assert unequal.bottleneck == unequal.wasserstein_1 == np.inf
    assert unequal.n_infinite == (2, 1)
    assert not unequal.is_trivial


def test_empty_diagrams():
    nothing, one = bars([]), bars([(1, 3)])
    assert diagram_distance(nothing, nothing).bottleneck == 0
    assert diagram_distance(nothing, one).bottleneck == diagram_distance(one, nothing).bottleneck == 1
    assert diagram_distance(one, nothing, (2, 1)).wasserstein_1 == pytest.approx(0.5)


def test_what_has_no_distance_is_refused():
    with pytest.raises(StrataError, match="dimension 0 have no distance to bars of 1"):
        diagram_distance(bars([(0, 1)], 0), bars([(0, 1)]))
    with pytest.raises(StrataError, match="scales of clouds are positive: got 1 and 0"):
        bottleneck_distance(bars([]), bars([]), (1, 0))


def test_moving_points_moves_the_diagram_no_further():
    """Stability (Cohen-Steiner, Edelsbrunner & Harer 2007): Rips diagrams move at most twice as far as the points."""
    random = np.random.default_rng(0)
    points = random.normal(size=(60, 3))
    moves = random.normal(size=(60, 3))
    moves *= 0.05 / np.linalg.norm(moves, axis=1, keepdims=True)
    found = [persistence(Distances.from_points(each)) for each in (points, points + moves)]
    for k in (0, 1):
        assert 0 < bottleneck_distance(*(each.bars[k] for each in found)) <= 0.1


def test_matrices_hold_the_distances_of_all_pairs():
    clouds = [Distances.from_points(np.random.default_rng(seed).normal(size=(25, 2))) for seed in range(4)]
    found, scales = [persistence(each).bars[1] for each in clouds], [each.median for each in clouds]
    square = bottleneck_matrix(found, found, scales, scales)
    np.testing.assert_array_equal(square, square.T)
    assert not square.diagonal().any()
    other = bottleneck_matrix(found[:2], found[2:], scales[:2], scales[2:])
    np.testing.assert_allclose(other, square[:2, 2:], atol=1e-7)
    assert square[0, 1] == bottleneck_distance(found[0], found[1], (scales[0], scales[1])) > 0
    longer = [persistence(Distances.from_points(100 * np.random.default_rng(0).normal(size=(25, 2)))).bars[1]]
    assert bottleneck_matrix(longer, found[:1], [100 * scales[0]], scales[:1])[0, 0] < 1e-5


def test_the_published_bottleneck_distance_is_half_the_longest_bar():
    data = pytest.importorskip("actopo.data")
    clouds = [Distances.from_points(data.load_example_cloud(name)[:100]) for name in ("base", "instruct")]
    found = diagram_distance(*(persistence(cloud).bars[1] for cloud in clouds))
    assert found.bottleneck == pytest.approx(0.435946, abs=1e-6)  # specification 3
    assert found.is_trivial
