"""From a store on disk to judged operators, against scikit-learn on the same rows in memory."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LinearRegression, Ridge
from sklearn.metrics import make_scorer, mean_squared_error, r2_score
from sklearn.metrics.pairwise import paired_cosine_distances
from sklearn.model_selection import GridSearchCV, PredefinedSplit

from src.activations.moments import Moments
from src.activations.passes import accumulate_moments, rows_by_part
from src.artifacts import Plan, create_artifact, open_artifact
from src.errors import StrataError
from src.hook_points import HookPoint
from src.text import Keep
from src.transport.bootstrap import DocumentBootstrap
from src.transport.evaluate import IDENTITY, MEAN, OPERATOR, SHIFT, judge_pairs
from src.transport.fitting import fit_pairs
from src.transport.pairs import LayerPair
from src.transport.saved import choose_operators, save_operators
from src.transport.settings import FitSettings
from tests.fixtures.stores import PROVENANCE, make_store

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
    pairs = [(SOURCE, SOURCE), (SOURCE, TARGET), (SOURCE, HookPoint(HOOK, 1))]
    seen = []
    result = accumulate_moments(store, pairs, data["groups"], 5, "float64", torch.device("cpu"), seen.append)
    assert sum(seen) == len(data["x"])
    return result


def rows(data, groups, *, bos=False):
    chosen = np.isin(data["row_group"], groups) & (data["counted"] | bos)
    return data["x"][chosen].astype(float), data["y"][chosen].astype(float)


def fit(moments, how):
    (fitted,) = fit_pairs(moments, [PAIR], HOOK, range(N_FOLDS), VAL, how)
    return fitted


def settings(**changes):
    keys = {
        "method": "ridge",
        "normalize": False,
        "target": "y",
        "auto_tune": True,
        "alphas": ALPHAS,
        "regularization": 1.0,
        "alpha_unit": "absolute",
        "alpha_per_output": False,
        "l1_ratio": 0.5,
        "l1_ratios": (0.2, 0.9),
        "scoring": "uniform",
        "max_iter": 20_000,
        "tol": 1e-10,
    }
    return FitSettings(**{**keys, **changes})


def test_tuned_ridge_is_grid_search_on_the_counted_rows(data, moments):
    x, y = rows(data, range(N_FOLDS))
    train = np.isin(data["row_group"], range(N_FOLDS)) & data["counted"]
    search = GridSearchCV(Ridge(), {"alpha": ALPHAS}, cv=PredefinedSplit(data["row_group"][train]), scoring="r2").fit(
        x, y
    )
    fitted = fit(moments, settings())
    np.testing.assert_allclose(fitted.path.mean_scores.numpy(), search.cv_results_["mean_test_score"], atol=1e-9)
    assert fitted.operator.alpha == search.best_params_["alpha"]
    np.testing.assert_allclose(fitted.operator.weight.numpy(), search.best_estimator_.coef_.T, atol=1e-8)


def test_least_squares_is_linear_regression(data, moments):
    expected = LinearRegression().fit(*rows(data, range(N_FOLDS)))
    operator = fit(moments, settings(method="linear")).operator
    np.testing.assert_allclose(operator.weight.numpy(), expected.coef_.T, atol=1e-8)
    np.testing.assert_allclose(operator.bias.numpy(), expected.intercept_, atol=1e-5)


def test_a_given_relative_alpha_is_in_units_of_the_mean_square(data, moments):
    x, y = rows(data, range(N_FOLDS))
    unit = ((x - x.mean(0)) ** 2).sum() / D
    expected = Ridge(alpha=0.01 * unit).fit(x, y)
    operator = fit(moments, settings(auto_tune=False, regularization=0.01, alpha_unit="relative")).operator
    np.testing.assert_allclose(operator.weight.numpy(), expected.coef_.T, rtol=1e-7, atol=1e-10)


def test_held_out_scores_come_from_moments_alone(data, moments):
    fitted = fit(moments, settings())
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
def judged(store, data, moments):
    fitted = fit(moments, settings())
    training = moments.subset(range(N_FOLDS))
    means = {point: training.mean(point) for point in (SOURCE, TARGET)}
    batches = rows_by_part(store, [SOURCE, TARGET], data["groups"], [TEST])
    bootstrap = DocumentBootstrap(50, 0)
    found = judge_pairs({PAIR: fitted.operator}, means, batches, bootstrap, torch.device("cpu"), lambda count: None)
    return fitted, found[PAIR].predictors


def predictions_of(data, fitted, x):
    train_x, train_y = rows(data, range(N_FOLDS))
    return {
        OPERATOR: fitted.operator.predict(x),
        IDENTITY: x,
        SHIFT: x + train_y.mean(0) - train_x.mean(0),
        MEAN: np.broadcast_to(train_y.mean(0), x.shape),
    }


def test_every_predictor_is_scored_on_the_test_rows(data, judged):
    fitted, judgements = judged
    x, y = rows(data, [TEST])
    predictions = predictions_of(data, fitted, x)
    assert set(judgements) == set(predictions)
    sse_identity = ((y - x) ** 2).sum()
    for name, prediction in predictions.items():
        metrics = judgements[name].metrics
        assert metrics.n_rows == len(y)
        assert metrics.r2_uniform.value == pytest.approx(r2_score(y, prediction), abs=1e-8)
        assert metrics.mse.value == pytest.approx(mean_squared_error(y, prediction), rel=1e-8)
        assert metrics.cosine.value == pytest.approx(1 - paired_cosine_distances(y, prediction).mean(), abs=1e-8)
        assert judgements[name].skill.value == pytest.approx(1 - ((y - prediction) ** 2).sum() / sse_identity, abs=1e-9)
        low, high = metrics.mse.low, metrics.mse.high
        assert low <= metrics.mse.value <= high


def test_bos_rows_are_scored_apart(data, judged):
    fitted, judgements = judged
    x, y = rows(data, [TEST], bos=True)
    for name, prediction in predictions_of(data, fitted, x).items():
        with_bos = judgements[name].with_bos
        assert with_bos.n_rows == len(y) > judgements[name].metrics.n_rows
        assert with_bos.r2_uniform.value == pytest.approx(r2_score(y, prediction), abs=1e-8)


@pytest.mark.parametrize("scoring", ["uniform", "variance_weighted"])
def test_scoring_decides_alpha(scoring):
    """One large dimension that is linear in x, and many small ones that are noise: the two averages disagree."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(90, 8))
    y = rng.normal(size=(90, 8))
    y[:, 0] = 100 * (x @ rng.normal(size=8)) + rng.normal(size=90)
    group = np.arange(90) % 3
    points = {SOURCE: torch.from_numpy(x), TARGET: torch.from_numpy(y)}
    moments = Moments.empty([(SOURCE, SOURCE), (SOURCE, TARGET)], {SOURCE: 8, TARGET: 8}, 4)
    moments.update(points, torch.from_numpy(group))
    moments.update(points, torch.full((90,), 3))
    alphas = (0.1, 1.0, 10.0, 100.0, 1000.0)
    best = {}
    for name, average in (("uniform", "uniform_average"), ("variance_weighted", "variance_weighted")):
        scorer = make_scorer(r2_score, multioutput=average)
        search = GridSearchCV(Ridge(), {"alpha": alphas}, cv=PredefinedSplit(group), scoring=scorer).fit(x, y)
        best[name] = search.best_params_["alpha"]
    assert best["uniform"] != best["variance_weighted"]
    assert fit(moments, settings(alphas=alphas, scoring=scoring)).operator.alpha == best[scoring]


