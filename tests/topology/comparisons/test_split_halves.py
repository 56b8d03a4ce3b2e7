"""Halves of clouds: whether loops differ by more than chance; and rank correlations of few units."""

import numpy as np
import pytest
from scipy.stats import spearmanr

from src.topology.comparisons.split_halves import split_halves
from src.topology.homology.distances import Distances
from src.topology.inference.rank_correlation import rank_correlation


def ring(n, seed, radius=1.0):
    random = np.random.default_rng(seed)
    angle = random.random(n) * 2 * np.pi
    return Distances.from_points(
        radius * (np.stack([np.cos(angle), np.sin(angle)], 1) + 0.05 * random.normal(size=(n, 2)))
    )


def disc(n, seed):
    return Distances.from_points(np.random.default_rng(seed).normal(size=(n, 2)))


def test_a_ring_differs_from_a_disc_and_not_from_a_larger_ring():
    assert split_halves(ring(80, 0), disc(80, 1), draws=10).differ
    same = split_halves(ring(80, 0), ring(80, 1, radius=7.0), draws=10)
    assert not same.differ
    assert same.low <= same.within <= same.high
    assert split_halves(ring(80, 0), disc(120, 1), draws=10).differ
    nothing = split_halves(ring(80, 0), disc(80, 1), draws=0)
    assert np.isnan(nothing.between)
    assert not nothing.differ


def test_clouds_of_one_kind_rarely_differ():
    assert sum(split_halves(disc(50, 2 * s), disc(50, 2 * s + 1), draws=8, seed=s).differ for s in range(20)) <= 2


def test_rank_correlation_and_its_exact_p():
    random = np.random.default_rng(0)
    for n in (5, 8, 30):
        x, y = random.normal(size=n), random.integers(0, 4, n).astype(float)
        found = rank_correlation(x, y)
        assert found.rho == pytest.approx(spearmanr(x, y).statistic)
        assert found.n == n
    perfect = rank_correlation(np.arange(5.0), np.exp(np.arange(5.0)))
    assert (perfect.rho, perfect.p) == (1, pytest.approx(2 / 120))
    x, y = random.normal(size=40), random.normal(size=40)
    assert rank_correlation(x, y).p == pytest.approx(spearmanr(x, y).pvalue, abs=0.03)


def test_few_units_have_no_p_and_constants_no_correlation():
    four = rank_correlation(np.arange(4.0), np.arange(4.0))
    assert (four.rho, four.p) == (1, None)
    flat = rank_correlation(np.ones(6), np.arange(6.0))
    assert np.isnan(flat.rho)
    assert flat.p is None
    unknown = rank_correlation(np.array([1.0, np.nan, 2, 3, 4, 5]), np.array([1.0, 9, 2, 3, np.inf, 5]))
    assert (unknown.n, unknown.rho, unknown.p) == (4, 1, None)
