import numpy as np
import pytest
import torch
from sklearn.linear_model import LinearRegression, Ridge
from sklearn.metrics import make_scorer, r2_score
from sklearn.model_selection import GridSearchCV, PredefinedSplit

from src.errors import StrataError
from src.transport.solvers import fit_least_squares, fit_ridge, fit_ridge_path
from tests.fixtures.residual_streams import X, Y, Z, moments_of, residual_stream

ALPHAS = [1e-3, 0.1, 1.0, 10.0, 100.0, 1000.0, 1e4, 1e7]
SCORERS = {
    "uniform": make_scorer(r2_score),
    "variance_weighted": make_scorer(r2_score, multioutput="variance_weighted"),
}


def grid_search(x, y, group, scoring="uniform", alphas=ALPHAS):
    search = GridSearchCV(Ridge(), {"alpha": alphas}, cv=PredefinedSplit(group), scoring=SCORERS[scoring])
    search.fit(x, y)
    scores = np.stack([search.cv_results_[f"split{i}_test_score"] for i in range(group.max() + 1)])
    return scores, search


@pytest.mark.parametrize(
    ("precision", "score_tolerance", "coef_tolerance"), [("float64", 1e-10, 1e-9), ("float32", 1e-6, 1e-4)]
)
@pytest.mark.parametrize("scoring", ["uniform", "variance_weighted"])
def test_path_equals_grid_search_with_an_outlier_dimension(precision, score_tolerance, coef_tolerance, scoring):
    data = residual_stream(2000, 40)
    group = np.random.default_rng(1).choice(5, size=2000, p=[0.1, 0.15, 0.2, 0.25, 0.3])
    paths = fit_ridge_path(
        moments_of(data, group, precision), X, [Y, Z], range(5), ALPHAS, relative=False, scoring=scoring
    )
    for target in (Y, Z):
        path = paths[target]
        for name in SCORERS:
            scores, search = grid_search(data[X], data[target], group, name)
            np.testing.assert_allclose(path.scores[name], scores, rtol=0, atol=score_tolerance)
            if name == scoring:
                assert path.fit.alpha == search.best_params_["alpha"]
                assert path.alphas[path.best] == path.fit.alpha
                np.testing.assert_allclose(
                    path.mean_scores, search.cv_results_["mean_test_score"], atol=score_tolerance
                )
                truth = search.best_estimator_
                error = np.linalg.norm(path.fit.weight.numpy() - truth.coef_.T)
                assert error < coef_tolerance * np.linalg.norm(truth.coef_)
                predicted = data[X] @ path.fit.weight.numpy() + path.fit.bias.numpy()
                spread = data[target].std(0)
                assert np.max(np.abs(predicted - truth.predict(data[X])) / spread) < 10 * coef_tolerance


def test_a_bad_shift_costs_little_in_float64():
    data = residual_stream(600, 10)
    group = np.arange(600) % 3
    shift = {h: torch.zeros(10) for h in data}
    path = fit_ridge_path(moments_of(data, group, shift=shift), X, [Y], range(3), ALPHAS, relative=False)[Y]
    np.testing.assert_allclose(path.scores["uniform"], grid_search(data[X], data[Y], group)[0], rtol=0, atol=1e-9)


def test_relative_alphas_are_shares_of_the_mean_eigenvalue_of_the_whole_training_scatter():
    data = residual_stream(600, 10)
    group = np.arange(600) % 4
    moments = moments_of(data, group)
    unit = 450 * data[X][group != 2].var(0).mean()
    relative = fit_ridge_path(moments, X, [Y], [0, 1, 3], [1e-4, 1e-2, 1.0])[Y]
    np.testing.assert_allclose(relative.alphas, unit * np.array([1e-4, 1e-2, 1.0]), rtol=1e-12)
    assert relative.relative_alphas.tolist() == [1e-4, 1e-2, 1.0]  # as they were given, to the last bit
    absolute = fit_ridge_path(moments, X, [Y], [0, 1, 3], relative.alphas.tolist(), relative=False)[Y]
    torch.testing.assert_close(relative.scores["uniform"], absolute.scores["uniform"])
    assert relative.fit.relative_alpha == pytest.approx(relative.fit.alpha / unit)


def test_held_out_groups_do_not_touch_the_fit():
    data = residual_stream(600, 10)
    group = np.arange(600) % 4
    part = group != 2
    path = fit_ridge_path(moments_of(data, group), X, [Y], [0, 1, 3], ALPHAS, relative=False)[Y]
    compact = np.searchsorted([0, 1, 3], group[part])
    scores, search = grid_search(data[X][part], data[Y][part], compact)
    np.testing.assert_allclose(path.scores["uniform"], scores, rtol=0, atol=1e-10)
    np.testing.assert_allclose(path.fit.weight, search.best_estimator_.coef_.T, rtol=1e-7, atol=1e-9)


