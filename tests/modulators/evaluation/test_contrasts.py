"""Means, paired differences and their tests, over groups."""

from itertools import product

import numpy as np
import pytest
import torch
from scipy.stats import permutation_test

from src.modulators.comparison import mean_loss_of
from src.modulators.evaluation.contrasts import mean_with_interval, paired_difference, sign_flip_p


def test_p_is_the_share_of_all_signs_as_far_from_zero():
    differences = np.array([0.9, -0.2, 0.4, 1.3, 0.1, 0.7, -0.05, 0.6])
    sums = [abs(np.dot(signs, differences)) for signs in product((-1, 1), repeat=len(differences))]
    exact = np.mean(np.array(sums) >= abs(differences.sum()) - 1e-12)
    assert sign_flip_p(differences, seed=0) == pytest.approx(exact, abs=4 * np.sqrt(exact / 9999) + 1e-4)


def test_p_is_scipys():
    differences = np.random.default_rng(3).normal(0.25, 1, 40)
    known = permutation_test(
        (differences,),
        lambda x, axis=-1: x.sum(axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=9999,
        rng=1,
    )
    assert sign_flip_p(differences, seed=0) == pytest.approx(known.pvalue, abs=0.02)


def test_nothing_but_zeros_is_no_difference():
    assert sign_flip_p(np.zeros(30), seed=0) == 1.0


def test_p_does_not_lie_under_the_null():
    draws = np.random.default_rng(0)
    found = np.array([sign_flip_p(draws.normal(size=12) * draws.gamma(1, size=12), seed) for seed in range(120)])
    assert 0.01 < np.mean(found <= 0.1) < 0.2


@pytest.mark.parametrize("n", [4, 12, 200])
def test_intervals_are_those_of_the_comparison_of_training(n):
    """One difference on the same documents has one interval, by Student's t, wherever it is told."""
    draws = torch.Generator().manual_seed(n)
    counts = torch.randint(3, 60, (n,), generator=draws).double()
    sums = torch.randn(n, generator=draws, dtype=torch.float64) + 0.3 * counts
    found, told = mean_with_interval(sums, counts, torch.arange(n)), mean_loss_of(sums[None], counts)
    assert [found.value, found.low, found.high] == pytest.approx([told.value, told.low, told.high], rel=1e-3)


def test_examples_of_a_group_count_as_one():
    draws = torch.Generator().manual_seed(0)
    sums, counts = torch.rand(6, 2, generator=draws, dtype=torch.float64), torch.tensor([[3.0, 5.0]] * 6).double()
    groups = torch.arange(6)[:, None].expand(6, 2)
    split = mean_with_interval(sums.flatten(), counts.flatten(), groups.flatten())
    merged = mean_with_interval(sums.sum(1), counts.sum(1), torch.arange(6))
    assert vars(split) == pytest.approx(vars(merged))
    as_if_independent = mean_with_interval(sums.flatten(), counts.flatten(), torch.arange(12))
    assert split.low != pytest.approx(as_if_independent.low)


def test_a_paired_difference_is_narrower_than_that_of_two_means():
    draws = torch.Generator().manual_seed(0)
    base = 10 + 5 * torch.randn(50, generator=draws, dtype=torch.float64)
    other, counts, groups = base - 0.1, torch.full((50,), 2.0).double(), torch.arange(50)
    found = paired_difference(other, base, counts, groups, seed=0)
    assert found.ratio.value == pytest.approx(-0.05)
    assert found.ratio.high - found.ratio.low < 1e-6
    assert found.p == pytest.approx(1 / 10_000)


def test_examples_without_a_value_are_left_out():
    sums, counts = torch.tensor([1.0, float("nan"), 3.0]), torch.ones(3)
    assert mean_with_interval(sums, counts, torch.arange(3)).value == pytest.approx(2.0)
