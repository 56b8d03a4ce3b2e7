import numpy as np
import pytest
import torch
from sklearn.compose import TransformedTargetRegressor
from sklearn.linear_model import ElasticNet, LinearRegression, Ridge
from sklearn.metrics import make_scorer, r2_score
from sklearn.model_selection import GridSearchCV, PredefinedSplit
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from src.errors import StrataError
from src.transport.closed_form import score_affine
from src.transport.elastic_net import fit_elastic_net, fit_elastic_net_path
from src.transport.preprocessing import Preprocessing, difference, standardised
from src.transport.solvers import fit_least_squares, fit_ridge, fit_ridge_path
from tests.fixtures.residual_streams import X, Y, Z, moments_of, residual_stream

ALPHAS = [1.0, 10.0, 100.0, 3000.0]
NORMALIZED, DELTA = Preprocessing(normalize=True), Preprocessing(target="delta")
BOTH = Preprocessing(normalize=True, target="delta")
SCORERS = {
    "uniform": make_scorer(r2_score),
    "variance_weighted": make_scorer(r2_score, multioutput="variance_weighted"),
}


class DeltaRegressor(TransformedTargetRegressor):
    """Fits y - x, row by row, and predicts y."""

    def fit(self, X, y):
        super().fit(X, y - X)
        return self

    def predict(self, X):
        return super().predict(X) + X


def peer(model, preprocessing):
    """What scikit-learn calls the same: scalers that are fitted with the model, on training rows alone."""
    scaler = StandardScaler() if preprocessing.normalize else FunctionTransformer()
    kind = DeltaRegressor if preprocessing.target == "delta" else TransformedTargetRegressor
    return kind(regressor=make_pipeline(scaler, model), transformer=scaler)


def grid_search(model, alphas, preprocessing, data, group, target):
    search = GridSearchCV(
        peer(model, preprocessing),
        {f"regressor__{type(model).__name__.lower()}__alpha": alphas},
        cv=PredefinedSplit(group),
        scoring=SCORERS,
        refit="uniform",
    )
    return search.fit(data[X], data[target])


def assert_predicts_alike(fit, model, data, target, tolerance=1e-6):
    error = data[X] @ fit.weight.numpy() + fit.bias.numpy() - model.predict(data[X])
    assert np.abs(error / data[target].std(0)).max() < tolerance


@pytest.fixture(scope="module")
def data():
    return residual_stream(500, 10)


@pytest.fixture(scope="module")
def group():
    return np.random.default_rng(1).choice(3, size=500, p=[0.2, 0.3, 0.5])


@pytest.mark.parametrize("preprocessing", [NORMALIZED, DELTA, BOTH], ids=["normalize", "delta", "both"])
def test_ridge_paths_equal_grid_search_over_a_pipeline(data, group, preprocessing):
    moments = moments_of(data, group)
    for scoring in SCORERS:
        paths = fit_ridge_path(moments, X, [Y, Z], range(3), ALPHAS, False, scoring, preprocessing)
        for target in (Y, Z):
            search = grid_search(Ridge(), ALPHAS, preprocessing, data, group, target)
            for name in SCORERS:
                expected = np.stack([search.cv_results_[f"split{fold}_test_{name}"] for fold in range(3)])
                np.testing.assert_allclose(paths[target].scores[name], expected, rtol=0, atol=1e-8)
            if scoring == "uniform":
                assert paths[target].fit.alpha == next(iter(search.best_params_.values()))
                assert_predicts_alike(paths[target].fit, search.best_estimator_, data, target, 1e-8)


@pytest.mark.parametrize("preprocessing", [NORMALIZED, DELTA, BOTH], ids=["normalize", "delta", "both"])
def test_elastic_net_paths_equal_grid_search_over_a_pipeline(data, group, preprocessing):
    alphas = [0.3, 0.03, 0.003]
    moments = moments_of(data, group)
    path = fit_elastic_net_path(
        moments, X, [Y], range(3), alphas, [0.5], False, preprocessing=preprocessing, max_iter=50_000, tol=1e-13
    )[Y]
    model = ElasticNet(l1_ratio=0.5, tol=1e-13, max_iter=100_000)
    search = grid_search(model, alphas, preprocessing, data, group, Y)
    for name in SCORERS:
        expected = np.stack([search.cv_results_[f"split{fold}_test_{name}"] for fold in range(3)])
        np.testing.assert_allclose(path.scores[name], expected, rtol=0, atol=1e-6)
    assert path.fit.alpha == next(iter(search.best_params_.values()))
    assert_predicts_alike(path.fit, search.best_estimator_, data, Y)
    coefficients = search.best_estimator_.regressor_[-1].coef_
    assert path.fit.details["nonzero_per_output"] == (coefficients != 0).sum(1).tolist()


@pytest.mark.parametrize("preprocessing", [Preprocessing(), NORMALIZED, DELTA, BOTH])
def test_least_squares_is_the_same_in_all_variables(data, group, preprocessing):
    fit = fit_least_squares(moments_of(data, group), X, [Y], range(3), preprocessing)[Y]
    assert_predicts_alike(fit, LinearRegression().fit(data[X], data[Y]), data, Y)


