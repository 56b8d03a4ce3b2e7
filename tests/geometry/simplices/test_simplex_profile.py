"""Profiles of clouds whose structure, or lack of it, is planted."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from src.geometry.simplices.band import gaussian_cv, predicted_cv
from src.geometry.simplices.drawing import draw_simplices
from src.geometry.simplices.moments import cloud_moments
from src.geometry.simplices.nulls import NULLS, null_points, principal_spreads
from src.geometry.simplices.profile import SimplexSettings, rank_p, simplex_profile
from src.geometry.simplices.statistics import point_weights, volume_statistics, volume_sums
from src.geometry.simplices.volumes import VertexPool

QUICK = SimplexSettings(n_simplices=8000, pool=500, null_draws=19, resamples=200)


def cloud(n: int, d: int, seed: int = 0, *, norms: float = 0.0, decay: float = 0.0) -> np.ndarray:
    """A Gaussian with a power-law spectrum, times lognormal scales: elliptical, without structure."""
    draws = np.random.default_rng(seed)
    spread = np.arange(1, d + 1) ** (-decay / 2)
    return draws.normal(size=(n, d)) * spread * np.exp(norms * draws.normal(size=(n, 1)))


def test_the_band_needs_no_structure():
    """512 dimensions and a log spread of norms of 0.11: the published "universal band"."""
    spread_of_norms = math.hypot(0.11, math.sqrt(1 / (2 * 512)))
    assert predicted_cv(4, 512, spread_of_norms) == pytest.approx(0.2075, abs=0.005)
    found = [
        simplex_profile(
            torch.from_numpy(cloud(2000, 512, seed, norms=0.11)),
            replace(QUICK, n_simplices=20_000, pool=2000, null_draws=1, resamples=2),
            seed,
        ).cv.value
        for seed in range(2)
    ]
    assert np.mean(found) == pytest.approx(0.2075, abs=0.005)


@pytest.mark.parametrize("k", [1, 2, 4, 6])
@pytest.mark.parametrize("d", [64, 300])
def test_the_formula_is_that_of_a_gaussian_where_norms_are_its_own(k, d):
    norms = np.sqrt(np.random.default_rng(0).chisquare(d, size=200_000))
    assert predicted_cv(k, d, float(np.log(norms).std())) == pytest.approx(gaussian_cv(k, d), rel=5e-3)
    assert gaussian_cv(k, d) == pytest.approx(math.sqrt(k / (2 * d)), rel=0.1)


def test_norms_are_not_counted_twice():
    """The first-order formula with the measured spread of norms is too great by the Gaussian's own."""
    profile = simplex_profile(torch.from_numpy(cloud(3000, 64, norms=0.05)), QUICK, 0)
    twice = math.sqrt(4 / (2 * profile.effective_dimension) + 16 / 5 * profile.log_norm_std**2)
    assert profile.predicted_cv == pytest.approx(profile.cv.value, rel=0.06)
    assert twice > 1.2 * profile.cv.value


def test_a_cloud_without_structure_does_not_exceed_its_null_though_it_exceeds_all_others():
    covered, ps = 0, []
    for seed in range(4):
        points = torch.from_numpy(cloud(2000, 64, seed, norms=0.15, decay=0.8))
        profile = simplex_profile(points, QUICK, seed)
        covered += profile.matched.excess.low <= 0 <= profile.matched.excess.high
        ps.append(profile.matched.p)
        for name in ("entry_std", "dimension_std", "covariance"):
            assert profile.nulls[name].excess.low > 0.02, "norms alone"
        assert profile.nulls["entry_std"].ratio.high < 1, "covariance alone"
        assert profile.matched.ratio.value == pytest.approx(1, abs=0.02)
    assert covered >= 3
    assert min(ps) > 0.05
    assert max(ps) > 0.2


