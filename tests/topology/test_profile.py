"""profile_cloud: what is composed for one cloud, on clouds whose shape is known; and clouds that have none."""

from dataclasses import replace

import numpy as np
import pytest

from src.errors import StrataError
from src.topology.homology.distances import Distances
from src.topology.homology.persistence import persistence
from src.topology.measures.measures import statistics
from src.topology.profile import CloudProfile, cloud_sha256
from src.topology.profiling import ProfileSettings, profile_cloud
from src.topology.protocols.protocol import FROZEN_V5, ROBUST, TODACOMM

SETTINGS = ProfileSettings(n_subsample=40, subsample_draws=8, null_draws=19)


def circle(n: int = 60, noise: float = 0.05, d: int = 4) -> np.ndarray:
    draws = np.random.default_rng(0)
    angles = 2 * np.pi * np.arange(n) / n
    points = np.zeros((n, d))
    points[:, 0], points[:, 1] = np.cos(angles), np.sin(angles)
    return (points + noise * draws.normal(size=points.shape)).astype(np.float32)


def noise(n: int = 60, d: int = 4) -> np.ndarray:
    return np.random.default_rng(3).normal(size=(n, d)).astype(np.float32)


@pytest.fixture(scope="module")
def profile() -> CloudProfile:
    return profile_cloud(circle(), ROBUST, SETTINGS, seed=1, name="circle", hook="resid_post", layer=2)


def test_a_circle_is_one_loop_that_no_gaussian_has(profile):
    assert profile.tests[1].significant(0.05).tolist() == [0]
    assert profile.tests[1].p_null[0] == pytest.approx(1 / 20)
    assert profile.statistics["h1_max"].nulls["gaussian"].p == pytest.approx(1 / 20)
    assert profile.statistics["h1_max"].nulls["gaussian"].top < profile.statistics["h1_max"].value
    assert (profile.loops[0].p, profile.loops[0].bar) == (profile.tests[1].decisive[0], 0)
    order = np.array(profile.loops[0].points)
    steps = np.diff(np.r_[order, order[0]]) % 60
    assert (np.minimum(steps, 60 - steps) <= 6).all(), "the walk goes around the circle"


def test_noise_has_no_significant_loop():
    found = profile_cloud(noise(), ROBUST, SETTINGS, seed=1)
    assert found.tests[1].significant(0.05).size == 0
    assert min(loop.p for loop in found.loops) > 0.05


def test_labels_in_their_order_around_a_loop():
    labels = np.repeat(np.arange(6), 10)
    settings = replace(SETTINGS, cyclic=True)
    found = profile_cloud(circle(), ROBUST, settings, seed=0, groups=labels)
    first = found.cycles[0]
    assert first is not None
    assert first.in_order
    assert first.p_order == pytest.approx(1 / 60)  # 5! / 2 cyclic orders
    assert first.p < first.p_order
    assert abs(first.correlation) > 0.9
    mixed = profile_cloud(circle(), ROBUST, settings, seed=0, groups=np.array([0, 3, 1, 4, 2, 5])[labels])
    assert mixed.cycles[0] is not None
    assert not mixed.cycles[0].in_order
    assert profile_cloud(circle(), ROBUST, SETTINGS, seed=0, groups=labels).cycles == ()


def test_numbers_are_those_of_the_measures_alone(profile):
    distances = Distances.from_points(circle())
    bars = persistence(distances)
    expected = statistics(distances, bars, distances.median, 0.06, 0.02)
    for name, value in expected.items():
        assert profile.statistics[name].value == pytest.approx(value, nan_ok=True)
    assert profile.scale == distances.median
    np.testing.assert_array_equal(profile.persistence.bars[1].diagram, bars.bars[1].diagram)
    assert (profile.name, profile.hook, profile.layer) == ("circle", "resid_post", 2)
    assert (profile.n_points, profile.n_available, profile.n_dimensions, profile.n_duplicates) == (60, 60, 4, 0)


def test_bands_are_of_subsamples_and_one_seed_gives_one_profile(profile):
    again = profile_cloud(circle(), ROBUST, replace(SETTINGS, workers=2), seed=1, name="circle")
    other = profile_cloud(circle(), ROBUST, SETTINGS, seed=2, name="circle")
    for name in ("h0_total", "h1_count", "mst_mean"):
        measure = profile.statistics[name]
        assert (measure.low, measure.high) == (again.statistics[name].low, again.statistics[name].high)
        assert measure.nulls == again.statistics[name].nulls
        assert measure.low <= measure.high
    assert profile.statistics["n_points"].high == 40
    assert profile.statistics["h0_total"].low != other.statistics["h0_total"].low
    assert profile.statistics["h0_total"].high < profile.statistics["h0_total"].value, "fewer points, shorter trees"


def test_curves_count_the_bars(profile):
    curves, bars = profile.curves, profile.persistence.bars[1]
    assert len(curves.scale) == ROBUST.n_scale_steps
    for scale, alive, longer in zip(curves.scale, curves.betti[1], curves.survival[1], strict=True):
        assert alive == ((bars.birth <= scale) & (scale < bars.death)).sum()
        assert longer == (bars.lifetimes > scale).sum()
    assert curves.betti[0][0] == 60
    assert curves.betti[0][-1] == 1


