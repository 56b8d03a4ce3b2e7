"""Participation ratios: closed forms and the bias of samples."""

import math

import pytest
import torch

from src.geometry.participation import participation_ratio, unbiased_participation_ratio


def test_it_counts_equal_eigenvalues():
    assert participation_ratio(3 * 2.0, 3 * 4.0) == 3
    assert math.isnan(participation_ratio(0, 0))


def test_the_bias_of_a_sample_is_removed():
    # spec K, at a quarter of its size: raw d / (1 + d / n), corrected d
    n, d = 500, 256
    rows = torch.randn(n, d, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    covariance = rows.T.cov()
    trace, square = float(covariance.trace()), float(covariance.square().sum())
    assert participation_ratio(trace, square) / d == pytest.approx(1 / (1 + d / n), abs=0.01)
    assert unbiased_participation_ratio(trace, square, n) / d == pytest.approx(1, abs=0.015)


def test_too_few_rows_have_none():
    assert math.isnan(unbiased_participation_ratio(1.0, 1.0, 2))