def test_norms_dealt_out_blindly_would_make_structure_of_an_elliptical_cloud():
    """Why the matched null keeps long points along wide directions."""
    points = torch.from_numpy(cloud(3000, 48, norms=0.1, decay=1.0))
    moments = cloud_moments(points)
    spreads = principal_spreads(moments)
    rows, draws = points[:800], np.random.default_rng(0)
    norms = (rows - moments.mean).norm(dim=1)
    simplices = torch.from_numpy(draw_simplices(800, 4, 20_000, draws))

    def cv(some: torch.Tensor) -> float:
        return volume_statistics(VertexPool(some).log_volumes(simplices)).cv

    matched = [cv(null_points("covariance_and_norms", moments, spreads, norms, draws)) for _ in range(4)]
    blind = []
    for _ in range(4):
        gaussian = torch.from_numpy(draws.normal(size=(800, 48))) * spreads
        blind.append(cv(gaussian * (norms / gaussian.norm(dim=1))[:, None]))
    assert abs(cv(rows) - np.mean(matched)) < 0.3 * abs(cv(rows) - np.mean(blind))


def test_clusters_are_structure():
    draws = np.random.default_rng(0)
    points = cloud(2000, 64) + 2 * draws.normal(size=(8, 64))[draws.integers(8, size=2000)]
    profile = simplex_profile(torch.from_numpy(points), QUICK, 0)
    assert profile.matched.excess.low > 0.05
    assert profile.matched.p == 1 / 20


def test_nulls_share_what_they_promise():
    points = torch.from_numpy(cloud(4000, 10, norms=0.3, decay=1.0) + 5.0)
    moments = cloud_moments(points)
    spreads = principal_spreads(moments)
    norms = (points - moments.mean).norm(dim=1)
    draws = np.random.default_rng(0)
    found = {name: null_points(name, moments, spreads, norms, draws) for name in NULLS}
    assert float(found["entry_std"].std()) == pytest.approx(float(points.std()), rel=0.02)
    torch.testing.assert_close(found["dimension_std"].std(dim=0), points.std(dim=0), rtol=0.06, atol=0)
    eigenvalues = torch.linalg.eigvalsh(points.T.cov())
    for name in ("covariance", "covariance_and_norms"):
        torch.testing.assert_close(found[name].var(dim=0), eigenvalues, rtol=0.15, atol=0)
    torch.testing.assert_close(found["covariance_and_norms"].norm(dim=1), norms)
    with pytest.raises(ValueError, match="choose from entry_std"):
        null_points("other", moments, spreads, norms, draws)


def test_moments_are_numpys_and_leave_out_what_is_not_finite():
    points = cloud(9000, 5, norms=0.4) + 3
    broken = np.insert(points, [10, 8500], [[np.nan] * 5, [np.inf] * 5], axis=0)
    found = cloud_moments(torch.from_numpy(broken))
    assert (found.n_points, found.n_non_finite) == (9000, 2)
    np.testing.assert_allclose(found.covariance, np.cov(points.T), rtol=1e-10)
    assert found.entry_std == pytest.approx(points.std())
    np.testing.assert_allclose(found.dimension_std, points.std(axis=0), rtol=1e-10)
    norms = np.linalg.norm(points - points.mean(axis=0), axis=1)
    assert found.log_norm_std == pytest.approx(np.log(norms).std())


def test_statistics_are_numpys():
    volumes = np.random.default_rng(0).lognormal(size=500)
    logs = torch.from_numpy(np.append(np.log(volumes), [-math.inf, -math.inf]))
    found = volume_statistics(logs)
    assert (found.n_simplices, found.n_valid) == (502, 500)
    assert found.cv == pytest.approx(volumes.std() / volumes.mean())
    assert found.log_mean == pytest.approx(math.log(volumes.mean()))
    assert found.log_percentiles[50] == pytest.approx(np.median(np.log(volumes)))
    shifted = volume_statistics(logs + 5000)
    assert shifted.cv == pytest.approx(found.cv), "volumes beyond the range of floats"
    assert math.isnan(volume_statistics(torch.full((4,), -math.inf)).cv)


def test_intervals_are_as_wide_as_pools_differ():
    """The spread of the CV over independent pools, against the bootstrap of one."""
    cvs, widths = [], []
    for seed in range(40):
        draws = np.random.default_rng(seed)
        points = torch.from_numpy(cloud(200, 32, seed, norms=0.2))
        simplices = torch.from_numpy(draw_simplices(200, 4, 10_000, draws))
        logs = VertexPool(points).log_volumes(simplices)
        sums = volume_sums(simplices, logs, 200, float(logs.mean()))
        cvs.append(volume_statistics(logs).cv)
        widths.append(sums.cv(point_weights(200, 200, draws)).std())
    assert np.mean(widths) == pytest.approx(np.std(cvs, ddof=1), rel=0.35)
    # what bootstrapping simplices as if they were independent would give
    assert np.mean(widths) > 4 * np.mean(cvs) / math.sqrt(2 * 10_000)