def test_outliers_show(profile):
    points = circle()
    points[7] = 50.0
    found = profile_cloud(points, ROBUST.changed({"scale": "diameter"}), replace(SETTINGS, nulls=()), seed=0)
    assert found.outliers is not None
    assert found.outliers.n_left_out == 1
    with_all, without = found.outliers.statistics["diameter"]
    assert with_all > 20 * without
    assert found.diameter == pytest.approx(with_all)


def test_random_models_are_a_null():
    found = profile_cloud(
        circle(), ROBUST, replace(SETTINGS, nulls=()), seed=0, random=[noise(), 2 * noise(), noise(60, 9)]
    )
    null = found.statistics["h1_max_ratio"].nulls["random_init"]
    assert null.p == pytest.approx(1 / 4)
    assert null.low <= null.mean <= null.high < found.statistics["h1_max_ratio"].value


def test_labels_are_groups_and_are_moved_as_a_whole():
    labels = np.repeat(np.arange(6), 10)
    found = profile_cloud(circle(), ROBUST, replace(SETTINGS, nulls=("grouped_gaussian",)), seed=0, groups=labels)
    assert set(found.statistics["beta_1"].nulls) == {"grouped_gaussian"}
    # nothing decides but the universal law
    assert np.isnan(found.tests[1].p_null).all()
    np.testing.assert_array_equal(found.tests[1].decisive, found.tests[1].q)


def test_principal_components_and_a_sample_of_the_points():
    protocol = ROBUST.changed({"pca_components": 2, "max_points": 30, "sampling": "farthest"})
    found = profile_cloud(circle(), protocol, replace(SETTINGS, n_subsample=20), seed=0)
    assert (found.n_points, found.n_available, found.n_dimensions, found.n_ambient) == (30, 60, 2, 4)
    assert len(set(found.rows.tolist())) == 30
    assert found.tests[1].significant(0.05).size == 1
    assert found.statistics["n_points"].nulls["gaussian"].high == 30


def test_copies_are_counted():
    points = np.concatenate([circle(), circle()[:9]])
    assert profile_cloud(points, ROBUST, replace(SETTINGS, nulls=()), seed=0).n_duplicates == 9


@pytest.mark.parametrize("protocol", [FROZEN_V5, TODACOMM])
def test_a_package_s_own_numbers_stand_beside_ours(protocol):
    found = profile_cloud(circle(), protocol, replace(SETTINGS, nulls=()), seed=42)
    if protocol is FROZEN_V5:
        assert found.published["beta1"] == found.statistics["beta_1"].value
        assert found.published["eps_max"] == round(found.diameter, 4)
        assert found.scale == found.diameter
    else:
        assert found.published["H0_count"] == 60
        assert found.published["H0_total_persistence"] == pytest.approx(
            found.statistics["h0_total"].value + 1.0, rel=1e-6
        )
    assert profile_cloud(circle(), ROBUST, replace(SETTINGS, nulls=()), seed=0).published == {}


def test_a_cloud_is_known_by_its_values_dtype_and_shape():
    points = circle()
    assert cloud_sha256(points) == cloud_sha256(points.copy())
    assert cloud_sha256(points) == cloud_sha256(np.asfortranarray(points))
    others = [points.astype(np.float64), points.reshape(-1, 2), np.nextafter(points, np.float32(9))]
    assert cloud_sha256(points) not in {cloud_sha256(other) for other in others}


def test_all_points_alike_have_no_length_and_no_loop():
    found = profile_cloud(np.ones((12, 3), np.float32), ROBUST, replace(SETTINGS, n_subsample=8), seed=0)
    assert (found.n_duplicates, found.scale, found.diameter) == (11, 0.0, 0.0)
    assert len(found.persistence.bars[0]) == 1
    assert found.statistics["beta_1"].value == 0
    assert found.statistics["h1_total"].nulls["gaussian"].p == 1.0
    assert found.loops == ()


def test_three_points_are_enough():
    points = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    found = profile_cloud(points, ROBUST, replace(SETTINGS, n_subsample=3), seed=0)
    assert found.statistics["h0_total"].value == pytest.approx(2.0)
    assert found.outliers is None


@pytest.mark.parametrize(
    ("points", "message"),
    [
        (np.zeros(5), "a cloud is a matrix of points by dimensions"),
        (np.zeros((2, 4)), "needs 3 or more points"),
        (np.array([[0.0, 1.0], [np.nan, 0.0], [1.0, 1.0]]), "1 of 3 points are not finite, the first is point 1"),
        (np.array([[0.0, 1.0], [2.0, 0.0], [1.0, np.inf]]), "1 of 3 points are not finite, the first is point 2"),
    ],
)
def test_what_is_no_cloud_is_refused(points, message):
    with pytest.raises(StrataError, match=message):
        profile_cloud(points, ROBUST, SETTINGS, seed=0)


def test_a_memory_limit_is_told_before_anything_is_drawn():
    with pytest.raises(StrataError, match="memory"):
        profile_cloud(circle(), ROBUST, replace(SETTINGS, memory_limit=1000), seed=0)
