"""Intervals for the largest of several correlations, against what fixed intervals cover."""

import numpy as np
import pytest
from scipy import stats

from src.geometry.words.simultaneous import simultaneous_reach


def test_one_estimate_or_many_copies_need_no_more_than_a_fixed_interval() -> None:
    influence = np.random.default_rng(0).standard_normal(200)
    assert simultaneous_reach([influence], 0) == pytest.approx(1.96, abs=0.08)
    assert simultaneous_reach([influence * scale for scale in (1, 2, -3)], 0) == pytest.approx(1.96, abs=0.08)


def test_independent_estimates_need_sidaks_interval() -> None:
    influences = np.eye(15).repeat(20, 0).T
    expected = stats.norm.isf((1 - 0.95 ** (1 / 15)) / 2)
    assert simultaneous_reach(list(influences), 1) == pytest.approx(expected, abs=0.1)


def test_the_largest_of_several_means_is_covered() -> None:
    """12 means of 0 over 60 words: the fixed interval of the largest misses 0 in about a fourth of the draws."""
    rng, fixed, wide = np.random.default_rng(2), 0, 0
    for draw in range(200):
        rows = rng.standard_normal((12, 60))
        mean, error = rows.mean(1), rows.std(1, ddof=1) / np.sqrt(60)
        top = mean.argmax()
        reach = simultaneous_reach(list(rows - mean[:, None]), draw)
        fixed += mean[top] - 1.96 * error[top] > 0
        wide += mean[top] - reach * error[top] > 0
    assert fixed > 30
    assert wide < 12


def test_what_does_not_vary_takes_no_part() -> None:
    influence = np.random.default_rng(3).standard_normal(50)
    alone = simultaneous_reach([influence], 0)
    assert simultaneous_reach([influence, np.zeros(50), np.full(50, np.nan)], 0) == alone
    assert np.isnan(simultaneous_reach([np.zeros(50)], 0))
