import numpy as np
import pytest
from scipy.stats import chisquare

from src.geometry.simplices.drawing import draw_pool, draw_simplices


@pytest.mark.parametrize("n_points", [5, 9, 30])
def test_vertices_are_different_points_and_all_pairs_alike(n_points):
    simplices = draw_simplices(n_points, 4, 20_000, np.random.default_rng(0))
    assert simplices.shape == (20_000, 5)
    assert (np.diff(np.sort(simplices, axis=1), axis=1) > 0).all()
    pairs = simplices[:, 0] * n_points + simplices[:, 3]
    counts = np.bincount(pairs, minlength=n_points**2).reshape(n_points, n_points)
    assert (counts.diagonal() == 0).all()
    assert chisquare(counts[~np.eye(n_points, dtype=bool)]).pvalue > 1e-3


def test_too_few_points_are_refused():
    with pytest.raises(ValueError, match="needs 5 points; there are 4"):
        draw_simplices(4, 4, 10, np.random.default_rng(0))


def test_the_pool_holds_each_point_once():
    pool = draw_pool(1000, 64, np.random.default_rng(0))
    assert len(np.unique(pool)) == 64
    assert np.array_equal(draw_pool(50, 64, np.random.default_rng(0)), np.arange(50))


def test_weights_draw_in_proportion_and_never_what_has_none():
    weights = np.array([0.0, 1.0, 1.0, 2.0, 4.0])
    first = [draw_pool(5, 1, np.random.default_rng(seed), weights)[0] for seed in range(4000)]
    counts = np.bincount(first, minlength=5)
    assert counts[0] == 0
    assert chisquare(counts[1:], np.array([1, 1, 2, 4]) / 8 * 4000).pvalue > 1e-3
    assert draw_pool(5, 9, np.random.default_rng(0), weights).tolist() == [1, 2, 3, 4]
