import numpy as np
import pytest
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV, GroupKFold, KFold, ShuffleSplit
from sklearn.utils.estimator_checks import parametrize_with_checks

from src.transport.estimator import RidgeTransport


@parametrize_with_checks([RidgeTransport(cv=3)])
def test_estimator_protocol(estimator, check):
    check(estimator)


def data(n: int = 300, d: int = 12, outputs: int = 3) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((n, d)) * rng.uniform(0.1, 3, d)
    return x, x @ rng.standard_normal((d, outputs)) + 2 * rng.standard_normal((n, outputs)), np.arange(n) // 7


@pytest.mark.parametrize("grouped", [False, True])
def test_equals_grid_search_over_ridge(grouped):
    x, y, sequence = data()
    groups = sequence if grouped else None
    alphas = [0.1, 10.0, 100.0, 1000.0]
    ours = RidgeTransport(alphas, relative=False).fit(x, y, groups)
    splitter = GroupKFold(5) if grouped else KFold(5)
    truth = GridSearchCV(Ridge(), {"alpha": alphas}, cv=splitter, scoring="r2").fit(x, y, groups=groups)
    assert ours.alpha_ == truth.best_params_["alpha"]
    np.testing.assert_allclose(ours.cv_scores_.mean(0), truth.cv_results_["mean_test_score"], atol=1e-10)
    np.testing.assert_allclose(ours.coef_, truth.best_estimator_.coef_, atol=1e-9)
    np.testing.assert_allclose(ours.predict(x), truth.predict(x), atol=1e-9)
    assert ours.score(x, y) == pytest.approx(truth.score(x, y))


def test_a_single_output_has_the_shapes_of_ridge():
    x, y, _ = data()
    ours = RidgeTransport().fit(x.astype(np.float32), y[:, 0].astype(np.float32))
    truth = Ridge(ours.alpha_).fit(x, y[:, 0])
    assert ours.coef_.shape == truth.coef_.shape
    np.testing.assert_allclose(ours.coef_, truth.coef_, atol=1e-5)
    assert ours.predict(x).shape == (300,)


def test_splits_that_are_no_partition_are_refused():
    x, y, _ = data()
    with pytest.raises(ValueError, match="every row exactly once"):
        RidgeTransport(cv=ShuffleSplit(3, random_state=0)).fit(x, y)
    with pytest.raises(ValueError, match="alphas above 0"):
        RidgeTransport(alphas=[-1.0]).fit(x, y)
    with pytest.raises(ValueError, match="choose one of uniform, variance_weighted"):
        RidgeTransport(scoring="r2").fit(x, y)
