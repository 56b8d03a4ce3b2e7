import math

import numpy as np
import pytest
from actopo.data import load_example_cloud

from src.topology.homology.distances import Distances
from src.topology.homology.persistence import persistence
from src.topology.measures.catalogue import OF_POINTS, STATISTICS, WITH_INTERVALS
from src.topology.measures.measures import statistics


def measured(points, max_dimension=1, backend="auto", metric="euclidean"):
    distances = Distances.from_points(points, metric)
    found = persistence(distances, max_dimension, backend)
    return statistics(distances, found, distances.median, betti_fraction=0.06, survival_fraction=0.02)


def cloud(n=70, d=3):
    points = np.random.default_rng(0).normal(size=(n, d)) + 2
    points[[7, n - 1]] = points[3]
    return points


@pytest.mark.parametrize(
    ("name", "of_diameter", "of_median", "longest", "total", "h0_total"),
    [
        ("base", (12, 186, 452), 22, 0.631810, 53.032218, 1927.65880),
        ("instruct", (50, 316, 617), 29, 0.305964, 45.408883, 1261.76748),
    ],
)
def test_known_numbers_of_two_real_clouds(name, of_diameter, of_median, longest, total, h0_total):
    distances = Distances.from_points(load_example_cloud(name))
    found = persistence(distances)
    by_diameter = statistics(distances, found, distances.diameter, betti_fraction=0.03, survival_fraction=0.01)
    beta_1, surviving, count = of_diameter
    assert (by_diameter["beta_1"], by_diameter["h1_count"]) == (beta_1, count)
    assert by_diameter["survival_rate"] == surviving / count
    assert by_diameter["h1_max"] == pytest.approx(longest, abs=1e-6)
    assert by_diameter["h1_total"] == pytest.approx(total, abs=1e-4)
    assert (by_diameter["beta_0"], by_diameter["h0_infinite"]) == (600, 1)
    assert by_diameter["h0_total"] == pytest.approx(h0_total, rel=1e-6)
    assert by_diameter["h0_normalised"] == pytest.approx(h0_total / 599 / distances.median, rel=1e-6)
    by_median = statistics(distances, found, distances.median, betti_fraction=0.06, survival_fraction=0.02)
    assert by_median["beta_1"] == of_median
    assert by_median["diameter_over_median"] == pytest.approx({"base": 2.28, "instruct": 1.73}[name], abs=0.005)


def test_every_statistic_has_its_entry():
    rest = {*OF_POINTS, *WITH_INTERVALS, *(name for name in STATISTICS if name[:3] in ("h2_", "h3_"))}
    assert set(measured(cloud())) == set(STATISTICS) - rest | {"two_nn", "levina_bickel"}
    assert {name for name, entry in STATISTICS.items() if entry.name != name or not entry.meaning} == set()
    assert {"h2_count", "h2_entropy"} <= set(measured(cloud(25), max_dimension=2)) <= set(STATISTICS)
    assert "beta_1" not in measured(cloud(), max_dimension=0)


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_what_is_said_to_be_free_of_scale_is_and_distances_grow_with_the_unit(metric):
    points = cloud()
    distances = Distances.from_points(points, metric)
    larger = Distances(4.0 * distances.matrix, metric)  # a power of two: rounding stays the same
    before, after = (
        statistics(one, persistence(one), one.median, betti_fraction=0.06, survival_fraction=0.02)
        for one in (distances, larger)
    )
    for name, value in before.items():
        factor = 1 if STATISTICS[name].scale_free else 4
        assert after[name] == pytest.approx(factor * value, rel=1e-9, nan_ok=True), name
        assert (STATISTICS[name].unit == "distance") == (factor == 4), name
        assert STATISTICS[name].unit != "share" or 0 <= value <= 1, name


def test_backends_without_edges_give_the_same():
    own, other = measured(cloud()), measured(cloud(), backend="gudhi")
    assert own == pytest.approx(other, rel=1e-6, nan_ok=True)


def test_copies_are_counted_and_make_no_dimension_and_no_bar():
    points = cloud()
    found, without = measured(points), measured(np.delete(points, [7, 69], axis=0))
    assert found["n_duplicates"] == 2
    assert found["h0_count"] == without["h0_count"] == 67
    for name in ("two_nn", "levina_bickel", "hubness", "reciprocity", "mst_leaf_share", "beta_0", "beta_1"):
        assert found[name] == pytest.approx(without[name], rel=1e-9), name
    assert found["mst_mean"] == pytest.approx(without["mst_mean"] * 67 / 69)


def test_a_cloud_of_one_point_many_times():
    found = measured(np.ones((20, 3)))
    assert (found["n_duplicates"], found["beta_0"], found["beta_1"], found["h1_max"]) == (19, 1, 0, 0)
    assert math.isnan(found["survival_rate"])
    assert math.isnan(found["h0_normalised"])
    assert math.isnan(found["two_nn"])


def test_small_clouds_have_no_neighbourhoods():
    found = measured(cloud(10))
    assert math.isnan(found["knn_mean"])
    assert math.isnan(found["hubness"])
    assert found["beta_0"] > 0


def test_thresholds_are_strict():
    # a square: its loop is born at 1 and dies at sqrt(2)
    distances = Distances.from_points(np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]]))
    found = persistence(distances)
    lifetime = float(found.bars[1].lifetimes[0])
    assert lifetime == pytest.approx(math.sqrt(2) - 1, rel=1e-6)
    at, below = (
        statistics(distances, found, 1.0, fraction, fraction) for fraction in (lifetime, lifetime * (1 - 1e-9))
    )
    assert (at["beta_1"], at["survival_rate"]) == (0, 0)
    assert (below["beta_1"], below["survival_rate"]) == (1, 1)
    assert at["h1_max_ratio"] == pytest.approx(math.sqrt(2), rel=1e-6)