def test_copies_and_broken_rows_are_told():
    points = cloud(100, 8)
    points[:10] = points[10:20]
    points[50] = np.nan
    profile = simplex_profile(torch.from_numpy(points), QUICK, 0)
    assert (profile.n_points, profile.n_non_finite, profile.n_copies) == (99, 1, 10)
    assert 0 < profile.volumes.n_valid < profile.volumes.n_simplices
    same = simplex_profile(torch.from_numpy(np.delete(points, 50, axis=0)), QUICK, 0)
    assert same.cv == profile.cv


def test_a_cloud_of_copies_has_no_statistics():
    profile = simplex_profile(torch.ones(20, 8), replace(QUICK, null_draws=1, n_simplices=200), 0)
    assert profile.volumes.n_valid == 0
    assert math.isnan(profile.cv.value)
    assert math.isnan(profile.matched.p)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_float32_by_qr_agrees_with_float64(dtype):
    points = torch.from_numpy(cloud(300, 24, norms=0.1)).to(dtype)
    settings = replace(QUICK, n_simplices=1000, null_draws=1)
    wide, narrow = (
        simplex_profile(points, replace(settings, dtype=each), 0) for each in (torch.float64, torch.float32)
    )
    assert narrow.cv.value == pytest.approx(wide.cv.value, rel=1e-5)
    assert narrow.matched.cv.value == pytest.approx(wide.matched.cv.value, rel=1e-5)


def test_rank_p_is_uniform_where_all_are_alike():
    assert rank_p(9.0, [1.0, 2.0, 3.0]) == 0.25
    assert rank_p(2.0, [1.0, 2.1, 3.0]) == 1.0
    draws = np.random.default_rng(0).normal(size=(4000, 20))
    ps = np.array([rank_p(row[0], row[1:].tolist()) for row in draws])
    for level in (0.05, 0.25, 0.5):
        assert (ps <= level + 1e-9).mean() == pytest.approx(level, abs=0.02)


@pytest.mark.parametrize(("n", "d", "pool"), [(60, 48, 500), (40, 80, 500), (200, 48, 60)])
def test_few_points_for_their_dimensions_are_no_structure(n, d, pool):
    """The covariance is that of the sample: null points drawn freely with it had a higher CV, for every such cloud."""
    settings = SimplexSettings(n_simplices=1500, pool=pool, null_draws=19, resamples=100)
    found = [simplex_profile(torch.from_numpy(cloud(n, d, seed)), settings, seed).matched for seed in range(8)]
    excess = np.array([each.excess.value for each in found])
    assert abs(excess.mean()) < 4 * excess.std(ddof=1) / math.sqrt(len(excess))
    assert sum(each.p <= 0.05 and (each.excess.low > 0 or each.excess.high < 0) for each in found) <= 2


def test_null_points_have_the_covariance_of_their_cloud_exactly():
    moments = cloud_moments(torch.from_numpy(cloud(90, 40, decay=1.0)))
    drawn = null_points("covariance", moments, principal_spreads(moments), moments.norms, np.random.default_rng(0))
    again = cloud_moments(drawn)
    assert again.participation_ratio == pytest.approx(moments.participation_ratio, rel=1e-9)
    assert float(again.mean.abs().max()) < 1e-12


def test_a_weighted_pool_has_nulls_of_its_own():
    near, far = (torch.from_numpy(cloud(300, 24, seed, decay=decay)) for seed, decay in ((0, 0.0), (1, 2.0)))
    weights = np.repeat([1.0, 0.0], 300)
    weighted = simplex_profile(torch.cat([near, 50 * far + 7]), QUICK, 0, weights)
    alone = simplex_profile(near, QUICK, 0)
    assert weighted.matched == alone.matched
    assert (weighted.n_points, weighted.n_pool) == (600, 300)