def test_each_output_gets_its_own_alpha_in_prepared_variables(data, group):
    path = fit_ridge_path(
        moments_of(data, group), X, [Y], range(3), ALPHAS, False, preprocessing=BOTH, per_output=True
    )[Y]
    scores = np.zeros((len(ALPHAS), 10))
    for fold in range(3):
        train, held_out = group != fold, group == fold
        for place, alpha in enumerate(ALPHAS):
            model = peer(Ridge(alpha), BOTH).fit(data[X][train], data[Y][train])
            prediction = model.predict(data[X][held_out])
            scores[place] += r2_score(data[Y][held_out], prediction, multioutput="raw_values") / 3
    best = scores.argmax(0)
    assert path.per_output.best.tolist() == best.tolist()
    assert len(set(best)) > 1
    assert path.best_score == pytest.approx(scores.max(0).mean(), abs=1e-9)
    for output, place in enumerate(best):
        model = peer(Ridge(ALPHAS[place]), BOTH).fit(data[X], data[Y])
        error = data[X] @ path.fit.weight.numpy() + path.fit.bias.numpy() - model.predict(data[X])
        assert np.abs(error[:, output] / data[Y][:, output].std()).max() < 1e-8


def test_relative_units_are_those_of_the_standardised_rows(data, group):
    moments = moments_of(data, group)
    assert fit_ridge(moments, X, [Y], range(3), 0.01, preprocessing=NORMALIZED)[Y].alpha == pytest.approx(5.0)
    lasso = fit_elastic_net(moments, X, [Y], range(3), 1.0, preprocessing=NORMALIZED)[Y]
    correlations = np.corrcoef(data[X].T, data[Y].T)[:10, 10:]
    assert lasso.alpha == pytest.approx(np.abs(correlations).max())


def test_a_strong_penalty_on_the_difference_leaves_the_identity_with_a_shift(data, group):
    moments = moments_of(data, group)
    mean = torch.from_numpy((data[Y] - data[X]).mean(0))
    for fit in (
        fit_ridge(moments, X, [Y], range(3), 1e12, preprocessing=BOTH)[Y],
        fit_elastic_net(moments, X, [Y], range(3), 2.0, preprocessing=DELTA)[Y],
    ):
        torch.testing.assert_close(fit.weight, torch.eye(10, dtype=torch.float64), atol=1e-9, rtol=0)
        torch.testing.assert_close(fit.bias, mean, rtol=1e-5, atol=1e-8)


def test_dimensions_that_do_not_vary_keep_their_scale():
    """Neither as they are, nor as a difference: dimension 1 of y is that of x, plus 3."""
    data = residual_stream(300, 6)
    data[X][:, 2], data[Y][:, 4] = 5.0, -2.0
    data[Y][:, 1] = data[X][:, 1] + 3.0
    moments = moments_of(data, np.arange(300) % 3)
    total = moments.subset(range(3))
    assert NORMALIZED.of(total, X, [Y]).scale[X][2] == 1
    assert NORMALIZED.of(total, X, [Y]).scale[Y][4] == 1
    assert BOTH.of(total, X, [Y]).scale[Y][1] == 1
    for preprocessing in (NORMALIZED, BOTH):
        fit = fit_ridge(moments, X, [Y], range(3), 10.0, False, preprocessing)[Y]
        assert_predicts_alike(fit, peer(Ridge(10.0), preprocessing).fit(data[X], data[Y]), data, Z, 1e-8)


def test_statistics_of_changed_variables_are_those_of_changed_rows(data, group):
    moments = moments_of(data, group)
    held_out, train = moments.subset([1]), moments.subset([0, 2])
    scale = {point: torch.linspace(0.1, 30, 10, dtype=torch.float64) for point in (X, Y)}
    changed = {X: data[X] / scale[X].numpy(), Y: (data[Y] - data[X]) / scale[Y].numpy()}
    expected = moments_of(changed, group)

    def change(rows):
        return standardised(difference(rows, X, [Y]), scale)

    for point in (X, Y):
        about = change(train)
        torch.testing.assert_close(change(held_out).mean(point), torch.from_numpy(changed[point][group == 1].mean(0)))
        torch.testing.assert_close(
            change(held_out).scatter(X, point, about=about),
            expected.subset([1]).scatter(X, point, about=expected.subset([0, 2])),
            rtol=1e-8,
            atol=1e-6,
        )
        torch.testing.assert_close(
            change(held_out).square_scatter(point, about=about),
            expected.subset([1]).square_scatter(point, about=expected.subset([0, 2])),
        )


def test_operators_of_standardised_fits_are_scored_on_raw_rows(data, group):
    """The reference scaled x but not y in its score, which came out negative."""
    moments = moments_of(data, group)
    fit = fit_ridge(moments, X, [Y], [0, 1], 1.0, False, NORMALIZED)[Y]
    held_out = group == 2
    prediction = data[X][held_out] @ fit.weight.numpy() + fit.bias.numpy()
    score = score_affine(moments.subset([2]), X, Y, fit.weight, fit.bias)
    assert score.r2_uniform == pytest.approx(r2_score(data[Y][held_out], prediction), abs=1e-9)
    assert score.r2_uniform > 0.5


def test_a_difference_needs_equal_widths():
    rng = np.random.default_rng(0)
    moments = moments_of({X: rng.standard_normal((30, 4)), Y: rng.standard_normal((30, 5))}, np.arange(30) % 3)
    with pytest.raises(StrataError, match=r"target=delta needs equal widths.*resid_post.0 has 4 dim.*resid_post.1 5"):
        fit_ridge(moments, X, [Y], range(3), 1.0, preprocessing=DELTA)
    assert fit_ridge(moments, X, [Y], range(3), 1.0, preprocessing=NORMALIZED)[Y].weight.shape == (4, 5)
