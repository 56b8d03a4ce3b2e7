import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LinearRegression, Ridge

from src.errors import StrataError
from src.transport.canonical import Whitening
from src.transport.rank import match_ranks
from src.transport.rank_factors import METRICS, reduced_rank_factors, truncated_svd_factors
from tests.fixtures.planted_transport import X, Y, mixing, moments_of, outliers

OPTIMAL = {"whitened": "reduced_rank_whitened", "raw": "reduced_rank_raw"}


def rows(n, d_in, d_out, seed=0, noise=2.0):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, d_in)) @ mixing(rng, d_in) + 3 * rng.standard_normal(d_in)
    y = np.tanh(x) @ rng.standard_normal((d_in, d_out)) + noise * rng.standard_normal((n, d_out))
    return x, y * np.geomspace(0.2, 5, d_out) - 4


def split(n):
    return (np.arange(n) % 3 == 2).astype(int)


def train_and_held_out(x, y):
    moments = moments_of(x, y, split(len(x)))
    return moments.subset([0]), moments.subset([1])


def inverse_root(matrix):
    values, vectors = np.linalg.eigh(matrix)
    return vectors / np.sqrt(values) @ vectors.T


def explicit_r2(x, y, weight, metric, on_train=False):
    """One map on rows: bias refitted to the training means, R2 about these, whitened by the training covariance."""
    train = split(len(x)) == 0
    scored = train if on_train else ~train
    error = (y - y[train].mean(0) - (x - x[train].mean(0)) @ weight)[scored]
    truth = (y - y[train].mean(0))[scored]
    root = inverse_root(np.cov(y[train].T)) if metric == "whitened" else np.eye(y.shape[1])
    return 1 - np.square(error @ root).sum() / np.square(truth @ root).sum()


def explicit_reduced_rank(x, y, rank, metric, alpha):
    """The textbook way for one rank: the regression, then principal components of the (penalised) fitted values."""
    train = split(len(x)) == 0
    model = (Ridge(alpha) if alpha else LinearRegression()).fit(x[train], y[train])
    covariance = np.cov(y[train].T)
    root = inverse_root(covariance) if metric == "whitened" else np.eye(y.shape[1])
    # the penalty as further rows of x, whose y is 0
    padded = np.concatenate([x[train] - x[train].mean(0), np.sqrt(alpha) * np.eye(x.shape[1])])
    directions = np.linalg.svd(padded @ model.coef_.T @ root, full_matrices=False)[2][:rank].T
    return model.coef_.T @ root @ directions @ directions.T @ np.linalg.inv(root)


@pytest.mark.parametrize("alpha", [0.0, 30.0])
@pytest.mark.parametrize(("d_in", "d_out"), [(10, 10), (7, 11), (11, 7)])
def test_all_ranks_at_once_equal_one_explicit_fit_per_rank(alpha, d_in, d_out):
    x, y = rows(240, d_in, d_out)
    given = np.random.default_rng(5).standard_normal((d_in, d_out))
    train, held_out = train_and_held_out(x, y)
    matched = match_ranks(train, held_out, X, Y, torch.from_numpy(given), alpha)
    left, values, right = np.linalg.svd(given, full_matrices=False)
    for metric in METRICS:
        for rank in range(1, min(d_in, d_out) + 1):
            weights = {OPTIMAL[own]: explicit_reduced_rank(x, y, rank, own, alpha) for own in METRICS} | {
                "truncated_svd": left[:, :rank] * values[:rank] @ right[:rank]
            }
            for family, weight in weights.items():
                truth = explicit_r2(x, y, weight, metric)
                assert matched.r2[family][metric][rank - 1] == pytest.approx(truth, abs=1e-8), (family, metric, rank)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("alpha", [0.0, 30.0])
def test_factors_give_the_operator_of_a_rank(metric, alpha):
    x, y = rows(240, 9, 8)
    train, _ = train_and_held_out(x, y)
    factors = reduced_rank_factors(train, X, Y, metric, alpha)
    for rank in (1, 3, 8):
        weight = factors.weight(rank)
        assert np.linalg.matrix_rank(weight.numpy()) == rank
        np.testing.assert_allclose(weight, explicit_reduced_rank(x, y, rank, metric, alpha), rtol=0, atol=1e-8)


