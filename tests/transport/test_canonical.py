import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cross_decomposition import CCA

from src.errors import StrataError
from src.transport.canonical import (
    CrossFit,
    Whitening,
    canonical_correlations,
    cross_fitted_correlations,
    held_out_correlations,
    independent_edge,
)
from tests.fixtures.planted_transport import X, Y, moments_of, outliers, planted


def statistics_of(x, y):
    return moments_of(x, y, np.zeros(len(x), dtype=int)).subset([0])


def by_orthonormal_bases(x, y):
    """Canonical correlations of rows, by Bjoerck and Golub (1973), full column ranks."""
    bases = [np.linalg.qr(side - side.mean(0))[0] for side in (x, y)]
    return np.linalg.svd(bases[0].T @ bases[1], compute_uv=False)


def correlated_rows(n, d_in, d_out, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, d_in)) * np.geomspace(0.1, 10, d_in) + rng.standard_normal(d_in)
    return x, 0.3 * np.tanh(x) @ rng.standard_normal((d_in, d_out)) + 2 * rng.standard_normal((n, d_out)) - 5


@pytest.mark.parametrize(("d_in", "d_out"), [(8, 8), (5, 9), (9, 5)])
def test_correlations_equal_those_of_orthonormal_bases_of_the_rows(d_in, d_out):
    x, y = correlated_rows(300, d_in, d_out)
    found = canonical_correlations(statistics_of(x, y), X, Y)
    np.testing.assert_allclose(found.correlations, by_orthonormal_bases(x, y), rtol=0, atol=1e-10)
    np.testing.assert_allclose(found.ceiling, np.cumsum(by_orthonormal_bases(x, y) ** 2) / d_out, atol=1e-10)
    assert (found.source_rank, found.target_rank, found.n_rows) == (d_in, d_out, 300)


def test_correlations_and_directions_equal_scikit_learns():
    x, y = correlated_rows(400, 6, 5)
    found = canonical_correlations(statistics_of(x, y), X, Y)
    peer = CCA(n_components=3, scale=False, max_iter=100_000, tol=1e-14).fit(x, y)
    scores = peer.transform(x, y)
    for i in range(3):
        rho = np.corrcoef(scores[0][:, i], scores[1][:, i])[0, 1]
        assert found.correlations[i] == pytest.approx(rho, abs=1e-6)
        own = (x - x.mean(0)) @ found.source_directions[:, i].numpy()
        assert abs(np.corrcoef(own, scores[0][:, i])[0, 1]) == pytest.approx(1, abs=1e-5)


def test_the_explained_variance_is_that_of_a_regression_of_whitened_targets():
    x, y = correlated_rows(300, 7, 7)
    centred = [side - side.mean(0) for side in (x, y)]
    values, vectors = np.linalg.eigh(np.cov(y.T))
    whitened = centred[1] @ vectors / np.sqrt(values)
    fitted = centred[0] @ np.linalg.lstsq(centred[0], whitened, rcond=None)[0]
    r2 = 1 - np.square(whitened - fitted).sum() / np.square(whitened).sum()
    assert canonical_correlations(statistics_of(x, y), X, Y).ceiling[-1] == pytest.approx(r2, abs=1e-10)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), log_scale=st.floats(-4, 4))
def test_correlations_do_not_depend_on_coordinates(seed, log_scale):
    rng = np.random.default_rng(seed)
    x, y = correlated_rows(200, 6, 5, seed)
    truth = canonical_correlations(statistics_of(x, y), X, Y).correlations
    rotation = np.linalg.qr(rng.standard_normal((6, 6)))[0]
    scales = np.exp(rng.uniform(-8, 8, 5))
    moved = canonical_correlations(statistics_of(10**log_scale * x @ rotation + 3, y * scales), X, Y)
    np.testing.assert_allclose(moved.correlations, truth, rtol=0, atol=1e-8)


def test_an_outlier_and_a_constant_dimension_change_nothing_else():
    x, y = outliers(*correlated_rows(500, 8, 8))
    found = canonical_correlations(statistics_of(x, y), X, Y)
    varying = np.arange(8) != 2
    assert (found.source_rank, found.target_rank) == (7, 7)
    expected = by_orthonormal_bases(x[:, varying], y[:, varying])
    np.testing.assert_allclose(found.correlations, [*expected, 0], rtol=0, atol=1e-10)
    assert not found.source_directions[2].any()


