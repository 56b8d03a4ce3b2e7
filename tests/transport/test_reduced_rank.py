"""Reduced-rank operators against scikit-learn's Ridge, and its PCA of the fitted values, one fit per rank and alpha."""

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from sklearn.linear_model import LinearRegression, Ridge
from sklearn.metrics import r2_score

from src.activations.moments import Moments
from src.errors import StrataError
from src.hook_points import HookPoint
from src.transport.preprocessing import Preprocessing
from src.transport.reduced_rank import fit_reduced_rank, fit_reduced_rank_path
from src.transport.solvers import fit_ridge, fit_ridge_path
from tests.fixtures.planted_transport import X, Y, mixing, moments_of

N_FOLDS = 3
ALPHAS = (0.5, 20.0, 400.0)


def rows(d_in, d_out, n=150, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, d_in)) @ mixing(rng, d_in) + 3 * rng.standard_normal(d_in)
    y = x @ rng.standard_normal((d_in, d_out)) + 4 * rng.standard_normal((n, d_out))
    return x, y * np.geomspace(0.2, 5, d_out) - 4, np.arange(n) % N_FOLDS


def inverse_root(matrix):
    values, vectors = np.linalg.eigh(matrix)
    return vectors / np.sqrt(values) @ vectors.T


def explicit(x, y, alpha, rank, metric):
    """Weight and bias: the ridge fit, then principal components of its fitted values on rows with the penalty added."""
    model = (Ridge(alpha) if alpha else LinearRegression()).fit(x, y)
    root = inverse_root(np.cov(y.T)) if metric == "whitened" else np.eye(y.shape[1])
    penalised = np.concatenate([x - x.mean(0), np.sqrt(alpha) * np.eye(x.shape[1])])
    fitted = penalised @ model.coef_.T @ root
    # mirrored, so that the principal components are about 0
    axes = PCA(rank).fit(np.concatenate([fitted, -fitted])).components_.T
    weight = model.coef_.T @ root @ axes @ axes.T @ np.linalg.inv(root)
    return weight, y.mean(0) - x.mean(0) @ weight


@pytest.mark.parametrize("metric", ["raw", "whitened"])
@pytest.mark.parametrize(("d_in", "d_out"), [(7, 7), (5, 8), (8, 5)])
def test_every_score_of_the_path_is_that_of_an_explicit_fit(metric, d_in, d_out):
    x, y, fold = rows(d_in, d_out)
    path = fit_reduced_rank_path(moments_of(x, y, fold), X, [Y], range(N_FOLDS), ALPHAS, None, metric, relative=False)[
        Y
    ]
    place, found = 0, []
    for alpha in ALPHAS:
        for rank in range(1, min(d_in, d_out) + 1):
            assert (float(path.alphas[place]), int(path.ranks[place])) == (alpha, rank)
            for held_out in range(N_FOLDS):
                train = fold != held_out
                weight, bias = explicit(x[train], y[train], alpha, rank, metric)
                truth, prediction = y[~train], x[~train] @ weight + bias
                for scoring in ("uniform", "variance_weighted"):
                    average = f"{scoring}_average" if scoring == "uniform" else scoring
                    score = r2_score(truth, prediction, multioutput=average)
                    assert float(path.scores[scoring][held_out, place]) == pytest.approx(score, abs=1e-9)
            found.append(float(path.scores["uniform"][:, place].mean()))
            place += 1
    assert path.best == int(np.argmax(found))
    weight, bias = explicit(x, y, float(path.alphas[path.best]), int(path.ranks[path.best]), metric)
    np.testing.assert_allclose(path.fit.weight.numpy(), weight, atol=1e-8)
    np.testing.assert_allclose(path.fit.bias.numpy(), bias, atol=1e-8)
    assert path.fit.rank == int(path.ranks[path.best])


@pytest.mark.parametrize("metric", ["raw", "whitened"])
@pytest.mark.parametrize("alpha", [0.0, 30.0])
def test_a_given_rank_is_the_explicit_fit(metric, alpha):
    x, y, fold = rows(6, 6)
    for rank in (1, 3, 6):
        fit = fit_reduced_rank(moments_of(x, y, fold), X, [Y], range(N_FOLDS), alpha, rank, metric, relative=False)[Y]
        weight, bias = explicit(x, y, alpha, rank, metric)
        np.testing.assert_allclose(fit.weight.numpy(), weight, atol=1e-8)
        np.testing.assert_allclose(fit.bias.numpy(), bias, atol=1e-8)
        assert (fit.rank, fit.alpha, np.linalg.matrix_rank(fit.weight.numpy())) == (rank, alpha, rank)


