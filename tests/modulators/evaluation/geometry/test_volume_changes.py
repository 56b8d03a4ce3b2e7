"""Volumes of the same simplices before and after, against clouds whose change is known."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from src.geometry.simplices.profile import SimplexSettings, simplex_profile
from src.modulators.evaluation.geometry.volumes import VolumeChange, cloud_volumes

SETTINGS = SimplexSettings(k=3, n_simplices=3000, pool=200, null_draws=3, resamples=200)


def cloud(n: int, d: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(n, d)))


def volume_changes(
    before: torch.Tensor, after: dict[str, torch.Tensor], settings: SimplexSettings, seed: int
) -> dict[str, VolumeChange]:
    return dict(cloud_volumes({"before": before, **after}, (), settings, seed).changes)


def test_a_mere_change_of_size_is_told_from_a_change_of_shape():
    """The shrink's share (BUG G-7's controls): V grows as the k-th power of the size, and its CV not at all."""
    points = cloud(150, 20) + 5
    change = volume_changes(points, {"shrunk": 0.7 * points}, SETTINGS, 0)["shrunk"]
    assert change.log_volume.value == pytest.approx(3 * math.log(0.7), abs=1e-9)
    assert change.log_size.value == pytest.approx(3 * math.log(0.7), abs=1e-9)
    for estimate in (change.beyond_size, change.cv):
        assert [estimate.value, estimate.low, estimate.high] == pytest.approx([0, 0, 0], abs=1e-9)
    stretched = points.clone()
    stretched[:, 0] *= 12
    shape = volume_changes(points, {"stretched": stretched}, SETTINGS, 0)["stretched"]
    assert shape.beyond_size.high < -0.5
    assert shape.cv.low > 0.05


def test_cv_and_log_volume_are_those_of_determinants():
    before, after = cloud(12, 6, 1), cloud(12, 6, 2)
    settings = SimplexSettings(k=2, n_simplices=4000, pool=50, resamples=20)
    change = volume_changes(before, {"after": after}, settings, 0)["after"]
    cvs, logs = [], []
    for points in (before.numpy(), after.numpy()):
        volumes = []
        for i in range(12):
            for j in range(i):
                for m in range(j):
                    edges = points[[i, j]] - points[m]
                    volumes.append(math.sqrt(np.linalg.det(edges @ edges.T)) / 2)
        cvs.append(np.std(volumes) / np.mean(volumes))
        logs.append(np.mean(np.log(volumes)))
    # 4,000 draws of the 220 triangles
    assert change.cv.value == pytest.approx(cvs[1] - cvs[0], abs=0.02)
    assert change.log_volume.value == pytest.approx(logs[1] - logs[0], abs=0.05)


def test_all_dimensions_take_part():
    """BUG H-8: the first 8 dimensions of 512 gave a CV of 0.6 for isotropic states, whose true one is 0.063."""
    points = cloud(400, 512)
    settings = SimplexSettings(k=4, n_simplices=4000, pool=400, null_draws=3, resamples=100)
    profile = simplex_profile(points, settings, 0)
    assert profile.cv.value == pytest.approx(0.063, abs=0.01)
    assert simplex_profile(points[:, :8], settings, 0).cv.value == pytest.approx(0.609, abs=0.08)
    beyond = points.clone()
    beyond[:, 8:] *= torch.from_numpy(np.exp(0.5 * np.random.default_rng(3).normal(size=(400, 1))))
    assert volume_changes(points, {"beyond": beyond}, settings, 0)["beyond"].cv.low > 0.3


def test_no_vertex_comes_twice_and_a_flat_cloud_is_not_a_number():
    """H9: tuples with a point twice passed as simplices by rounding; no simplex at all was read as healthy."""
    points = cloud(60, 30)
    change = volume_changes(points, {"same": points.clone()}, SETTINGS, 0)["same"]
    assert change.n_joint == change.n_simplices == 3000
    flat = points.clone()
    flat[:, 2:] = 0
    found = volume_changes(points, {"flat": flat, "same": points}, SETTINGS, 0)
    assert found["flat"].n_joint == 0
    for estimate in (found["flat"].cv, found["flat"].log_volume, found["flat"].beyond_size):
        assert math.isnan(estimate.value)
        assert math.isnan(estimate.low)
    # what the flat cloud lacks is no loss of the other comparison
    assert found["same"].n_joint == 3000


def test_a_simplex_without_volume_on_one_side_counts_on_neither():
    """BUG B-1: lists that are filtered apart shift against each other."""
    points = cloud(40, 10)
    copies = points.clone()
    copies[1] = copies[0]
    change = volume_changes(points, {"copies": copies}, SETTINGS, 0)["copies"]
    assert 0 < change.n_joint < 3000
    # the other simplices are as they were, but for those that hold the moved point
    assert abs(change.log_volume.value) < 0.1


def test_points_that_are_not_finite_are_left_out_of_all_and_lengths_must_agree():
    points = cloud(50, 10)
    broken = points.clone()
    broken[7, 3] = math.nan
    change = volume_changes(points, {"broken": broken, "same": points}, SETTINGS, 0)
    assert change["broken"].n_joint == change["same"].n_joint == 3000
    assert change["broken"].log_volume.value == pytest.approx(0, abs=1e-12)
    with pytest.raises(ValueError, match="the same tokens"):
        volume_changes(points, {"short": points[:40]}, SETTINGS, 0)


def test_errors_are_those_of_measuring_again_without_each_point():
    """All 220 triangles of 12 points, and the 165 of each 11 of them."""
    before, after = cloud(12, 3, 1), cloud(12, 3, 2) * 2

    def by_hand(words: np.ndarray) -> tuple[float, float]:
        cvs, logs = [], []
        for points in (before.numpy()[words], after.numpy()[words]):
            triangles = [points[[i, j, m]] for i in range(len(points)) for j in range(i) for m in range(j)]
            volumes = [np.linalg.norm(np.cross(c[1] - c[0], c[2] - c[0])) / 2 for c in triangles]
            cvs.append(np.std(volumes) / np.mean(volumes))
            logs.append(np.mean(np.log(volumes)))
        return cvs[1] - cvs[0], logs[1] - logs[0]

    left = np.array([by_hand(np.delete(np.arange(12), i)) for i in range(12)])
    errors = np.sqrt(11 / 12 * np.square(left - left.mean(0)).sum(0))
    settings = SimplexSettings(k=2, n_simplices=60_000, pool=50, resamples=20)
    found = volume_changes(before, {"after": after}, settings, 0)["after"]
    for estimate, expected, error in zip((found.cv, found.log_volume), by_hand(np.arange(12)), errors, strict=True):
        assert estimate.value == pytest.approx(expected, abs=0.01)
        assert (estimate.high - estimate.low) / 2 == pytest.approx(stats.t.ppf(0.975, 11) * error, rel=0.05)


@pytest.mark.parametrize("dimensions", [8, 3])
def test_paired_intervals_hold_what_is_true(dimensions: int):
    """Over 40 samples of 60 points, also where volumes have heavy tails (as many dimensions as a simplex has).

    A bootstrap by additive weights turned second moments negative there, and clipped intervals at 0.
    """
    settings = SimplexSettings(k=3, n_simplices=2000, pool=60)
    changes = []
    for seed in range(40):
        before = cloud(60, dimensions, seed)
        scales = torch.from_numpy(np.exp(0.3 * np.random.default_rng([seed, 1]).normal(size=(60, 1))))
        changes.append(volume_changes(before, {"spread": before * scales}, settings, seed)["spread"].cv)
    truth = np.mean([change.value for change in changes])
    assert np.mean([change.low <= truth <= change.high for change in changes]) >= 0.85


def test_each_cloud_has_its_cv_and_those_that_are_asked_for_their_nulls():
    points = cloud(120, 16)
    found = cloud_volumes({"frozen": points, "other": points * 3}, ("frozen",), SETTINGS, 0)
    assert set(found.profiles) == {"frozen"}
    assert found.cv["frozen"].value == pytest.approx(found.profiles["frozen"].cv.value, rel=1e-9)
    assert found.cv["frozen"].value == pytest.approx(found.cv["other"].value, rel=1e-9)
    assert found.cv["frozen"].low < found.profiles["frozen"].matched.cv.value < found.cv["frozen"].high