def test_directions_below_the_floor_are_left_out():
    x, y = correlated_rows(300, 6, 6)
    deficient = np.concatenate([x[:, :4], x[:, :2] @ np.array([[1.0, 2.0], [3.0, -1.0]])], axis=1)
    found = canonical_correlations(statistics_of(deficient, y), X, Y)
    assert (found.source_rank, found.target_rank) == (4, 6)
    np.testing.assert_allclose(found.correlations, [*by_orthonormal_bases(x[:, :4], y), 0, 0], rtol=0, atol=1e-10)
    correlation = np.corrcoef(x.T)
    values = np.linalg.eigvalsh(correlation)
    floor = float(np.sqrt(values[1] * values[2]) / values[-1])
    assert Whitening.of(statistics_of(x, y), X, floor).rank == 4


def test_fewer_rows_than_dimensions_have_the_rank_of_the_rows():
    x, y = correlated_rows(10, 30, 20)
    found = canonical_correlations(statistics_of(x, y), X, Y, floor=0.0)
    assert (found.source_rank, found.target_rank) == (9, 9)
    np.testing.assert_allclose(found.correlations, [1.0] * 9 + [0.0] * 11, atol=1e-9)


def test_a_whitening_gives_unit_scatter_and_leads_back():
    x, y = outliers(*correlated_rows(300, 7, 7))
    whitening = Whitening.of(statistics_of(x, y), X)
    centred = x - x.mean(0)
    white = centred @ whitening.into.numpy()
    np.testing.assert_allclose(white.T @ white, np.eye(6), atol=1e-9)
    np.testing.assert_allclose(white @ whitening.back.numpy(), centred, atol=1e-8)


def test_held_out_correlations_are_those_of_the_projected_rows_about_training_means():
    x, y = correlated_rows(400, 6, 5)
    group = np.repeat([0, 1], [300, 100])
    moments = moments_of(x, y, group)
    train, held_out = moments.subset([0]), moments.subset([1])
    found = canonical_correlations(train, X, Y)
    measured = held_out_correlations(found, train, held_out, X, Y)
    on_train = x[:300].mean(0), y[:300].mean(0)
    z = (x[300:] - on_train[0]) @ found.source_directions.numpy()
    w = (y[300:] - on_train[1]) @ found.target_directions.numpy()
    expected = (z * w).sum(0) / np.sqrt(np.square(z).sum(0) * np.square(w).sum(0))
    np.testing.assert_allclose(measured, expected, rtol=0, atol=1e-10)
    in_sample = held_out_correlations(found, train, train, X, Y)
    np.testing.assert_allclose(in_sample, found.correlations, rtol=0, atol=1e-10)


def test_cross_fitting_equals_a_fit_per_fold():
    x, y = correlated_rows(500, 6, 5)
    group = np.random.default_rng(3).integers(0, 4, 500)
    moments = moments_of(x, y, group)
    fit = cross_fitted_correlations(moments, X, Y, [0, 1, 3])
    for i, fold in enumerate([0, 1, 3]):
        train = moments.subset([g for g in (0, 1, 3) if g != fold])
        expected = held_out_correlations(canonical_correlations(train, X, Y), train, moments.subset([fold]), X, Y)
        np.testing.assert_allclose(fit.by_fold[i], expected, rtol=0, atol=1e-10)
    assert fit.target_rank == 5


@pytest.mark.parametrize("seed", range(5))
def test_a_planted_transport_of_16_dimensions_is_sized(seed):
    group = np.arange(3000) // 10 % 5
    strong = cross_fitted_correlations(moments_of(*planted(3000, 64, 16, 0.99, seed), group), X, Y, range(5))
    assert 15 < strong.explained_dimensions < 16
    assert 15 < strong.participation_ratio < 17
    noisy = cross_fitted_correlations(moments_of(*planted(3000, 64, 16, 0.8, seed), group), X, Y, range(5))
    assert noisy.explained_dimensions == pytest.approx(16 * 0.8**2, rel=0.06)
    assert 15 < noisy.participation_ratio < 17
    assert strong.ceiling[-1] == pytest.approx(16 * 0.99**2 / 64, rel=0.03)