SETTINGS = {
    "hook": HOOK,
    "method": "ridge",
    "fit": {"alphas": [0.1, 1.0], "alpha_unit": "absolute", "scoring": "uniform"},
    "split": {"train": 0.6, "val": 0.2, "test": 0.2},
    "cv_folds": 3,
    "precision": "float64",
    "seed": 0,
    "row_offsets": [0],
}


def save_artifact(root, moments, name, how, pairs=(PAIR,), **identity):
    fits = fit_pairs(moments, list(pairs), HOOK, range(N_FOLDS), VAL, how)
    plan = Plan(root, "operators", "x", {"pairs": [[p.L, p.k] for p in pairs], **SETTINGS, **identity}, name=name)
    with create_artifact(plan, PROVENANCE) as draft:
        save_operators(draft.path, fits, moments.subset(range(N_FOLDS)))
    return fits, open_artifact(plan.path, "operators")


def test_operators_on_disk_are_found_again(tmp_path, moments):
    (fitted,), tuned = save_artifact(tmp_path, moments, "tuned", settings())
    _, again = save_artifact(tmp_path, moments, "again", settings())
    saved = choose_operators([tuned, again], None)[PAIR]
    assert saved.artifact == tuned
    assert saved.settings == SETTINGS
    assert torch.equal(saved.load().weight, fitted.operator.weight)
    torch.testing.assert_close(saved.means()[TARGET], moments.subset(range(N_FOLDS)).mean(TARGET))
    with pytest.raises(StrataError, match=r"no operator for L1_k1 \(there: L0_k2\)"):
        choose_operators([tuned], [LayerPair(1, 1)])


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"method": "linear", "fit": {}}, ['method="ridge"', 'method="linear"']),
        ({"fit": SETTINGS["fit"] | {"alphas": [7.0]}}, ["fit.alphas=[0.1, 1.0]", "fit.alphas=[7.0]"]),
        ({"hook": "mlp_out"}, ['hook="resid_post"', 'hook="mlp_out"']),
        ({"seed": 1}, ["seed=0", "seed=1"]),
        ({"precision": "float32"}, ['precision="float32"']),
    ],
)
def test_operators_of_different_settings_are_not_mixed(tmp_path, moments, change, told):
    other_pair = LayerPair(0, 1)
    _, first = save_artifact(tmp_path, moments, "first", settings())
    _, alike = save_artifact(tmp_path, moments, "alike", settings())
    _, other = save_artifact(tmp_path, moments, "other", settings(), pairs=(other_pair,), **change)
    with pytest.raises(StrataError) as caught:
        choose_operators([first, alike, other], None)
    message = str(caught.value)
    assert all(part in message for part in ["operators=[first,alike]", "operators=[other]", "method=", *told])
    # only what differs is told (of two methods not what one has alone), and what was not asked for does not count
    assert "cv_folds" not in message
    assert ("alphas" in message) == ("alphas" in change.get("fit", {}))
    assert set(choose_operators([first, alike, other], [PAIR])) == {PAIR}


def test_settings_are_read_from_what_the_fingerprint_covers(tmp_path, moments):
    """The summary may say anything: it decides nothing."""
    _, artifact = save_artifact(tmp_path, moments, "one", settings())
    artifact.meta.summary.update(fitting={"method": "linear"}, pairs=[[5, 5]])
    assert choose_operators([artifact], None)[PAIR].settings == SETTINGS


def test_truncated_means_come_with_the_remedy(tmp_path, moments):
    _, artifact = save_artifact(tmp_path, moments, "one", settings())
    file = artifact.path / "means.safetensors"
    file.write_bytes(file.read_bytes()[:-5])
    with pytest.raises(StrataError, match=r"means.safetensors can't be read.*fit the operators again"):
        choose_operators([artifact], None)[PAIR].means()
