import numpy as np

from src.topology.homology.copies import distinct, first_of_kind
from src.topology.homology.distances import Distances


def test_copies_point_to_the_first_of_their_kind():
    points = np.array([[0.0, 1.0], [2.0, 0.0], [0.0, 1.0], [3.0, 3.0], [2.0, 0.0], [0.0, 1.0]])
    distances = Distances.from_points(points)
    assert first_of_kind(distances).tolist() == [0, 1, 0, 3, 1, 0]
    np.testing.assert_array_equal(distinct(distances).matrix, distances.matrix[np.ix_([0, 1, 3], [0, 1, 3])])


def test_cosine_copies_are_multiples():
    points = np.array([[1.0, 2.0], [2.0, 4.0], [2.0, 1.0]])
    assert first_of_kind(Distances.from_points(points, "cosine")).tolist() == [0, 0, 2]


def test_without_copies_nothing_is_copied():
    distances = Distances.from_points(np.arange(6.0).reshape(3, 2))
    assert distinct(distances) is distances