def test_independent_data_has_no_transport_in_the_mean_and_none_in_any_draw():
    group = np.arange(2000) // 10 % 5
    fits = [
        cross_fitted_correlations(moments_of(*planted(2000, 48, 0, 0.0, seed), group), X, Y, range(5))
        for seed in range(25)
    ]
    sizes = np.array([fit.explained_dimensions for fit in fits])
    assert np.abs(sizes).max() < 0.05
    # signs kept: neither side is favoured (squares without signs would give 48 / 2000 = 0.024 every time)
    assert abs(sizes.mean()) < 3 * sizes.std() / np.sqrt(25) < 0.005
    assert max(fit.participation_ratio for fit in fits) < 1


def test_participation_ratio_counts_equal_correlations_whatever_their_size():
    equal = torch.zeros(3, 10).double()
    equal[:, :4] = 0.3
    assert CrossFit(equal, 10).participation_ratio == pytest.approx(4)
    assert CrossFit(equal, 10).explained_dimensions == pytest.approx(4 * 0.09)
    assert CrossFit(-equal, 10).explained_dimensions == pytest.approx(-4 * 0.09)
    assert CrossFit(-equal, 10).participation_ratio == 0
    assert CrossFit(torch.zeros(3, 10).double(), 10).participation_ratio == 0


@pytest.mark.parametrize(("n", "p", "q"), [(2400, 240, 120), (1200, 200, 200)])
def test_independent_edge_bounds_the_sample_correlations_of_noise(n, p, q):
    rng = np.random.default_rng(0)
    largest = [
        canonical_correlations(
            statistics_of(rng.standard_normal((n, p)), rng.standard_normal((n, q))), X, Y
        ).correlations[0]
        for _ in range(3)
    ]
    assert np.mean(largest) == pytest.approx(independent_edge(n, p, q), rel=0.03)
    assert independent_edge(100, 60, 60) == 1.0


def test_float32_moments_give_the_same_correlations_to_float32_accuracy():
    x, y = outliers(*planted(2000, 24, 6, 0.9, 0))
    group = np.arange(2000) // 10 % 4
    exact, rough = (
        cross_fitted_correlations(moments_of(x, y, group, precision), X, Y, range(4)).correlations
        for precision in ("float64", "float32")
    )
    np.testing.assert_allclose(rough[:7], exact[:7], rtol=0, atol=1e-4)


def test_what_cannot_be_done_is_said():
    x, y = correlated_rows(40, 4, 4)
    moments = moments_of(x, y, np.arange(40) % 2)
    with pytest.raises(StrataError, match="at least 2 folds"):
        cross_fitted_correlations(moments, X, Y, [0])
    with pytest.raises(StrataError, match="floor"):
        canonical_correlations(moments.subset([0]), X, Y, floor=1.0)
    with pytest.raises(StrataError, match=r"resid_post\.1 is the same in all 40 rows"):
        canonical_correlations(statistics_of(x, np.full_like(y, 3.0)), X, Y)
    with pytest.raises(StrataError, match=r"folds \[1\] hold fewer than 2 rows"):
        cross_fitted_correlations(moments_of(x, y, np.arange(40) == 3), X, Y, [0, 1])


def test_the_jackknife_leaves_out_one_fold_at_a_time():
    by_fold = torch.from_numpy(np.random.default_rng(0).uniform(-0.2, 0.9, (4, 6)))
    found = CrossFit(by_fold, 6).jackknife(lambda fit: fit.explained_dimensions)

    def size(rows):
        mean = by_fold[rows].mean(0)
        return float((mean * mean.abs()).sum())

    without = np.array([size([f for f in range(4) if f != left_out]) for left_out in range(4)])
    error = np.sqrt(3 / 4 * np.square(without - without.mean()).sum())
    assert found.value == pytest.approx(size(range(4)))
    assert found.high - found.value == pytest.approx(3.182446 * error, rel=1e-6)  # Student's t, 3 degrees of freedom
    assert found.low == pytest.approx(2 * found.value - found.high)


def test_the_jackknife_interval_covers_the_size_that_other_documents_give():
    group = np.arange(600) // 10 % 5
    sizes = [
        cross_fitted_correlations(moments_of(*planted(600, 10, 4, 0.7, seed), group), X, Y, range(5)).jackknife(
            lambda fit: fit.explained_dimensions
        )
        for seed in range(60)
    ]
    middle = np.mean([size.value for size in sizes])
    covered = np.mean([size.low <= middle <= size.high for size in sizes])
    assert 0.88 <= covered <= 1.0
    spread = np.std([size.value for size in sizes])
    assert np.mean([size.high - size.low for size in sizes]) < 2 * 2.776 * 1.5 * spread
