import numpy as np
import pytest
from scipy.sparse.csgraph import minimum_spanning_tree

from src.topology.comparisons.union_picture import union_picture
from src.topology.homology.distances import Distances
from src.topology.homology.persistence import persistence


def picture_of(points, n_first):
    distances = Distances.from_points(points)
    return union_picture(points, n_first, distances, persistence(distances))


def test_the_edges_between_clouds_are_those_of_the_spanning_tree():
    random = np.random.default_rng(0)
    points = random.normal(size=(60, 5))
    picture = picture_of(points, 25)
    tree = minimum_spanning_tree(Distances.from_points(points).matrix).tocoo()
    crossing = {
        (min(a, b), max(a, b))
        for a, b in zip(tree.row.tolist(), tree.col.tolist(), strict=True)
        if (a < 25) != (b < 25)
    }
    assert {(min(edge), max(edge)) for edge in picture.cross_edges.tolist()} == crossing
    assert len(crossing) > 5


def test_clouds_that_lie_apart_are_joined_once_along_the_first_component():
    random = np.random.default_rng(1)
    points = random.normal(size=(40, 6))
    points[15:, 2] += 100
    picture = picture_of(points, 15)
    assert len(picture.cross_edges) == 1
    assert picture.n_first == 15
    first, second = picture.places[:15, 0], picture.places[15:, 0]
    assert abs(first.mean() - second.mean()) == pytest.approx(100, rel=0.05)
    singular = np.linalg.svd(points - points.mean(axis=0), compute_uv=False) ** 2
    assert picture.share == pytest.approx(singular[:2].sum() / singular.sum())


def test_a_line_has_a_picture():
    picture = picture_of(np.arange(6.0)[:, None], 3)
    assert picture.places.shape == (6, 2)
    assert picture.share == pytest.approx(1)
    assert len(picture.cross_edges) == 1
