import warnings

import numpy as np
import pytest
import torch
from sklearn.linear_model import ElasticNet, Lasso
from sklearn.metrics import make_scorer, r2_score
from sklearn.model_selection import GridSearchCV, PredefinedSplit

from src.errors import StrataError
from src.transport.elastic_net import Sparsity, fit_elastic_net, fit_elastic_net_path
from tests.fixtures.residual_streams import X, Y, Z, moments_of, residual_stream

EXACT = {"max_iter": 50_000, "tol": 1e-13}
SCORERS = {
    "uniform": make_scorer(r2_score),
    "variance_weighted": make_scorer(r2_score, multioutput="variance_weighted"),
}


def plain(n=300, d=12):
    rng = np.random.default_rng(5)
    x = rng.standard_normal((n, d)) @ (np.eye(d) + 0.3 * rng.standard_normal((d, d))) + 1
    weight = rng.standard_normal((2, d, d)) * (rng.random((2, d, d)) < 0.2)
    return {X: x, **{h: x @ w + rng.standard_normal((n, d)) for h, w in zip((Y, Z), weight, strict=True)}}


DATA = {"plain": plain, "outlier": lambda: residual_stream(400, 12)}


def sklearn_fit(x, y, alpha, l1_ratio):
    model = Lasso(alpha) if l1_ratio == 1 else ElasticNet(alpha, l1_ratio=l1_ratio)
    return model.set_params(tol=1e-13, max_iter=100_000).fit(x, y)


@pytest.mark.parametrize("data", DATA.values(), ids=DATA)
@pytest.mark.parametrize("l1_ratio", [1.0, 0.5, 0.05])
@pytest.mark.parametrize("alpha", [0.003, 0.3])
def test_one_penalty_equals_scikit_learn(data, alpha, l1_ratio):
    data = data()
    moments = moments_of(data, np.zeros(len(data[X]), dtype=np.int64))
    fits = fit_elastic_net(moments, X, [Y, Z], [0], alpha, l1_ratio, relative=False, **EXACT)
    for target in (Y, Z):
        expected = sklearn_fit(data[X], data[target], alpha, l1_ratio)
        spread = data[X].std(0)[:, None] / data[target].std(0)  # so that every coefficient is in units of its own
        np.testing.assert_allclose(
            fits[target].weight.numpy() * spread, expected.coef_.T * spread, rtol=1e-6, atol=1e-6
        )
        prediction = data[X] @ fits[target].weight.numpy() + fits[target].bias.numpy()
        error = (prediction - expected.predict(data[X])) / data[target].std(0)
        assert np.abs(error).max() < 1e-6
        assert fits[target].alpha == alpha
        assert fits[target].details["unconverged_outputs"] == 0
        assert fits[target].details["zero_share"] == pytest.approx((expected.coef_ == 0).mean())
        assert fits[target].details["nonzero_per_output"] == (expected.coef_ != 0).sum(1).tolist()
        assert fits[target].details["inputs_used"] == (expected.coef_ != 0).any(0).sum()


@pytest.mark.parametrize("data", DATA.values(), ids=DATA)
@pytest.mark.parametrize("scoring", SCORERS)
def test_path_equals_grid_search(data, scoring):
    data = data()
    group = np.random.default_rng(1).choice(3, size=len(data[X]), p=[0.2, 0.3, 0.5])
    alphas, ratios = [0.1, 0.01, 1.0], [0.3, 1.0]
    paths = fit_elastic_net_path(moments_of(data, group), X, [Y, Z], range(3), alphas, ratios, False, scoring, **EXACT)
    for target in (Y, Z):
        path = paths[target]
        search = GridSearchCV(
            ElasticNet(tol=1e-13, max_iter=100_000),
            {"l1_ratio": ratios, "alpha": alphas},
            cv=PredefinedSplit(group),
            scoring=SCORERS,
            refit=scoring,
        )
        search.fit(data[X], data[target])
        # scikit-learn varies the last key fastest, in the order of the keys: alpha, then l1_ratio
        place = [
            search.cv_results_["params"].index({"alpha": float(alpha), "l1_ratio": float(ratio)})
            for alpha, ratio in zip(path.alphas, path.l1_ratios, strict=True)
        ]
        for name in SCORERS:
            expected = np.stack([search.cv_results_[f"split{fold}_test_{name}"][place] for fold in range(3)])
            np.testing.assert_allclose(path.scores[name], expected, rtol=0, atol=1e-6)
        assert path.fit.alpha == search.best_params_["alpha"]
        assert path.fit.details["l1_ratio"] == search.best_params_["l1_ratio"]
        assert path.best_score == pytest.approx(search.best_score_, abs=1e-6)
        truth = search.best_estimator_
        error = data[X] @ path.fit.weight.numpy() + path.fit.bias.numpy() - truth.predict(data[X])
        assert np.abs(error / data[target].std(0)).max() < 1e-6
        assert path.unconverged.sum() == 0


