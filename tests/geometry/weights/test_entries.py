"""Entries against numpy and scipy; what depends on the scale and what does not (BUG E-5)."""

import math

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from src.geometry.weights import blocks
from src.geometry.weights.entries import (
    ABSOLUTE,
    RELATIVE,
    entries,
    gaussian_below,
    gaussian_dispersion,
    gaussian_hoyer,
    log_histogram_edges,
)

CPU = torch.device("cpu")


@settings(max_examples=25, deadline=None)
@given(
    rows=st.integers(2, 30), columns=st.integers(2, 30), seed=st.integers(0, 99), scale=st.sampled_from([1e-3, 1, 50])
)
def test_against_numpy(rows: int, columns: int, seed: int, scale: float) -> None:
    generator = np.random.default_rng(seed)
    w = scale * generator.standard_t(4, (rows, columns)).astype(np.float32)
    w[generator.random(w.shape) < 0.1] = 0
    found, x = entries(torch.from_numpy(w), CPU), w.astype(np.float64)
    rms, n = math.sqrt((x**2).mean()), x.size
    assert found.rms == pytest.approx(rms, rel=1e-6)
    assert found.mean == pytest.approx(x.mean(), rel=1e-4, abs=1e-9)
    assert found.zeros == (x == 0).mean()
    assert found.excess_kurtosis == pytest.approx(scipy.stats.kurtosis(x, axis=None), rel=1e-4, abs=1e-4)
    hoyer = (math.sqrt(n) - np.abs(x).sum() / math.sqrt((x**2).sum())) / (math.sqrt(n) - 1)
    assert found.hoyer == pytest.approx(hoyer, abs=1e-6)
    np.testing.assert_allclose(found.below_relative, [(np.abs(x) < t * rms).mean() for t in RELATIVE], atol=1.01 / n)
    np.testing.assert_allclose(found.below, [(np.abs(x) < t).mean() for t in ABSOLUTE], atol=1.01 / n)
    norms = np.linalg.norm(x, axis=1)
    assert found.row_dispersion == pytest.approx(norms.std() / norms.mean(), rel=1e-5)
    assert found.histogram.sum() == (x != 0).sum()


def test_blocks_do_not_matter(monkeypatch) -> None:
    matrix = torch.randn(37, 11, generator=torch.Generator().manual_seed(0))
    whole = entries(matrix, CPU)
    monkeypatch.setattr(blocks, "_BLOCK", 25)
    parts = entries(matrix, CPU)
    for name, value in whole.numbers().items():
        assert parts.numbers()[name] == pytest.approx(value, rel=1e-6), name
    np.testing.assert_array_equal(parts.histogram, whole.histogram)


def test_thresholds_measure_scale_and_relative_ones_do_not() -> None:
    """The published shares are those of Gaussian entries: T5-small Q 93.7 %, K 19.2 %, V 12.1 %."""
    for sd, share in ((0.054, 0.937), (0.41, 0.192), (0.66, 0.121), (0.036, 0.994)):
        w = sd * torch.randn(400, 500, generator=torch.Generator().manual_seed(1))
        found = entries(w, CPU)
        assert found.numbers()["below_0.1"] == pytest.approx(share, abs=0.004)
        assert gaussian_below(0.1 / found.rms) == pytest.approx(share, abs=0.004)
        for threshold, below in zip(RELATIVE, found.below_relative, strict=True):
            assert below == pytest.approx(gaussian_below(threshold), abs=0.004)
        assert found.excess_kurtosis == pytest.approx(0, abs=0.05)
        assert found.hoyer == pytest.approx(gaussian_hoyer(w.numel()), abs=0.003)
        assert found.row_dispersion == pytest.approx(gaussian_dispersion(500), rel=0.15)


def test_sparse_entries_are_told_from_small_ones() -> None:
    generator = torch.Generator().manual_seed(0)
    dense = torch.randn(200, 200, generator=generator)
    sparse = dense * (torch.rand(200, 200, generator=generator) < 0.05)
    assert entries(sparse, CPU).hoyer > 0.8 > entries(1e-3 * dense, CPU).hoyer
    assert entries(sparse, CPU).zeros == pytest.approx(0.95, abs=0.01)
    assert entries(sparse, CPU).excess_kurtosis > 30


def test_hoyer_of_extremes_and_zero() -> None:
    single = torch.zeros(10, 10)
    single[3, 3] = 2.0
    assert entries(single, CPU).hoyer == pytest.approx(1)
    assert entries(torch.ones(10, 10), CPU).hoyer == pytest.approx(0, abs=1e-6)
    zero = entries(torch.zeros(4, 4), CPU)
    assert zero.zeros == 1
    assert math.isnan(zero.hoyer)
    assert math.isnan(zero.excess_kurtosis)
    assert zero.histogram.sum() == 0


def test_the_histogram_is_of_powers_of_ten() -> None:
    found = entries(torch.full((5, 4), 0.01), CPU)
    (place,) = np.flatnonzero(found.histogram)
    edges = log_histogram_edges()
    assert edges[place] <= -2 + 1e-6
    assert edges[place + 1] >= -2 - 1e-6
    assert found.histogram[place] == 20


def test_half_precision_is_widened() -> None:
    w = torch.full((300, 300), 200.0, dtype=torch.float16)  # squares overflow float16
    assert entries(w, CPU).rms == pytest.approx(200)


def test_dispersion_of_gaussian_norms() -> None:
    assert gaussian_dispersion(100) == pytest.approx(scipy.stats.chi(100).std() / scipy.stats.chi(100).mean(), rel=1e-6)