def test_in_sample_the_reduced_rank_regression_reaches_the_cca_ceiling():
    x, y = outliers(*rows(300, 12, 12))
    train, _ = train_and_held_out(x, y)
    matched = match_ranks(train, train, X, Y)
    r2 = matched.r2["reduced_rank_whitened"]["whitened"]
    np.testing.assert_allclose(r2, matched.canonical.ceiling, rtol=0, atol=1e-8)
    for metric in METRICS:
        np.testing.assert_allclose(matched.efficiency(OPTIMAL[metric], metric), np.ones(12), rtol=0, atol=1e-8)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    n=st.integers(30, 200),
    d_in=st.integers(1, 9),
    d_out=st.integers(1, 9),
    kind=st.sampled_from(["operator", "random", "rotation"]),
)
def test_in_sample_nothing_beats_reduced_rank_in_its_own_metric(seed, n, d_in, d_out, kind):
    x, y = rows(n, d_in, d_out, seed)
    train, _ = train_and_held_out(x, y)
    rng = np.random.default_rng(seed)
    weight = rng.standard_normal((d_in, d_out))
    if kind == "operator":
        weight = LinearRegression().fit(x[split(n) == 0], y[split(n) == 0]).coef_.T
    elif kind == "rotation":
        weight = np.linalg.qr(rng.standard_normal((max(d_in, d_out),) * 2))[0][:d_in, :d_out]
    matched = match_ranks(train, train, X, Y, torch.from_numpy(weight.copy()))
    for metric in METRICS:
        best = matched.r2[OPTIMAL[metric]][metric]
        assert (best.diff() >= -1e-10).all()
        for other in matched.r2.values():
            assert (best >= other[metric] - 1e-9).all()


def test_at_full_rank_every_family_is_the_least_squares_operator():
    x, y = rows(300, 8, 8)
    train, held_out = train_and_held_out(x, y)
    coefficients = LinearRegression().fit(x[split(300) == 0], y[split(300) == 0]).coef_.T
    matched = match_ranks(train, held_out, X, Y, torch.from_numpy(coefficients))
    for metric in METRICS:
        truth = explicit_r2(x, y, coefficients, metric)
        for family in matched.r2:
            assert matched.r2[family][metric][-1] == pytest.approx(truth, abs=1e-9)


def test_truncated_singular_values_lose_where_scales_differ():
    """The reference divides this by the ceiling: what it calls inefficient is the basis (spec B7)."""
    x, y = rows(3000, 16, 16, noise=1.0)
    x = x * np.geomspace(100, 0.01, 16)
    train, held_out = train_and_held_out(x, y)
    coefficients = LinearRegression().fit(x[split(3000) == 0], y[split(3000) == 0]).coef_.T
    matched = match_ranks(train, held_out, X, Y, torch.from_numpy(coefficients))
    assert (matched.efficiency("reduced_rank_whitened", "whitened") > 0.95).all()
    assert matched.efficiency("truncated_svd", "whitened")[:8].max() < 0.5


def test_ceiling_scales_each_direction_at_its_best_for_the_held_out_rows():
    x, y = rows(240, 7, 7)
    train, held_out = train_and_held_out(x, y)
    matched = match_ranks(train, held_out, X, Y)
    part = split(240) == 1
    centred = [side[part] - side[~part].mean(0) for side in (x, y)]
    for metric in METRICS:
        factors = reduced_rank_factors(train, X, Y, metric)
        root = Whitening.of(train, Y).into.numpy() if metric == "whitened" else np.eye(7)
        white, total = centred[1] @ root, np.square(centred[1] @ root).sum()
        reached = 0.0
        for i in range(7):
            feature = (centred[0] @ factors.left[:, [i]].numpy()) @ (factors.right[:, [i]].numpy().T @ root)
            model = LinearRegression(fit_intercept=False).fit(feature.reshape(-1, 1), white.reshape(-1))
            gain = np.square(model.coef_[0] * feature).sum() / total
            reached += np.sign(model.coef_[0]) * gain
            assert matched.ceiling[metric][i] == pytest.approx(reached, abs=1e-9)
    rho = matched.correlations
    directions = matched.canonical.target_directions
    weights = (directions * (held_out.scatter(Y, Y, about=train) @ directions)).sum(0)
    expected = (rho * rho.abs() * weights).cumsum(0) / weights.sum()
    np.testing.assert_allclose(matched.ceiling["whitened"], expected, rtol=0, atol=1e-9)


def test_efficiency_of_independent_data_is_no_number_where_the_ceiling_is_not_above_zero():
    rng = np.random.default_rng(1)
    x, y = rng.standard_normal((2, 400, 12))
    train, held_out = train_and_held_out(x, y)
    matched = match_ranks(train, held_out, X, Y)
    ceiling = matched.ceiling["whitened"]
    efficiency = matched.efficiency("reduced_rank_whitened", "whitened")
    assert (ceiling <= 0).any()
    assert efficiency.isnan().tolist() == (ceiling <= 0).tolist()
    assert matched.canonical.ceiling[-1] > 0.03  # in sample, d / n, though nothing is shared
    assert matched.r2["reduced_rank_whitened"]["whitened"][-1] < 0


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), log_scale=st.floats(-4, 4), alpha=st.sampled_from([0.0, 10.0]))
def test_scale_and_rotation_of_the_coordinates_change_nothing(seed, log_scale, alpha):
    x, y = rows(200, 6, 6, seed)
    rng = np.random.default_rng(seed)
    turn_x, turn_y = (np.linalg.qr(rng.standard_normal((6, 6)))[0] for _ in range(2))
    scale = 10**log_scale
    plain = match_ranks(*train_and_held_out(x, y), X, Y, alpha=alpha)
    moved = match_ranks(*train_and_held_out(scale * x @ turn_x, scale * y @ turn_y), X, Y, alpha=alpha * scale**2)
    for metric in METRICS:
        for family in plain.r2:
            np.testing.assert_allclose(moved.r2[family][metric], plain.r2[family][metric], rtol=0, atol=1e-7)
        np.testing.assert_allclose(moved.ceiling[metric], plain.ceiling[metric], rtol=0, atol=1e-7)


