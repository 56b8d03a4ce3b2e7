"""The scaling study against scikit-learn on the rows of its subsets."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LinearRegression, Ridge
from sklearn.metrics import mean_squared_error, r2_score
from sklearn.model_selection import GridSearchCV, PredefinedSplit

from src.config.stages import TransportConfig
from src.errors import StrataError
from src.stage.entry import checked_config, compose
from src.transport.fitting import fit_pairs
from src.transport.pairs import LayerPair
from src.transport.scaling import Subset, draw_subsets, require_rows, study_scaling
from src.transport.settings import FitSettings
from tests.fixtures.residual_streams import X, Y, Z, moments_of, residual_stream

HOOK = "resid_post"
PAIRS = [LayerPair(0, 1), LayerPair(0, 2)]
ALPHAS = (0.1, 10.0, 1000.0)
N_BLOCKS, VAL, TEST = 10, 10, [11, 12, 13]
D = 6


def settings(**changes):
    overrides = [f"{key}={value}" for key, value in changes.items()]
    return FitSettings.of(checked_config(TransportConfig, compose("train_transport_operators", overrides)))


RIDGE = {"alphas": list(ALPHAS), "alpha_unit": "absolute"}


@pytest.fixture(scope="module")
def data():
    rows = residual_stream(1500, D, seed=4)
    group = np.random.default_rng(5).integers(0, 14, 1500)
    return rows, group


@pytest.fixture(scope="module")
def moments(data):
    return moments_of(*data)


def study(moments, subsets, n_folds=5, pairs=PAIRS, test=TEST, **how):
    return study_scaling(moments, pairs, HOOK, subsets, n_folds, VAL, test, settings(**{**RIDGE, **how}))


def test_subsets_of_a_draw_are_nested_and_draws_differ():
    subsets = draw_subsets(20, [0.1, 0.25, 0.5, 1.0], 5, seed=0)
    assert [(s.fraction, s.draw) for s in subsets] == [(f, d) for f in (0.1, 0.25, 0.5) for d in range(5)] + [(1.0, 0)]
    assert {s.fraction: len(s.blocks) for s in subsets} == {0.1: 2, 0.25: 5, 0.5: 10, 1.0: 20}
    by_place = {(s.fraction, s.draw): set(s.blocks) for s in subsets}
    for draw in range(5):
        assert by_place[0.1, draw] < by_place[0.25, draw] < by_place[0.5, draw] < by_place[1.0, 0]
    assert len({s.blocks for s in subsets if s.fraction == 0.5}) == 5
    assert by_place[1.0, 0] == set(range(20))


def test_a_draw_depends_on_the_seed_and_not_on_the_others():
    few, many = (draw_subsets(20, [0.2, 0.5], draws, seed=3) for draws in (2, 6))
    assert [s for s in many if s.draw < 2] == few
    assert draw_subsets(20, [0.2, 0.5], 2, seed=4) != few


def test_every_block_is_drawn_alike():
    subsets = draw_subsets(10, [0.3, 1.0], 2000, seed=1)
    counts = np.bincount([block for s in subsets if s.fraction == 0.3 for block in s.blocks], minlength=10)
    assert counts.sum() == 6000
    assert abs(counts - 600).max() < 5 * np.sqrt(2000 * 0.3 * 0.7)


def test_folds_are_the_blocks_in_turn():
    assert Subset(0.5, 0, (1, 3, 4, 7, 9)).folds(3) == [[1, 7], [3, 9], [4]]
    assert Subset(0.2, 0, (2, 8)).folds(5) == [[2], [8]]
    assert Subset(1.0, 0, tuple(range(20))).folds(5) == [list(range(fold, 20, 5)) for fold in range(5)]


def test_every_fit_is_scikit_learn_s_on_exactly_the_rows_of_its_subset(data, moments):
    rows, group = data
    subsets = draw_subsets(N_BLOCKS, [0.2, 0.5, 1.0], 2, seed=0)
    points = study(moments, subsets)
    assert len(points) == len(PAIRS) * len(subsets)
    for point in points:
        folds = point.subset.folds(5)
        fold = np.full(14, -1)
        for number, blocks in enumerate(folds):
            fold[blocks] = number
        train, val, test = fold[group] >= 0, group == VAL, np.isin(group, TEST)
        x, y = rows[X], rows[Y if point.pair.k == 1 else Z]
        search = GridSearchCV(Ridge(), {"alpha": ALPHAS}, cv=PredefinedSplit(fold[group][train]), scoring="r2")
        search.fit(x[train], y[train])
        assert (point.n_rows, point.n_folds) == (train.sum(), len(folds))
        assert point.alpha == search.best_params_["alpha"]
        assert point.cv_score == pytest.approx(search.best_score_, abs=1e-7)
        assert point.at_edge == (point.alpha in (ALPHAS[0], ALPHAS[-1]))
        unit = ((x[train] - x[train].mean(0)) ** 2).sum() / D
        assert point.relative_alpha == pytest.approx(point.alpha / unit, rel=1e-9)
        shift = y[train].mean(0) - x[train].mean(0)
        predictors = {"operator": search.predict, "identity": lambda x: x, "shift": lambda x, shift=shift: x + shift}
        for name, predict in predictors.items():
            scores = getattr(point, name)
            assert scores.val.r2_uniform == pytest.approx(r2_score(y[val], predict(x[val])), abs=1e-6)
            assert float(scores.test.r2_uniform[0]) == pytest.approx(r2_score(y[test], predict(x[test])), abs=1e-6)
            weighted = r2_score(y[test], predict(x[test]), multioutput="variance_weighted")
            assert float(scores.test.r2_variance_weighted[0]) == pytest.approx(weighted, abs=1e-6)
            assert float(scores.test.mse[0]) == pytest.approx(mean_squared_error(y[test], predict(x[test])), rel=1e-6)
            assert len(scores.test.mse) == 1 + len(TEST)


def test_all_documents_give_what_a_fit_on_them_gives(data, moments):
    """Ten blocks in five folds are the five folds that train_transport_operators deals documents to."""
    rows, group = data
    (everything,) = draw_subsets(N_BLOCKS, [1.0], 3, seed=0)
    in_folds = moments_of(rows, np.where(group < N_BLOCKS, group % 5, np.where(group == VAL, 5, 6)), n_groups=7)
    fits = fit_pairs(in_folds, PAIRS, HOOK, range(5), 5, settings(**RIDGE))
    for point, fit in zip(study(moments, [everything]), fits, strict=True):
        assert (point.pair, point.alpha, point.n_rows) == (fit.pair, fit.operator.alpha, in_folds.subset(range(5)).n)
        assert point.cv_score == pytest.approx(fit.path.best_score, abs=1e-9)
        assert point.operator.val.r2_uniform == pytest.approx(fit.val.r2_uniform, abs=1e-9)


@pytest.mark.parametrize("method", ["linear", "lasso", "procrustes", "identity_shift"])
def test_every_method_is_studied(moments, method):
    subsets = draw_subsets(N_BLOCKS, [0.3, 1.0], 2, seed=0)
    tuned = method == "lasso"
    how = {"alphas": [0.01, 0.1], "alpha_unit": "relative"} if tuned else {"alphas": "null"}
    points = study(moments, subsets, method=method, **how)
    assert len(points) == 6
    for point in points:
        assert (point.cv_score is None, point.unconverged is None) == (not tuned, not tuned)
        if method == "identity_shift":
            torch.testing.assert_close(point.operator.test.mse, point.shift.test.mse)


def test_alphas_of_single_outputs_are_told_by_their_median(moments):
    (everything,) = draw_subsets(N_BLOCKS, [1.0], 1, seed=0)
    (point,) = study(moments, [everything], pairs=PAIRS[:1], alpha_per_output="true", alphas=[1.0, 10.0, 100.0])
    assert 1.0 <= point.alpha <= 100.0
    (single,) = study(moments, [everything], pairs=PAIRS[:1], alphas=[point.alpha])
    assert point.relative_alpha == pytest.approx(single.relative_alpha, rel=1e-9)


def test_least_squares_on_few_rows_falls_short_of_a_planted_relation_by_what_theory_says():
    """Gaussian x [n, d]: the expected squared error of a prediction is s2 (n + 1)(n - 2) / (n (n - d - 2))."""
    rng = np.random.default_rng(8)
    n, d, noise = 60_000, 8, 1.0
    x = rng.standard_normal((n, d))
    y = x @ rng.standard_normal((d, d)) * np.sqrt(3 / d) + noise * rng.standard_normal((n, d))
    group = np.concatenate([np.repeat(np.arange(50), 4), rng.integers(51, 53, n - 200 - 1000), np.full(1000, 50)])
    moments = moments_of({X: x, Y: y}, group)
    subsets = draw_subsets(50, [0.1, 0.2, 1.0], 30, seed=0)
    points = study_scaling(moments, PAIRS[:1], HOOK, subsets, 5, 50, [51, 52], settings(method="linear"))
    mse = {f: np.mean([float(p.operator.test.mse[0]) for p in points if p.subset.fraction == f]) for f in (0.1, 0.2, 1)}
    for fraction in (0.1, 0.2):
        rows = 200 * fraction
        expected = (rows + 1) * (rows - 2) / (rows * (rows - d - 2))
        assert mse[fraction] - 1 == pytest.approx(expected - 1, rel=0.25)
    r2 = [float(p.operator.test.r2_uniform[0]) for p in points if p.subset.fraction == 1]
    held_out = group > 50
    best = LinearRegression().fit(x[group < 50], y[group < 50]).predict(x[held_out])
    assert r2 == [pytest.approx(r2_score(y[held_out], best), abs=1e-9)]
    assert mse[0.1] > mse[0.2] > mse[1] > 1


def test_progress_tells_every_fit(moments):
    told = []
    subsets = draw_subsets(N_BLOCKS, [0.5, 1.0], 2, seed=0)
    study_scaling(moments, PAIRS, HOOK, subsets, 5, VAL, TEST, settings(**RIDGE), told.append)
    assert told == [2, 2, 2]


def test_too_few_rows_are_refused_before_any_fit(data):
    rows, group = data
    subsets = draw_subsets(N_BLOCKS, [0.2, 1.0], 2, seed=0)
    require_rows(moments_of(rows, group), subsets, 5, TEST)
    block = subsets[0].blocks[0]

    def without(numbers, keep=0):
        chosen = ~np.isin(group, numbers)
        chosen[np.flatnonzero(~chosen)[:keep]] = True
        return moments_of({point: x[chosen] for point, x in rows.items()}, group[chosen], n_groups=14)

    with pytest.raises(
        StrataError, match=r"fractions: 0\.2 of the training documents is .* a fold gets 1, and R2 needs 2"
    ):
        require_rows(without([block], keep=1), subsets, 5, TEST)
    with pytest.raises(StrataError, match=r"1 of 10 groups of the training documents hold no rows: use fewer blocks"):
        require_rows(without([block]), subsets, 5, TEST)
    with pytest.raises(StrataError, match=r"1 of 3 groups of the test documents hold no rows: use fewer test_blocks"):
        require_rows(without([12]), subsets, 5, TEST)
