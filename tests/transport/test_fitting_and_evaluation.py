"""From a store on disk to judged operators, against scikit-learn on the same rows in memory."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LinearRegression, Ridge
from sklearn.metrics import mean_squared_error, r2_score
from sklearn.metrics.pairwise import paired_cosine_distances
from sklearn.model_selection import GridSearchCV, PredefinedSplit

from src.activations.passes import accumulate_moments, rows_by_part
from src.errors import StrataError
from src.hook_points import HookPoint
from src.text import Keep
from src.transport.evaluate import IDENTITY, MEAN, OPERATOR, SHIFT, PairJudge, judge_pairs
from src.transport.fitting import RidgeSettings, fit_pairs
from src.transport.metrics import SequenceBootstrap
from src.transport.pairs import LayerPair
from src.transport.saved import choose_operators, save_operators
from tests.fixtures.stores import make_store

HOOK = "resid_post"
PAIR = LayerPair(0, 2)
SOURCE, TARGET = HookPoint(HOOK, 0), HookPoint(HOOK, 2)
ALPHAS = (0.1, 10.0, 1000.0)
N_FOLDS, VAL, TEST = 3, 3, 4
D = 6


@pytest.fixture(scope="module")
def data():
    """20 sequences with an outlier dimension and a BOS row that is huge and the same in every sequence."""
    rng = np.random.default_rng(7)
    lengths = rng.integers(5, 30, 20).tolist()
    n = sum(lengths)
    x = rng.normal(size=(n, D)) * [1, 1, 2, 300, 1, 1] + [0, 0, 1, 2000, 0, 0]
    y = x @ (np.eye(D) + 0.3 * rng.normal(size=(D, D))) + 5 + rng.normal(size=(n, D))
    first = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    x[first], y[first] = 900.0, -700.0
    keep = np.zeros(n, np.uint8)
    keep[first] = Keep.BOS
    sequence = np.repeat(np.arange(20), lengths)
    groups = (np.arange(20) % 5).astype(np.int8)
    return {
        "x": x.astype(np.float32),
        "y": y.astype(np.float32),
        "lengths": lengths,
        "keep": keep,
        "sequence": sequence,
        "groups": groups,
        "row_group": groups[sequence],
        "counted": keep == 0,
    }


@pytest.fixture(scope="module")
def store(data, tmp_path_factory):
    activations = {SOURCE: data["x"], HookPoint(HOOK, 1): data["x"], TARGET: data["y"]}
    return make_store(tmp_path_factory.mktemp("store"), activations, data["lengths"], data["keep"])


@pytest.fixture(scope="module")
def moments(store, data):
    pairs = [(SOURCE, SOURCE), (SOURCE, TARGET)]
    seen = []
    result = accumulate_moments(store, pairs, data["groups"], 5, "float64", torch.device("cpu"), seen.append)
    assert sum(seen) == len(data["x"])
    return result


def rows(data, groups, *, bos=False):
    chosen = np.isin(data["row_group"], groups) & (data["counted"] | bos)
    return data["x"][chosen].astype(float), data["y"][chosen].astype(float)


def fit(moments, settings):
    (fitted,) = fit_pairs(moments, [PAIR], HOOK, range(N_FOLDS), VAL, settings)
    return fitted


def ridge(**changes):
    keys = {"auto_tune": True, "alphas": ALPHAS, "regularization": 1.0, "relative": False, "scoring": "uniform"}
    return RidgeSettings(**{**keys, **changes})


def test_tuned_ridge_is_grid_search_on_the_counted_rows(data, moments):
    x, y = rows(data, range(N_FOLDS))
    train = np.isin(data["row_group"], range(N_FOLDS)) & data["counted"]
    search = GridSearchCV(Ridge(), {"alpha": ALPHAS}, cv=PredefinedSplit(data["row_group"][train]), scoring="r2").fit(
        x, y
    )
    fitted = fit(moments, ridge())
    np.testing.assert_allclose(fitted.path.mean_scores.numpy(), search.cv_results_["mean_test_score"], atol=1e-9)
    assert fitted.operator.alpha == search.best_params_["alpha"]
    np.testing.assert_allclose(fitted.operator.weight.numpy(), search.best_estimator_.coef_.T, atol=1e-8)


def test_least_squares_is_linear_regression(data, moments):
    expected = LinearRegression().fit(*rows(data, range(N_FOLDS)))
    operator = fit(moments, None).operator
    np.testing.assert_allclose(operator.weight.numpy(), expected.coef_.T, atol=1e-8)
    np.testing.assert_allclose(operator.bias.numpy(), expected.intercept_, atol=1e-5)


def test_a_given_relative_alpha_is_in_units_of_the_mean_square(data, moments):
    x, y = rows(data, range(N_FOLDS))
    unit = ((x - x.mean(0)) ** 2).sum() / D
    expected = Ridge(alpha=0.01 * unit).fit(x, y)
    operator = fit(moments, ridge(auto_tune=False, regularization=0.01, relative=True)).operator
    np.testing.assert_allclose(operator.weight.numpy(), expected.coef_.T, rtol=1e-7, atol=1e-10)


def test_held_out_scores_come_from_moments_alone(data, moments):
    fitted = fit(moments, ridge())
    x, y = rows(data, [VAL])
    train_x, train_y = rows(data, range(N_FOLDS))
    predictions = {
        "val": fitted.operator.predict(x),
        "identity": x,
        "shift": x + (train_y.mean(0) - train_x.mean(0)),
    }
    for name, prediction in predictions.items():
        score = getattr(fitted, name)
        assert score.r2_uniform == pytest.approx(r2_score(y, prediction), abs=1e-8)
        assert score.r2_variance_weighted == pytest.approx(
            r2_score(y, prediction, multioutput="variance_weighted"), abs=1e-8
        )
        assert score.mse == pytest.approx(mean_squared_error(y, prediction), rel=1e-8)


@pytest.fixture(scope="module")
def judgements(store, data, moments):
    fitted = fit(moments, ridge())
    training = moments.subset(range(N_FOLDS))
    means = {point: training.mean(point) for point in (SOURCE, TARGET)}
    judge = PairJudge(fitted.operator, means, SequenceBootstrap(50, 0), torch.device("cpu"))
    batches = rows_by_part(store, [SOURCE, TARGET], data["groups"], [TEST])
    (judged,) = judge_pairs([judge], batches, lambda count: None)
    return fitted, {judgement.predictor: judgement for judgement in judged}


def predictions_of(data, fitted, x):
    train_x, train_y = rows(data, range(N_FOLDS))
    return {
        OPERATOR: fitted.operator.predict(x),
        IDENTITY: x,
        SHIFT: x + train_y.mean(0) - train_x.mean(0),
        MEAN: np.broadcast_to(train_y.mean(0), x.shape),
    }


def test_every_predictor_is_scored_on_the_test_rows(data, judgements):
    fitted, judged = judgements
    x, y = rows(data, [TEST])
    predictions = predictions_of(data, fitted, x)
    assert set(judged) == set(predictions)
    sse_identity = ((y - x) ** 2).sum()
    for name, prediction in predictions.items():
        metrics = judged[name].metrics
        assert metrics.n_rows == len(y)
        assert metrics.r2_uniform.value == pytest.approx(r2_score(y, prediction), abs=1e-8)
        assert metrics.mse.value == pytest.approx(mean_squared_error(y, prediction), rel=1e-8)
        assert metrics.cosine.value == pytest.approx(1 - paired_cosine_distances(y, prediction).mean(), abs=1e-8)
        assert judged[name].skill.value == pytest.approx(1 - ((y - prediction) ** 2).sum() / sse_identity, abs=1e-9)
        per_dimension = r2_score(y, prediction, multioutput="raw_values")
        np.testing.assert_allclose(judged[name].dimensions.numpy(), per_dimension, atol=1e-8)
        low, high = metrics.mse.low, metrics.mse.high
        assert low <= metrics.mse.value <= high


def test_bos_rows_are_scored_apart(data, judgements):
    fitted, judged = judgements
    x, y = rows(data, [TEST], bos=True)
    for name, prediction in predictions_of(data, fitted, x).items():
        with_bos = judged[name].with_bos
        assert with_bos.n_rows == len(y) > judged[name].metrics.n_rows
        assert with_bos.r2_uniform.value == pytest.approx(r2_score(y, prediction), abs=1e-8)


def test_operators_on_disk_are_found_again_and_ambiguity_is_refused(tmp_path, data, moments):
    from src.artifacts import Plan, create_artifact, open_artifact
    from tests.fixtures.stores import PROVENANCE

    def save(name, settings, fitting):
        fitted = fit(moments, settings)
        plan = Plan(tmp_path, "operators", "x", {"fitting": fitting}, name=name)
        with create_artifact(plan, PROVENANCE) as draft:
            save_operators(draft.path, [fitted], moments.subset(range(N_FOLDS)))
            draft.summary = {"pairs": [[PAIR.L, PAIR.k]], "fitting": fitting}
        return fitted, open_artifact(plan.path, "operators")

    fitted, tuned = save("tuned", ridge(), {"method": "ridge"})
    _, again = save("again", ridge(), {"method": "ridge"})
    _, linear = save("linear", None, {"method": "linear"})
    saved = choose_operators([tuned, again], None)[PAIR]
    assert torch.equal(saved.load().weight, fitted.operator.weight)
    torch.testing.assert_close(saved.means()[TARGET], moments.subset(range(N_FOLDS)).mean(TARGET))
    with pytest.raises(StrataError, match=r"different settings[\s\S]*operators=tuned\s+operators=linear"):
        choose_operators([tuned, linear], None)
    with pytest.raises(StrataError, match=r"no operator for L1_k1 \(there: L0_k2\)"):
        choose_operators([tuned], [LayerPair(1, 1)])
