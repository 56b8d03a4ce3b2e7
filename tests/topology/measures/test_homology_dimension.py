import numpy as np
import pytest
from scipy.sparse.csgraph import minimum_spanning_tree

from src.errors import StrataError
from src.topology.homology.distances import Distances
from src.topology.measures.homology_dimension import homology_dimension


def sphere(d, n=400):
    points = np.random.default_rng(0).normal(size=(n, d + 1))
    return Distances.from_points(points / np.linalg.norm(points, axis=1, keepdims=True))


@pytest.mark.parametrize(("d", "lowest", "highest"), [(1, 0.9, 1.15), (2, 1.9, 2.2), (5, 4.6, 5.5), (10, 8.0, 11.0)])
def test_spheres(d, lowest, highest):
    found = homology_dimension(sphere(d), seed=0, halves=8).estimate
    assert lowest < found.value < highest
    assert found.low < found.value < found.high
    assert found.high / found.low < 1.6


def test_growth_is_of_spanning_trees():
    distances = sphere(3, 120)
    found = homology_dimension(distances, seed=0, halves=2)
    assert found.lengths[-1] == pytest.approx(minimum_spanning_tree(distances.matrix).sum(), rel=1e-12)
    assert (found.sizes[0], found.sizes[-1]) == (20, 120)
    slope = np.polyfit(np.log(found.sizes), np.log(found.lengths), 1)[0]
    assert (found.slope, found.estimate.value) == (pytest.approx(slope), pytest.approx(1 / (1 - slope)))


def test_one_seed_gives_one_estimate():
    distances = sphere(2, 90)
    first, again, other = (homology_dimension(distances, seed, halves=3).estimate for seed in (0, 0, 1))
    assert first == again
    assert first != other


def test_points_that_are_all_as_far_from_each_other_have_no_dimension():
    found = homology_dimension(Distances.precomputed(1 - np.eye(100)), seed=0, halves=2)
    # edges add up to n - 1: the slope is just above 1
    assert found.slope > 1
    assert np.isnan([found.estimate.value, found.estimate.low]).all()


def test_few_points_are_refused():
    with pytest.raises(StrataError, match="needs 80 points, there are 79"):
        homology_dimension(sphere(2, 79), seed=0)