def test_constant_outputs_count_as_scikit_learn_counts_them():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((120, 5))
    y = x @ rng.standard_normal((5, 4)) + rng.standard_normal((120, 4))
    group = np.repeat(np.arange(3), 40)
    y[:, 1] = 3.0
    y[group == 1, 2] = -2.0
    moments = moments_of({X: x, Y: y}, group)
    path = fit_ridge_path(moments, X, [Y], range(3), ALPHAS, relative=False)[Y]
    for name in SCORERS:
        np.testing.assert_allclose(path.scores[name], grid_search(x, y, group, name)[0], rtol=0, atol=1e-10)
    y[:] = [0.0, 3.0, -1.0, 7.0]
    path = fit_ridge_path(moments_of({X: x, Y: y}, group), X, [Y], range(3), ALPHAS, relative=False)[Y]
    assert path.scores["uniform"].eq(1).all()
    assert path.scores["variance_weighted"].eq(1).all()
    np.testing.assert_allclose(path.fit.bias, [0.0, 3.0, -1.0, 7.0], rtol=1e-12)


@pytest.mark.parametrize("n", [12, 400])
def test_one_alpha_equals_ridge_also_with_fewer_rows_than_dimensions(n):
    data = residual_stream(n, 20)
    moments = moments_of(data, np.zeros(n, dtype=np.int64))
    fits = fit_ridge(moments, X, [Y, Z], [0], 2.5, relative=False)
    for target in (Y, Z):
        truth = Ridge(2.5, solver="svd").fit(data[X], data[target])
        np.testing.assert_allclose(fits[target].weight, truth.coef_.T, rtol=1e-6, atol=1e-8)
        np.testing.assert_allclose(fits[target].bias, truth.intercept_, rtol=1e-6, atol=1e-6)
    relative = fit_ridge(moments, X, [Y], [0], 0.1)[Y]
    assert relative.alpha == pytest.approx(0.1 * n * data[X].var(0).mean())


def test_an_alpha_below_rounding_still_gives_the_ridge_fit():
    rng = np.random.default_rng(0)
    x = np.repeat(rng.integers(-9, 10, (300, 3)), 2, axis=1).astype(float)
    y = x[:, ::2] @ rng.standard_normal((3, 2)) + rng.standard_normal((300, 2))
    fit = fit_ridge(moments_of({X: x, Y: y}, np.zeros(300, dtype=np.int64)), X, [Y], [0], 1e-14, relative=False)[Y]
    predicted = x @ fit.weight.numpy() + fit.bias.numpy()
    np.testing.assert_allclose(predicted, LinearRegression().fit(x, y).predict(x), atol=1e-2)


def test_cross_validation_with_fewer_rows_than_dimensions():
    data = residual_stream(24, 30)
    group = np.arange(24) % 3
    path = fit_ridge_path(moments_of(data, group), X, [Y], range(3), [0.1, 10.0], relative=False)[Y]
    scores, _ = grid_search(data[X], data[Y], group, alphas=[0.1, 10.0])
    np.testing.assert_allclose(path.scores["uniform"], scores, rtol=1e-6, atol=1e-6)


def test_least_squares_equals_linear_regression():
    data = residual_stream(1000, 20)
    for precision, tolerance in (("float64", 1e-9), ("float32", 1e-4)):
        moments = moments_of(data, np.arange(1000) % 2, precision)
        fits = fit_least_squares(moments, X, [Y, Z], [0, 1])
        for target in (Y, Z):
            truth = LinearRegression().fit(data[X], data[target])
            error = np.linalg.norm(fits[target].weight.numpy() - truth.coef_.T)
            assert error < tolerance * np.linalg.norm(truth.coef_)
            assert (fits[target].rank, fits[target].alpha) == (20, 0.0)


def test_least_squares_of_a_deficient_source_reports_its_rank():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((200, 8))
    x[:, 5] = 1e-4 * (x[:, 0] - 2 * x[:, 1])
    x[:, 6] = 1000 * x[:, 2] + 50
    x[:, 7] = 0.1
    y = x[:, :5] @ rng.standard_normal((5, 3)) + rng.standard_normal((200, 3))
    fit = fit_least_squares(moments_of({X: x, Y: y}, np.zeros(200, dtype=np.int64)), X, [Y], [0])[Y]
    assert fit.rank == 5
    predicted = x @ fit.weight.numpy() + fit.bias.numpy()
    np.testing.assert_allclose(predicted, LinearRegression().fit(x, y).predict(x), atol=1e-7)
    few = fit_least_squares(moments_of({X: x[:4, :5], Y: y[:4]}, np.zeros(4, dtype=np.int64)), X, [Y], [0])[Y]
    assert few.rank == 3
    np.testing.assert_allclose(x[:4, :5] @ few.weight.numpy() + few.bias.numpy(), y[:4], atol=1e-8)


