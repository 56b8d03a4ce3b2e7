"""Operators that predict another token's activation, against scikit-learn on rows that a loop over sequences finds."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge
from sklearn.metrics import mean_squared_error, r2_score
from sklearn.metrics.pairwise import paired_cosine_distances
from sklearn.model_selection import GridSearchCV, PredefinedSplit

from src.activations.passes import accumulate_moments, rows_by_part
from src.hook_points import HookPoint
from src.text import Keep
from src.transport.bootstrap import DocumentBootstrap
from src.transport.evaluate import IDENTITY, MEAN, OPERATOR, SHIFT, judge_pairs
from src.transport.fitting import fit_pairs
from src.transport.pairs import LayerPair
from src.transport.settings import FitSettings
from tests.fixtures.stores import make_store

HOOK = "resid_post"
OFFSETS = (-1, 0, 1, 2)
ALPHAS = (0.1, 10.0, 1000.0)
N_FOLDS, VAL, TEST, D = 3, 3, 4, 5
SETTINGS = FitSettings(
    method="ridge",
    normalize=False,
    target="y",
    auto_tune=True,
    alphas=ALPHAS,
    regularization=None,
    alpha_unit="absolute",
    alpha_per_output=False,
    l1_ratio=0.5,
    l1_ratios=(0.5,),
    scoring="uniform",
    max_iter=10,
    tol=1e-4,
)
CPU = torch.device("cpu")


class Data:
    """20 sequences whose layer 1 at token i + 1 is layer 0 at token i times a matrix, exactly."""

    def __init__(self) -> None:
        rng = np.random.default_rng(3)
        self.lengths = rng.integers(6, 25, 20).tolist()
        n = sum(self.lengths)
        first = np.concatenate([[0], np.cumsum(self.lengths)[:-1]])
        self.x = rng.normal(size=(n, D))
        # so that neighbours tell of each other a little, and no offset is worthless
        self.x[1:] += 0.5 * self.x[:-1]
        self.y = np.roll(self.x @ rng.normal(size=(D, D)) + 2, 1, axis=0)
        self.x[first], self.y[first] = 900.0, -700.0
        self.x, self.y = self.x.astype(np.float32).astype(float), self.y.astype(np.float32).astype(float)
        self.keep = np.zeros(n, np.uint8)
        self.keep[first] = Keep.BOS
        self.keep[first[::3] + 4] = Keep.SPECIAL
        self.groups = (np.arange(20) % 5).astype(np.int8)

    def tokens(self, group: int, offsets: tuple[int, ...], *, bos: bool = False) -> np.ndarray:
        """The rows of a group: tokens whose neighbours at all offsets are in the sequence, and counted (or BOS)."""
        accepted = (Keep.COUNTED, Keep.BOS) if bos else (Keep.COUNTED,)
        found, start = [], 0
        for sequence, length in enumerate(self.lengths):
            for place in range(length):
                there = [place + offset for offset in offsets]
                if self.groups[sequence] == group and all(
                    0 <= other < length and self.keep[start + other] in accepted for other in there
                ):
                    found.append(start + place)
            start += length
        return np.array(found)


@pytest.fixture(scope="module")
def data():
    return Data()


@pytest.fixture(scope="module")
def store(data, tmp_path_factory):
    activations = {HookPoint(HOOK, 0): data.x.astype(np.float32), HookPoint(HOOK, 1): data.y.astype(np.float32)}
    return make_store(tmp_path_factory.mktemp("store"), activations, data.lengths, data.keep)


PAIRS = [LayerPair(0, 1, offset) for offset in OFFSETS]


@pytest.fixture(scope="module")
def fits(store, data):
    source = PAIRS[0].source(HOOK)
    products = [(source, source), *((source, pair.target(HOOK)) for pair in PAIRS)]
    moments = accumulate_moments(store, products, data.groups, 4, "float64", CPU, lambda _n: None)
    made = fit_pairs(moments, PAIRS, HOOK, range(N_FOLDS), VAL, SETTINGS)
    training = moments.subset(range(N_FOLDS))
    return {fit.pair: fit for fit in made}, {point: training.mean(point) for pair in products for point in pair}


@pytest.mark.parametrize("pair", PAIRS, ids=str)
def test_fits_are_grid_search_on_the_rows_of_the_loop(data, fits, pair):
    groups = [data.tokens(group, OFFSETS) for group in range(4)]
    train = np.concatenate(groups[:N_FOLDS])
    folds = np.repeat(range(N_FOLDS), [len(tokens) for tokens in groups[:N_FOLDS]])
    search = GridSearchCV(Ridge(), {"alpha": ALPHAS}, cv=PredefinedSplit(folds), scoring="r2")
    search.fit(data.x[train], data.y[train + pair.offset])
    fit = fits[0][pair]
    np.testing.assert_allclose(fit.path.mean_scores.numpy(), search.cv_results_["mean_test_score"], atol=1e-9)
    assert fit.operator.alpha == search.best_params_["alpha"]
    np.testing.assert_allclose(fit.operator.weight.numpy(), search.best_estimator_.coef_.T, atol=1e-9)
    np.testing.assert_allclose(fit.operator.bias.numpy(), search.best_estimator_.intercept_, atol=1e-8)
    assert (str(fit.operator.source), str(fit.operator.target)) == ("resid_post.0", str(pair.target(HOOK)))
    x, y = data.x[groups[VAL]], data.y[groups[VAL] + pair.offset]
    assert fit.val.r2_uniform == pytest.approx(r2_score(y, search.predict(x)), abs=1e-8)
    assert fit.identity.mse == pytest.approx(mean_squared_error(y, x), rel=1e-8)


def judge(store, data, fits, pairs, **how):
    operators = {pair: fits[0][pair].operator for pair in pairs}
    points = [point for operator in operators.values() for point in (operator.source, operator.target)]
    rows = rows_by_part(store, points, data.groups, [TEST], **how)
    return judge_pairs(operators, fits[1], rows, DocumentBootstrap(100, 0), CPU, lambda _n: None)


@pytest.mark.parametrize("pair", PAIRS, ids=str)
def test_test_scores_are_scikit_learn_s_on_the_rows_of_the_loop(store, data, fits, pair):
    judged = judge(store, data, fits, PAIRS)[pair].predictors
    operator = fits[0][pair].operator
    means = fits[1][operator.source].numpy(), fits[1][operator.target].numpy()
    for bos in (False, True):
        tokens = data.tokens(TEST, OFFSETS, bos=bos)
        x, y = data.x[tokens], data.y[tokens + pair.offset]
        for name, prediction in {
            OPERATOR: operator.predict(x),
            IDENTITY: x,
            SHIFT: x + means[1] - means[0],
            MEAN: np.broadcast_to(means[1], y.shape),
        }.items():
            metrics = judged[name].with_bos if bos else judged[name].metrics
            assert metrics.n_rows == len(tokens)
            assert metrics.r2_uniform.value == pytest.approx(r2_score(y, prediction), abs=1e-9)
            assert metrics.mse.value == pytest.approx(mean_squared_error(y, prediction), rel=1e-9)
            cosine = 1 - paired_cosine_distances(y, prediction).mean()
            assert metrics.cosine.value == pytest.approx(cosine, abs=1e-9)
        assert len(tokens) > 0


def test_one_offset_alone_is_scored_on_the_rows_of_all_if_they_are_named(store, data, fits):
    together = judge(store, data, fits, PAIRS)[PAIRS[1]].predictors[OPERATOR]
    alone = judge(store, data, fits, PAIRS[1:2], offsets=OFFSETS)[PAIRS[1]].predictors[OPERATOR]
    others = judge(store, data, fits, PAIRS[1:2])[PAIRS[1]].predictors[OPERATOR]
    assert alone.metrics.mse.value == pytest.approx(together.metrics.mse.value, rel=1e-12)
    assert alone.metrics.n_rows == together.metrics.n_rows < others.metrics.n_rows


def test_a_planted_next_token_map_is_found_at_its_offset_and_nowhere_else(fits, store, data):
    judged = judge(store, data, fits, PAIRS)
    scores = {pair.offset: judged[pair].predictors[OPERATOR].metrics.r2_uniform.value for pair in PAIRS}
    assert scores[1] > 1 - 1e-5
    assert all(scores[offset] < 0.5 for offset in (-1, 0, 2))
