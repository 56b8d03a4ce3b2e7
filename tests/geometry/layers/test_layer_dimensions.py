"""Dimensions: shares, massive ones against random bases, outliers."""

import numpy as np
import pytest
import torch

from src.geometry.layers.dimensions import DimensionSums
from src.geometry.layers.random_basis import random_basis_share, share_survival
from tests.fixtures.text_blocks import text_block


def measured(rows, n_texts=20, n_groups=10, n_sites=1):
    block = text_block([len(rows) // n_texts] * n_texts)
    sums = DimensionSums(1, n_groups, rows.shape[1], torch.device("cpu"))
    sums.add(rows, rows.double().norm(dim=-1), block)
    return sums.statistics(n_sites)


def gaussian(n, d, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("eigenvalues", [np.arange(1, 33.0) ** -1, np.r_[50, np.ones(63)], np.r_[3, 2, 1.0]])
def test_the_survival_of_a_share_is_that_of_random_directions(eigenvalues):
    values = eigenvalues / eigenvalues.sum()
    squares = np.random.default_rng(0).standard_normal((200_000, len(values))) ** 2
    shares = squares @ values / squares.sum(-1)
    for probability in (0.1, 0.01, 0.001):
        share = float(np.quantile(shares, 1 - probability))
        assert share_survival(values, share) == pytest.approx(probability, rel=0.15 if len(values) > 3 else 0.3)
    assert share_survival(values, values.max() * 1.01) == 0


def test_the_largest_share_of_random_bases_rarely_exceeds_the_threshold():
    d = 24
    values = np.arange(1, d + 1.0) ** -1.5
    values /= values.sum()
    bases = torch.linalg.qr(torch.randn(2000, d, d, generator=torch.Generator().manual_seed(1))).Q.numpy()
    largest = np.einsum("bij,j->bi", bases**2, values).max(-1)
    # a union bound over dimensions: close to the level, and not above it but for the error of 2000 draws
    assert 0.02 < float((largest > random_basis_share(values, 0.05)).mean()) < 0.065


def test_equal_shares_are_never_massive():
    assert random_basis_share(np.full(8, 0.125), 0.05) == pytest.approx(0.125, rel=1e-5)
    assert measured(gaussian(400, 8)).massive == []


def test_a_planted_dimension_is_massive_and_is_not_once_it_is_turned():
    rows = gaussian(400, 64)
    rows[:, 17] = 12 + rows[:, 17]
    found = measured(rows)
    assert found.massive == [17]
    assert found.top_dimension == 17
    shares = rows.square().sum(0) / rows.square().sum()
    assert torch.allclose(found.share, shares)
    assert float(found.top_share[0]) == pytest.approx(float(shares[17]))
    turn = torch.linalg.qr(gaussian(64, 64, seed=5)).Q
    assert measured(rows @ turn).massive == []


def test_the_share_of_the_mean_and_the_participation_ratio_are_those_of_the_rows():
    rows = gaussian(300, 12) * torch.arange(1, 13) + 5
    found = measured(rows)
    mean = rows.mean(0)
    assert float(found.mean_share[0]) == pytest.approx(float(mean.square().sum() / rows.square().sum(-1).mean()))
    values = torch.linalg.eigvalsh(rows.T.cov())
    assert float(found.participation[0]) == pytest.approx(float(values.sum() ** 2 / values.square().sum()))
    # the jackknife leaves out texts 0 and 10, which are of group 0
    rest = torch.cat([rows[15:150], rows[165:]])
    values = torch.linalg.eigvalsh(rest.T.cov())
    assert float(found.participation[1]) == pytest.approx(float(values.sum() ** 2 / values.square().sum()))
    assert len(found.participation) == 11


def test_outliers_are_rare_in_gaussian_rows_and_found_where_planted():
    rows = gaussian(1000, 50)
    assert float(measured(rows).outlier_tokens[0]) == 0
    assert measured(rows).gaussian_outlier_tokens == pytest.approx(50 * 1.973e-9, rel=1e-3)
    rows[:100, 7] = 60.0
    rows[100:130, 9] = 60.0
    found = measured(rows)
    assert float(found.outlier_tokens[0]) == pytest.approx(0.13)
    assert found.outlier_dimensions == [7]  # in a tenth of the tokens; dimension 9 in 3 %