def test_relative_alphas_are_in_units_of_the_smallest_that_leaves_nothing():
    data = residual_stream(400, 12)
    moments = moments_of(data, np.arange(400) % 4)
    centred = data[X] - data[X].mean(0)
    for ratio in (1.0, 0.25):
        nothing = fit_elastic_net(moments, X, [Y, Z], range(4), 1.0 + 1e-9, ratio, **EXACT)
        something = fit_elastic_net(moments, X, [Y, Z], range(4), 1.0 - 1e-6, ratio, **EXACT)
        for target in (Y, Z):
            strongest = np.abs(centred.T @ data[target]).max() / (400 * ratio)
            assert nothing[target].alpha == pytest.approx(strongest, rel=1e-8)
            assert nothing[target].details["zero_share"] == 1.0
            assert something[target].details["nonzero_per_output"].count(0) == 11
    path = fit_elastic_net_path(moments, X, [Y], range(4), [0.5, 0.001, 0.1], [1.0, 0.25])[Y]
    assert path.relative_alphas.tolist() == [0.5, 0.001, 0.1] * 2
    assert path.l1_ratios.tolist() == [1.0] * 3 + [0.25] * 3
    np.testing.assert_allclose(path.alphas[3:], 4 * path.alphas[:3], rtol=1e-12)
    absolute = fit_elastic_net_path(moments, X, [Y], range(4), path.alphas[:3].tolist(), relative=False)[Y]
    torch.testing.assert_close(absolute.relative_alphas, path.relative_alphas[:3])
    torch.testing.assert_close(absolute.scores["uniform"], path.scores["uniform"][:, :3])


def test_an_optimum_at_the_end_of_the_grid_is_flagged_within_its_l1_ratio():
    data = plain()
    moments = moments_of(data, np.arange(300) % 3)
    inside = fit_elastic_net_path(moments, X, [Y], range(3), [0.5, 0.01, 1e-5], [1.0, 0.5])[Y]
    assert not inside.at_edge
    assert fit_elastic_net_path(moments, X, [Y], range(3), [0.5, 0.01], [1.0, 0.5])[Y].at_edge
    assert not fit_elastic_net_path(moments, X, [Y], range(3), [0.01], [1.0, 0.5])[Y].at_edge


def test_more_targets_and_ratios_change_nothing():
    data = plain()
    moments = moments_of(data, np.arange(300) % 3)
    alphas = [0.1, 0.01, 0.3]
    both = fit_elastic_net_path(moments, X, [Y, Z], range(3), alphas, [0.5, 1.0], **EXACT)
    for target in (Y, Z):
        alone = fit_elastic_net_path(moments, X, [target], range(3), alphas, [1.0], **EXACT)[target]
        torch.testing.assert_close(both[target].scores["uniform"][:, 3:], alone.scores["uniform"], rtol=0, atol=1e-9)


def test_constant_dimensions_keep_coefficients_of_zero():
    data = plain()
    data[X][:, 4], data[Y][:, 2] = 7.5, -3.25
    moments = moments_of(data, np.arange(300) % 3)
    path = fit_elastic_net_path(moments, X, [Y], range(3), [0.1, 0.001], **EXACT)[Y]
    assert path.fit.weight[4].abs().max() == 0
    assert path.fit.weight[:, 2].abs().max() == 0
    assert path.fit.bias[2] == pytest.approx(-3.25)
    assert path.fit.rank == 11
    search = GridSearchCV(
        Lasso(tol=1e-13, max_iter=100_000), {"alpha": path.alphas.tolist()}, cv=PredefinedSplit(np.arange(300) % 3)
    ).fit(data[X], data[Y])
    np.testing.assert_allclose(path.mean_scores, search.cv_results_["mean_test_score"], atol=1e-6)