def test_outlier_and_constant_dimensions_leave_the_whitened_curves_of_the_others():
    x, y = rows(600, 9, 9)
    train, held_out = train_and_held_out(*outliers(x, y))
    matched = match_ranks(train, held_out, X, Y)
    assert (matched.canonical.source_rank, matched.canonical.target_rank) == (8, 8)
    moved_x, moved_y = outliers(x, y)
    kept = np.arange(9) != 2
    moved_x, moved_y = moved_x[:, kept], moved_y[:, kept]
    moved_x[:, 1], moved_y[:, 1] = (moved_x[:, 1] - 2000) / 300, (moved_y[:, 1] - 2000) / 300
    plain = match_ranks(*train_and_held_out(moved_x, moved_y), X, Y)
    curve = matched.r2["reduced_rank_whitened"]["whitened"]
    np.testing.assert_allclose(curve[:8], plain.r2["reduced_rank_whitened"]["whitened"], rtol=0, atol=1e-8)
    assert curve[8] == curve[7]
    for rank in range(1, 9):
        weight = explicit_reduced_rank(*outliers(x, y), rank, "raw", 0.0)
        truth = explicit_r2(*outliers(x, y), weight, "raw")
        assert matched.r2["reduced_rank_raw"]["raw"][rank - 1] == pytest.approx(truth, abs=1e-8)


def test_a_rank_deficient_source_is_fitted_by_the_directions_it_has():
    x, y = rows(300, 5, 8)
    doubled = np.concatenate([x, x @ np.random.default_rng(2).standard_normal((5, 4))], axis=1)
    deficient = match_ranks(*train_and_held_out(doubled, y), X, Y)
    plain = match_ranks(*train_and_held_out(x, y), X, Y)
    assert deficient.canonical.source_rank == 5
    for metric in METRICS:
        curve = deficient.r2[OPTIMAL[metric]][metric]
        np.testing.assert_allclose(curve[:5], plain.r2[OPTIMAL[metric]][metric], rtol=0, atol=1e-8)
        np.testing.assert_allclose(curve[5:], float(curve[4]), rtol=0, atol=1e-12)


def test_a_float32_operator_is_cut_as_it_is():
    weight = torch.from_numpy(np.random.default_rng(0).standard_normal((6, 4)).astype(np.float32))
    factors = truncated_svd_factors(weight)
    torch.testing.assert_close(factors.weight(4), weight.double())
    error = torch.linalg.matrix_norm(weight.double() - factors.weight(2), 2)
    assert float(error) == pytest.approx(float(torch.linalg.svdvals(weight.double())[2]))


def test_what_cannot_be_done_is_said():
    x, y = rows(60, 5, 4)
    train, held_out = train_and_held_out(x, y)
    with pytest.raises(StrataError, match=r"weight of 5 x 4, not \(4, 5\)"):
        match_ranks(train, held_out, X, Y, torch.zeros(4, 5))
    with pytest.raises(StrataError, match="alpha must be a number of at least 0"):
        reduced_rank_factors(train, X, Y, "raw", alpha=-1.0)
    single = moments_of(x, y, np.arange(60) == 0)
    with pytest.raises(StrataError, match="at least 2 held-out rows"):
        match_ranks(single.subset([0]), single.subset([1]), X, Y)


def test_the_ceiling_is_one_and_the_same_for_all_operators_of_a_pair():
    """A penalty shrinks the operator, and must not shrink what it is measured against."""
    train, held_out = train_and_held_out(*rows(600, 8, 8, seed=3))
    plain, penalised = (match_ranks(train, held_out, X, Y, alpha=alpha) for alpha in (0.0, 1e5))
    for metric, family in OPTIMAL.items():
        torch.testing.assert_close(penalised.ceiling[metric], plain.ceiling[metric], rtol=0, atol=1e-12)
        assert penalised.efficiency(family, metric)[-1] < 0.5 < plain.efficiency(family, metric)[-1]
