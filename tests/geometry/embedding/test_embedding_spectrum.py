"""Participation and dimensions of covariances whose truth is known (spec K)."""

import numpy as np
import pytest
import torch

from src.geometry.embedding.moments import table_moments
from src.geometry.embedding.rows import Rows
from src.geometry.embedding.spectrum import dimensions_for, spectrum


def spectrum_of(table):
    moments = table_moments(Rows(table, np.arange(len(table)), torch.device("cpu")))
    return spectrum(moments.covariance, moments.n_rows)


def test_isotropic_rows_as_population_and_as_sample():
    """Spec K: 2,000 rows in 1,024 dimensions have 0.661 d, and 1.000 d once the bias of the sample is removed."""
    found = spectrum_of(torch.randn(2000, 1024, generator=torch.Generator().manual_seed(0)))
    assert found.participation / 1024 == pytest.approx(0.661, abs=0.002)
    assert found.as_sample / 1024 == pytest.approx(1.0, abs=0.01)


def test_sampling_bias_of_the_participation_ratio():
    """1 / PR = 1 / d + 1 / n for n isotropic rows (spec A4)."""
    found = spectrum_of(torch.randn(150, 60, generator=torch.Generator().manual_seed(1)))
    assert 1 / found.participation == pytest.approx(1 / 60 + 1 / 150, rel=0.02)


def test_participation_is_that_of_the_eigenvalues():
    table = torch.randn(80, 10, generator=torch.Generator().manual_seed(2)) * torch.linspace(3, 0.1, 10)
    found = spectrum_of(table)
    truth = np.linalg.eigvalsh(np.cov(table.double().numpy().T, bias=True))[::-1]
    np.testing.assert_allclose(found.eigenvalues, truth, atol=1e-12)
    assert found.participation == pytest.approx(truth.sum() ** 2 / np.square(truth).sum())
    assert found.total == pytest.approx(truth.sum())
    assert found.cumulative[-1] == pytest.approx(1)


def test_dimensions_until_a_share_is_reached():
    eigenvalues = np.array([4.0, 3.0, 2.0, 1.0, 0.0])
    assert [dimensions_for(eigenvalues, share) for share in (0.4, 0.41, 0.7, 0.9, 0.95)] == [1, 2, 2, 3, 4]


def test_never_more_dimensions_than_there_are():
    eigenvalues = np.full(10, 0.1)  # sums to less than 1 by rounding
    assert dimensions_for(eigenvalues, 1.0) == 10
    assert dimensions_for(eigenvalues, 1.0 + 1e-9) == 10
    assert dimensions_for(np.zeros(4), 0.9) == 4


def test_rows_without_variance():
    found = spectrum_of(torch.ones(5, 3))
    assert np.isnan(found.participation)
    assert np.isnan(found.cumulative).all()
