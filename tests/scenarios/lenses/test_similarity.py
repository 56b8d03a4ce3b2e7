"""CKA against a direct formula of HSIC, and what must not change it."""

import math

import numpy as np
import pytest
import torch

from src.errors import StrataError
from src.scenarios.lenses.similarity import linear_cka_matrices


def clouds(n=9, seed=0):
    draws = torch.Generator().manual_seed(seed)
    first = torch.randn(n, 5, generator=draws)
    mixed = first @ torch.randn(5, 7, generator=draws) + torch.randn(n, 7, generator=draws)
    return [first, mixed, torch.randn(n, 40, generator=draws)]


def hsic_biased(k, m):
    n = len(k)
    h = np.eye(n) - 1 / n
    return np.trace(k @ h @ m @ h) / (n - 1) ** 2


def hsic_unbiased(k, m):
    """Song et al. 2012, eq. 5."""
    n, ones = len(k), np.ones(len(k))
    k, m = k - np.diag(np.diag(k)), m - np.diag(np.diag(m))
    parts = np.trace(k @ m) + (ones @ k @ ones) * (ones @ m @ ones) / ((n - 1) * (n - 2))
    return (parts - 2 / (n - 2) * (ones @ k @ m @ ones)) / (n * (n - 3))


@pytest.mark.parametrize(("place", "hsic"), [(0, hsic_biased), (1, hsic_unbiased)])
def test_both_are_hsic_normalised(place, hsic):
    grams = [np.asarray(cloud.double() @ cloud.double().T) for cloud in clouds()]
    expected = [[hsic(k, m) / math.sqrt(hsic(k, k) * hsic(m, m)) for m in grams] for k in grams]
    np.testing.assert_allclose(linear_cka_matrices(clouds())[place], expected, rtol=1e-8)


def test_neither_rotation_nor_scale_nor_shift_changes_it():
    first, second, third = clouds()
    turn = torch.linalg.qr(torch.randn(7, 7, generator=torch.Generator().manual_seed(3)))[0]
    changed = [3 * first, second @ turn + 100, third]
    for before, after in zip(linear_cka_matrices(clouds()), linear_cka_matrices(changed), strict=True):
        np.testing.assert_allclose(after, before, atol=1e-4)
        np.testing.assert_allclose(np.diag(after), 1, atol=1e-6)


def test_few_items_in_many_dimensions_fool_the_biased_one_alone():
    found = np.mean(
        [
            [matrix[0, 1] for matrix in linear_cka_matrices([torch.randn(8, 200), torch.randn(8, 200)])]
            for _ in range(40)
        ],
        axis=0,
    )
    assert found[0] > 0.9
    assert abs(found[1]) < 0.1


def test_too_few_items_and_broken_states_are_refused():
    with pytest.raises(StrataError, match="4 items or more, here are 3"):
        linear_cka_matrices([torch.randn(3, 5)])
    with pytest.raises(StrataError, match="NaN or inf"):
        linear_cka_matrices([torch.full((5, 3), math.inf)])
    assert np.isnan(linear_cka_matrices([torch.ones(5, 3), torch.randn(5, 3)])[0][0]).all()