def test_an_optimum_at_the_end_of_the_grid_is_flagged():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((90, 20))
    y = x @ rng.standard_normal((20, 3)) + 5 * rng.standard_normal((90, 3))
    moments = moments_of({X: x, Y: y}, np.arange(90) % 3)

    def path(alphas):
        return fit_ridge_path(moments, X, [Y], range(3), alphas)[Y]

    inside = path([10.0, 1e3, 1e-6, 1.0])
    assert (inside.best, inside.at_edge) == (3, False)
    assert path([1.0, 10.0, 1e3]).at_edge
    assert path([1e-6, 1.0]).at_edge
    assert not path([1.0]).at_edge


@pytest.mark.parametrize("scoring", ["uniform", "variance_weighted"])
def test_each_output_gets_the_alpha_that_grid_search_finds_for_it_alone(scoring):
    rng = np.random.default_rng(3)
    n, d = 150, 20
    x = rng.standard_normal((n, d))
    x[:, 3] = 2000 + 300 * rng.standard_normal(n)
    y = x @ rng.standard_normal((d, 6)) + rng.standard_normal((n, 6)) * [0.1, 3, 10, 30, 100, 1000]
    group = rng.choice(4, size=n, p=[0.1, 0.2, 0.3, 0.4])
    moments = moments_of({X: x, Y: y}, group)
    path = fit_ridge_path(moments, X, [Y], range(4), ALPHAS, relative=False, scoring=scoring, per_output=True)[Y]
    chosen, held_out = [], np.full((4, 6), np.nan)
    for output in range(6):
        scores, search = grid_search(x, y[:, output], group)
        chosen.append(search.best_params_["alpha"])
        held_out[:, output] = scores[:, search.best_index_]
        np.testing.assert_allclose(path.fit.weight[:, output], search.best_estimator_.coef_, rtol=1e-7, atol=1e-9)
        assert path.fit.bias[output] == pytest.approx(search.best_estimator_.intercept_, rel=1e-7)
    assert len(set(chosen)) > 2
    assert path.fit.details["output_alphas"] == chosen
    assert path.fit.alpha is None
    assert path.output_share.tolist() == [chosen.count(alpha) / 6 for alpha in ALPHAS]
    assert path.edge_share == pytest.approx((chosen.count(ALPHAS[0]) + chosen.count(ALPHAS[-1])) / 6)
    # the score is that of all outputs with their own alphas, and can't be worse than with one for all
    sst = np.stack([((y[group == fold] - y[group == fold].mean(0)) ** 2).sum(0) for fold in range(4)])
    weights = np.ones_like(sst) if scoring == "uniform" else sst
    expected = ((held_out * weights).sum(1) / weights.sum(1)).mean()
    assert path.best_score == pytest.approx(expected, abs=1e-10)
    shared = fit_ridge_path(moments, X, [Y], range(4), ALPHAS, relative=False, scoring=scoring)[Y]
    torch.testing.assert_close(path.scores, shared.scores)
    if scoring == "uniform":
        assert path.best_score > shared.best_score


def test_bad_requests_are_refused():
    data = residual_stream(60, 5)
    group = np.arange(60) % 3
    moments = moments_of(data, group, n_groups=5)
    with pytest.raises(StrataError, match=r"groups \[3\] hold no rows"):
        fit_ridge_path(moments, X, [Y], range(4), ALPHAS)
    with pytest.raises(StrataError, match="at least 2 folds"):
        fit_ridge_path(moments, X, [Y], [0], ALPHAS)
    with pytest.raises(StrataError, match="not distinct"):
        fit_ridge_path(moments, X, [Y], [0, 1, 1], ALPHAS)
    for alphas in ([], [0.0], [-1.0], [float("nan")], [float("inf")]):
        with pytest.raises(StrataError, match="alphas above 0"):
            fit_ridge_path(moments, X, [Y], range(3), alphas)
    moments.update({h: torch.from_numpy(rows[:1]) for h, rows in data.items()}, torch.tensor([3]))
    with pytest.raises(StrataError, match="at least 2 rows"):
        fit_ridge_path(moments, X, [Y], range(4), ALPHAS)
    data[X][:] = 1.5
    constant = moments_of(data, group)
    with pytest.raises(StrataError, match=r"resid_post\.0 is the same in all 60 rows"):
        fit_ridge(constant, X, [Y], range(3), 1.0)
    assert fit_ridge(constant, X, [Y], range(3), 1.0, relative=False)[Y].weight.abs().max() == 0
    with pytest.raises(StrataError, match=r"resid_post\.0 is the same in all 60 rows"):
        fit_least_squares(constant, X, [Y], range(3))