@pytest.mark.parametrize("metric", ["raw", "whitened"])
@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("target", ["y", "delta"])
def test_full_rank_is_ridge_however_variables_are_prepared(metric, normalize, target):
    x, y, fold = rows(6, 6)
    x[:, 2], y[:, 4] = 7.0, -3.0  # dimensions that do not vary, except as a difference
    if target == "delta":
        y[:, 2] = x[:, 4] - y[:, 4]
    moments, how = moments_of(x, y, fold), Preprocessing(normalize, target)
    ridge = fit_ridge_path(moments, X, [Y], range(N_FOLDS), (1e-3, 1e-1), preprocessing=how)[Y]
    path = fit_reduced_rank_path(moments, X, [Y], range(N_FOLDS), (1e-3, 1e-1), None, metric, preprocessing=how)[Y]
    full = path.ranks == 6
    for scoring in ("uniform", "variance_weighted"):
        torch.testing.assert_close(path.scores[scoring][:, full], ridge.scores[scoring], atol=1e-8, rtol=0)
    expected = fit_ridge(moments, X, [Y], range(N_FOLDS), 1e-2, preprocessing=how)[Y]
    fit = fit_reduced_rank(moments, X, [Y], range(N_FOLDS), 1e-2, 6, metric, preprocessing=how)[Y]
    torch.testing.assert_close(fit.weight, expected.weight, atol=1e-8, rtol=0)
    assert (fit.alpha, fit.relative_alpha) == (expected.alpha, expected.relative_alpha)


def test_for_delta_the_change_has_the_rank():
    x, y, fold = rows(6, 6)
    how = Preprocessing(True, "delta")
    fit = fit_reduced_rank(moments_of(x, y, fold), X, [Y], range(N_FOLDS), 1e-2, 2, "whitened", preprocessing=how)[Y]
    assert np.linalg.matrix_rank(fit.weight.numpy() - np.eye(6), tol=1e-9) == 2


@pytest.mark.parametrize("metric", ["raw", "whitened"])
def test_a_planted_rank_is_found_by_cross_validation(metric):
    rng = np.random.default_rng(1)
    x = rng.standard_normal((1500, 24))
    low_rank = rng.standard_normal((24, 4)) @ rng.standard_normal((4, 24))
    y = x @ low_rank + 3 * rng.standard_normal((1500, 24))
    path = fit_reduced_rank_path(moments_of(x, y, np.arange(1500) % 5), X, [Y], range(5), (1e-6, 1e-4), None, metric)[Y]
    assert path.fit.rank == 4
    assert path.best_score > float(path.mean_scores[path.ranks == 24].max())
    assert np.linalg.norm(path.fit.weight.numpy() - low_rank) < 0.2 * np.linalg.norm(low_rank)


def test_targets_and_given_ranks_share_a_path():
    x, y, fold = rows(6, 6)
    z = HookPoint("resid_post", 2)
    moments = Moments.empty([(X, X), (X, Y), (X, z)], dict.fromkeys((X, Y, z), 6), N_FOLDS)
    moments.update(
        {X: torch.from_numpy(x), Y: torch.from_numpy(y), z: torch.from_numpy(-2 * y + x)}, torch.from_numpy(fold)
    )
    both = fit_reduced_rank_path(moments, X, [Y, z], range(N_FOLDS), ALPHAS, 3)
    assert all(path.ranks.tolist() == [3, 3, 3] and path.fit.rank == 3 for path in both.values())
    alone = fit_reduced_rank_path(moments, X, [z], range(N_FOLDS), ALPHAS, 3)[z]
    assert torch.equal(both[z].fit.weight, alone.fit.weight)
    every = fit_reduced_rank_path(moments, X, [z], range(N_FOLDS), ALPHAS)[z]
    torch.testing.assert_close(every.scores["uniform"][:, every.ranks == 3], alone.scores["uniform"])


@pytest.mark.parametrize("rank", [0, 6, 100])
def test_ranks_that_no_map_has_are_refused(rank):
    x, y, fold = rows(5, 8)
    with pytest.raises(StrataError, match=rf"rank={rank}: maps from resid_post\.0 to resid_post\.1 have ranks 1\.\.5"):
        fit_reduced_rank(moments_of(x, y, fold), X, [Y], range(N_FOLDS), 1.0, rank)
