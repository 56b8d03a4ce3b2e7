"""Statistics without the most outlying points: planted outliers, and the finding on a published cloud."""

import numpy as np
import pytest
from actopo.data import load_example_cloud

from src.errors import StrataError
from src.topology.homology.distances import Distances
from src.topology.homology.persistence import persistence
from src.topology.inference.sensitivity import most_outlying, outlier_sensitivity
from src.topology.measures.measures import statistics


def diameter(distances, found):
    return {"diameter": distances.diameter, "n": float(found.n_points), "nothing": 0.0}


def test_a_pair_of_outliers_that_are_near_each_other_is_found():
    points = np.random.default_rng(0).standard_normal((100, 3))
    points[[40, 7]] = [[50.0, 0, 0], [50.1, 0, 0]]
    assert set(most_outlying(Distances.from_points(points), 0.02)) == {7, 40}
    found = outlier_sensitivity(Distances.from_points(points), diameter, 0.02)
    assert found.statistics["diameter"].with_all > 45
    assert found.statistics["diameter"].without < 10
    assert found.statistics["diameter"].relative_change < -0.8
    assert (found.statistics["n"].without, found.statistics["n"].change) == (98, -2)
    assert np.isnan(found.statistics["nothing"].relative_change)


def test_one_point_at_least_is_left_out_most_outlying_first():
    points = np.random.default_rng(0).standard_normal((30, 2))
    points[4] = 30.0
    assert most_outlying(Distances.from_points(points)).tolist() == [4]
    points[9] = -20.0
    assert most_outlying(Distances.from_points(points), 0.07).tolist() == [4, 9]


def test_known_diagrams_are_used():
    distances = Distances.from_points(np.random.default_rng(0).standard_normal((20, 2)))
    other = persistence(distances.among(range(7)))
    assert outlier_sensitivity(distances, diameter, found=other).statistics["n"].with_all == 7


@pytest.mark.parametrize("share", [0.0, 1.0, 0.9])
def test_too_large_or_small_a_share_is_refused(share):
    distances = Distances.from_points(np.random.default_rng(0).standard_normal((10, 2)))
    with pytest.raises(StrataError, match="must leave 3"):
        most_outlying(distances, share)


def test_the_published_count_rests_on_six_points():
    # actopo's threshold, 0.03 of the diameter: beta_1 of its example cloud is 12 of 600 points, 32 of 594
    distances = Distances.from_points(load_example_cloud("base").astype(np.float64))
    found = outlier_sensitivity(distances, lambda d, each: statistics(d, each, d.diameter, 0.03, 0.01))
    beta_1 = found.statistics["beta_1"]
    assert (beta_1.with_all, beta_1.without, len(found.left_out)) == (12, 32, 6)
    assert beta_1.relative_change == pytest.approx(20 / 12)
