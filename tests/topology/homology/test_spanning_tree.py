import math

import numpy as np
import pytest
from scipy.sparse.csgraph import connected_components, minimum_spanning_tree
from scipy.stats import skew

from src.topology.homology.distances import Distances
from src.topology.homology.persistence import Bars, Persistence, persistence
from src.topology.homology.spanning_tree import prim, spanning_tree, tree_statistics


def cloud(n=80, d=3, seed=0):
    return np.random.default_rng(seed).normal(size=(n, d))


def with_copies():
    points = cloud(60)
    points[[10, 31, 59]] = points[4]
    points[22] = points[21]
    return points


@pytest.mark.parametrize("seed", range(3))
def test_lengths_are_those_of_scipy(seed):
    distances = Distances.from_points(cloud(seed=seed))
    truth = np.sort(minimum_spanning_tree(distances.matrix).data)
    np.testing.assert_allclose(np.sort(prim(distances.matrix)[0]), truth, rtol=1e-14)
    by_engine = spanning_tree(distances, persistence(distances))
    np.testing.assert_allclose(by_engine.lengths[::-1], truth, rtol=1e-6)
    assert by_engine.lengths.sum() == pytest.approx(truth.sum(), rel=1e-8)


def test_lengths_are_the_finite_bars_of_dimension_0_and_zeros_of_copies():
    distances = Distances.from_points(with_copies())
    deaths = persistence(distances).bars[0].death
    tree = spanning_tree(distances)
    np.testing.assert_allclose(tree.lengths[:55], deaths[np.isfinite(deaths)], rtol=1e-6)
    assert tree.lengths[55:].tolist() == [0] * 4
    assert tree.n_distinct == 56


@pytest.mark.parametrize("by_engine", [True, False])
def test_copies_are_called_by_the_first_of_their_kind(by_engine):
    distances = Distances.from_points(with_copies())
    tree = spanning_tree(distances, persistence(distances) if by_engine else None)
    assert tree.edges.shape == (55, 2)
    assert not {10, 31, 59, 22} & set(tree.edges.ravel().tolist())
    np.testing.assert_array_equal(distances.matrix[tree.edges[:, 0], tree.edges[:, 1]], tree.lengths[:55])
    joined = np.zeros((60, 60))
    joined[tree.edges[:, 0], tree.edges[:, 1]] = 1
    assert connected_components(joined, directed=False)[0] == 5  # the tree, and the four copies


def test_edges_at_several_copies_meet_in_the_first():
    distances = Distances.from_points(np.array([[0.0], [1.0], [1.0], [3.0]]))
    edges = np.array([[-1, -1], [1, 3], [0, 2]])  # the tree's path runs through both copies
    found = Persistence(4, (Bars(0, np.zeros(3), np.array([np.inf, 2.0, 1.0]), None, edges),), "reduced")
    tree = spanning_tree(distances, found)
    assert tree.edges.tolist() == [[1, 3], [0, 1]]
    assert tree.lengths.tolist() == [2, 1, 0]
    assert tree_statistics(tree)["mst_leaf_share"] == pytest.approx(2 / 3)


def test_points_on_a_line_have_a_path_for_a_tree():
    tree = spanning_tree(Distances.from_points(np.array([[0.0], [1.0], [3.0], [6.0], [6.0]])))
    found = tree_statistics(tree)
    lengths = np.array([3.0, 2.0, 1.0, 0.0])
    assert tree.lengths.tolist() == lengths.tolist()
    assert (found["mst_mean"], found["mst_sd"]) == (1.5, pytest.approx(lengths.std()))
    assert found["mst_cv"] == pytest.approx(lengths.std() / 1.5)
    assert found["mst_skew"] == pytest.approx(skew(lengths), abs=1e-12)
    assert found["mst_gini"] == pytest.approx(np.abs(lengths[:, None] - lengths).mean() / (2 * 1.5))
    assert (found["mst_leaf_share"], found["mst_max_degree"]) == (0.5, 2)


def test_a_star_is_all_leaves_but_its_hub():
    star = np.full((6, 6), 2.0)
    star[0] = star[:, 0] = 1
    np.fill_diagonal(star, 0)
    found = tree_statistics(spanning_tree(Distances.precomputed(star)))
    assert (found["mst_leaf_share"], found["mst_max_degree"], found["mst_gini"]) == (pytest.approx(5 / 6), 5, 0)
    assert math.isnan(found["mst_skew"])


def test_uniform_points_in_the_plane_have_the_known_share_of_leaves():
    points = np.random.default_rng(0).random((2000, 2))
    found = tree_statistics(spanning_tree(Distances.from_points(points)))
    assert found["mst_leaf_share"] == pytest.approx(0.221, abs=0.02)


def test_a_cloud_of_one_point_many_times_has_no_length():
    found = tree_statistics(spanning_tree(Distances.from_points(np.ones((5, 2)))))
    assert (found["mst_mean"], found["mst_sd"]) == (0, 0)
    assert math.isnan(found["mst_cv"])
    assert math.isnan(found["mst_leaf_share"])