def test_float32_moments_cost_little():
    data = residual_stream(400, 12)
    group = np.arange(400) % 4
    exact, rounded = (
        fit_elastic_net_path(moments_of(data, group, precision), X, [Y], range(4), [1e-5, 1e-7], **EXACT)[Y]
        for precision in ("float64", "float32")
    )
    torch.testing.assert_close(rounded.scores["uniform"], exact.scores["uniform"], rtol=0, atol=1e-5)
    error = torch.from_numpy(data[X] - data[X].mean(0)) @ (rounded.fit.weight - exact.fit.weight)
    assert (error.abs().max(0).values / data[Y].std(0)).max() < 1e-3


def test_sparsity_counts():
    sparsity = Sparsity.of(torch.tensor([[0.0, 1.0, 0.0], [0.0, 0.0, 0.0], [2.0, -1e-30, 0.0], [0.0, 0.0, 0.0]]))
    assert sparsity.zero_share == 0.75
    assert sparsity.inputs_used == 2
    assert sparsity.nonzero_per_output.tolist() == [1, 2, 0]


def test_what_does_not_converge_says_so():
    data = residual_stream(400, 12)
    moments = moments_of(data, np.arange(400) % 4)
    path = fit_elastic_net_path(moments, X, [Y], range(4), [0.5, 1e-6], max_iter=1, tol=1e-12)[Y]
    assert path.unconverged.shape == (4, 2)
    assert (path.unconverged[:, 1] == 12).all()
    stopped = fit_elastic_net(moments, X, [Y], range(4), 1e-6, max_iter=1, tol=1e-12)[Y]
    assert stopped.details["unconverged_outputs"] == 12
    assert fit_elastic_net(moments, X, [Y], range(4), 1e-6, **EXACT)[Y].details["unconverged_outputs"] == 0


def test_a_looser_tol_is_scikit_learn_s_rule():
    """The objective lies within tol * |y|^2 / n of the optimum, output by output."""
    data = residual_stream(400, 12)
    moments = moments_of(data, np.zeros(400, dtype=np.int64))
    alpha = 0.01

    def objective(weight):
        x, y = data[X] - data[X].mean(0), data[Y] - data[Y].mean(0)
        return ((y - x @ weight) ** 2).sum(0) / 800 + alpha * np.abs(weight).sum(0), (y**2).sum(0) / 400

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        best, square = objective(sklearn_fit(data[X], data[Y], alpha, 1.0).coef_.T)
    for tol in (1e-2, 1e-4):
        fit = fit_elastic_net(moments, X, [Y], [0], alpha, relative=False, tol=tol)[Y]
        excess = objective(fit.weight.numpy())[0] - best
        assert (excess <= tol * square).all()
        assert (excess > 1e-11 * square).any()  # or else tol would be without effect


def test_bad_requests_are_refused():
    data = plain()
    moments = moments_of(data, np.arange(300) % 3)
    for ratios in ([], [0.0], [1.1], [float("nan")]):
        with pytest.raises(StrataError, match=r"l1_ratio must be above 0 and at most 1.*0 is method=ridge"):
            fit_elastic_net_path(moments, X, [Y], range(3), [0.1], ratios)
    with pytest.raises(StrataError, match="alphas above 0"):
        fit_elastic_net_path(moments, X, [Y], range(3), [0.1, 0.0])
    with pytest.raises(StrataError, match="at least 2 folds"):
        fit_elastic_net_path(moments, X, [Y], [0], [0.1])
    data[X][:] = 2.0
    with pytest.raises(StrataError, match=r"resid_post\.0 is the same in all 300 rows"):
        fit_elastic_net(moments_of(data, np.arange(300) % 3), X, [Y], range(3), 0.1)
