import math

import numpy as np
import pytest
from scipy.stats import skew
from sklearn.neighbors import NearestNeighbors, kneighbors_graph

from src.errors import StrataError
from src.topology.homology.distances import Distances
from src.topology.measures.neighbours import Neighbours, neighbour_distances, neighbour_graph

POINTS = np.random.default_rng(0).normal(size=(90, 12))


def test_neighbours_are_those_of_scikit_learn():
    found = Neighbours.of(Distances.from_points(POINTS), 7)
    distance, index = NearestNeighbors(n_neighbors=7).fit(POINTS).kneighbors()
    np.testing.assert_array_equal(found.index, index)
    np.testing.assert_allclose(found.distance, distance, rtol=1e-12)
    np.testing.assert_array_equal(found.nearest(3).index, index[:, :3])
    assert (found.n_points, found.k, found.nearest(3).k) == (90, 7, 3)


@pytest.mark.parametrize("k", [1, 4, 29])
def test_ties_go_by_index(k):
    distances = Distances.from_points(np.random.default_rng(0).integers(0, 3, size=(30, 2)))
    others = distances.matrix + np.diag(np.full(30, np.inf))
    expected = np.argsort(others, axis=1, kind="stable")[:, :k]
    np.testing.assert_array_equal(distances.nearest(k)[1], expected)


def test_more_neighbours_than_there_are_are_refused():
    with pytest.raises(StrataError, match="90 nearest neighbours were asked for among 90 points"):
        Neighbours.of(Distances.from_points(POINTS), 90)


def test_distances_to_neighbours():
    lengths = NearestNeighbors(n_neighbors=10).fit(POINTS).kneighbors()[0]
    found = neighbour_distances(Neighbours.of(Distances.from_points(POINTS), 10), scale=4.0)
    truth = {
        "knn_mean": lengths.mean(),
        "knn_sd": lengths.std(),
        "knn_q05": np.quantile(lengths, 0.05),
        "knn_median": np.median(lengths),
        "knn_q95": np.quantile(lengths, 0.95),
    }
    assert found == pytest.approx(truth | {f"{name}_scaled": value / 4 for name, value in truth.items()})


def test_hubs_orphans_and_mutual_pairs():
    graph = kneighbors_graph(POINTS, 10).toarray().astype(bool)
    occurrences = graph.sum(axis=0)
    found = neighbour_graph(Neighbours.of(Distances.from_points(POINTS), 10))
    assert found["hubness"] == pytest.approx(skew(occurrences))
    assert found["hubness"] > 0.3  # twelve dimensions have hubs
    assert found["largest_hub"] == occurrences.max() / 10
    assert found["orphan_share"] == (occurrences == 0).mean()
    assert found["reciprocity"] == pytest.approx((graph & graph.T).sum() / graph.sum())


def test_points_around_a_circle_have_no_hubs_and_mutual_neighbours():
    steps = np.abs(np.arange(12)[:, None] - np.arange(12))
    # distances as counted steps, so that both neighbours tie exactly
    distances = Distances.precomputed(np.minimum(steps, 12 - steps).astype(float))
    found = neighbour_graph(Neighbours.of(distances, 2))
    assert (found["largest_hub"], found["orphan_share"], found["reciprocity"]) == (1, 0, 1)
    assert math.isnan(found["hubness"])


def test_distances_have_no_units_of_a_scale_of_0():
    found = neighbour_distances(Neighbours.of(Distances.from_points(np.ones((5, 2))), 2), scale=0.0)
    assert found["knn_mean"] == 0
    assert math.isnan(found["knn_mean_scaled"])
