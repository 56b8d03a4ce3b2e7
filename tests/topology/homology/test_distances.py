import numpy as np
import pytest
from scipy.spatial.distance import cdist

from src.errors import StrataError
from src.topology.homology import distances as module
from src.topology.homology.distances import Distances


def cloud(n_points: int, d: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n_points, d))


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("n_points", [3, 127, 128, 129, 300])
def test_distances_are_scipys(metric, n_points):
    points = cloud(n_points, 7)
    matrix = Distances.from_points(points, metric).matrix
    np.testing.assert_allclose(matrix, cdist(points, points, metric), rtol=1e-12, atol=1e-15)
    assert np.array_equal(matrix, matrix.T)
    assert not matrix.diagonal().any()


@pytest.mark.parametrize(
    "shift", [np.array([1e4]), np.concatenate([[3000.0, -1500.0], np.zeros(30)])], ids=["offset", "massive dimensions"]
)
def test_a_large_common_mean_costs_no_digits(shift):
    points = cloud(150, 32)
    matrix = Distances.from_points(points + shift).matrix
    # what adding the shift rounds off the points themselves
    np.testing.assert_allclose(matrix, cdist(points, points), rtol=0, atol=1e-11)


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_massive_dimensions_that_vary_and_copies_of_points(metric):
    generator = np.random.default_rng(0)
    points = cloud(200, 16)
    points[:, 0] += 3000 + 100 * generator.standard_normal(200)
    points[:, 1] -= 1500
    points[generator.permutation(200)[:120]] = points[0]
    points[7] = points[9] + 1e-9  # near, but no copy
    distances = Distances.from_points(points, metric)
    copies = (points[:, None] == points[None]).all(axis=2)
    expected = (
        cdist(points, points)
        if metric == "euclidean"
        else np.square(cdist(*2 * [points / np.linalg.norm(points, axis=1)[:, None]])) / 2
    )
    atol = 1e-12 if metric == "euclidean" else 1e-22  # of centring; of squares of unit vectors
    np.testing.assert_allclose(distances.matrix, expected, rtol=1e-9, atol=atol)
    assert copies.sum() > 120**2
    assert np.array_equal(distances.matrix == 0, copies)
    assert np.array_equal(distances.matrix, distances.matrix.T)


def test_scales_of_a_cloud():
    points = cloud(140, 4)
    distances = Distances.from_points(points)
    pairs = np.sort(distances.matrix[np.triu_indices(140, 1)])
    assert np.array_equal(distances.pairs, pairs)
    assert distances.diameter == pairs[-1]
    assert distances.median == np.median(pairs)
    assert distances.quantile(0.99) == np.quantile(pairs, 0.99)
    assert distances.enclosing_radius == min(max(row) for row in distances.matrix.tolist())
    assert np.array_equal(distances.among([5, 2]).matrix, distances.matrix[[5, 2]][:, [5, 2]])
    assert np.array_equal(distances.between([5, 2], [1]), distances.matrix[[5, 2]][:, [1]])


def test_nearest_are_sorted_and_leave_the_point_itself_out():
    points = np.random.default_rng(0).integers(0, 4, (300, 2)).astype(float)  # ties and copies
    distances = Distances.from_points(points)
    length, index = distances.nearest(6)
    for point in range(300):
        others = [other for other in range(300) if other != point]
        others.sort(key=lambda other: (distances.matrix[point, other], other))
        assert index[point].tolist() == others[:6]
    assert np.array_equal(length, np.take_along_axis(distances.matrix, index, axis=1))
    with pytest.raises(StrataError, match="300 nearest neighbours"):
        distances.nearest(300)


@pytest.mark.parametrize(
    ("points", "said"),
    [
        (np.zeros(5), "a matrix of points by dimensions"),
        (np.zeros((2, 5)), "3 or more points"),
        (np.array([[0.0], [np.nan], [np.inf]]), "2 of 3 points are not finite, the first is point 1"),
        (np.array([[0.0], [1e160], [1.0]]), "the largest coordinate, 1e\\+160, has no square"),
    ],
)
def test_clouds_that_are_none_are_refused(points, said):
    with pytest.raises(StrataError, match=said):
        Distances.from_points(points)


def test_multiples_of_a_vector_are_copies_by_their_cosine():
    points = np.random.default_rng(0).normal(size=(20, 50))
    matrix = Distances.from_points(np.concatenate([points, 3 * points, points / 10]), "cosine").matrix
    assert (matrix == 0).sum() == 20 * 3 * 3


def test_a_point_without_direction_has_no_cosine_distance():
    with pytest.raises(StrataError, match="point 1 is zero"):
        Distances.from_points(np.array([[1.0, 0], [0, 0], [0, 1]]), "cosine")


@pytest.mark.parametrize(
    ("matrix", "said"),
    [
        (np.zeros((2, 3)), "square"),
        (np.array([[0, np.inf], [np.inf, 0]]), "not finite"),
        (np.array([[0, -1.0], [-1.0, 0]]), "no negative value"),
        (np.array([[1.0, 1], [1, 0]]), "zeros on its diagonal"),
        (np.array([[0, 1.0], [1 + 1e-15, 0]]), "not exactly symmetric"),
    ],
)
def test_matrices_that_are_no_distances_are_refused(matrix, said):
    with pytest.raises(StrataError, match=said):
        Distances.precomputed(matrix)


def test_distances_that_do_not_fit_in_memory_are_refused_before_they_are_taken(monkeypatch):
    monkeypatch.setattr("psutil.virtual_memory", lambda: type("Memory", (), {"available": 10_000}))
    with pytest.raises(StrataError, match=r"the distances of 40 points need 13.4 kB of memory, and 9.8 kB are free"):
        Distances.from_points(np.ones((40, 3)))
    assert module.Distances.from_points(np.ones((20, 3))).n_points == 20
