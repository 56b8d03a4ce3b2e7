"""Paired differences against leaving out words by hand, and against how often chance makes them."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from src.geometry.words.cosines import unit_rows
from src.geometry.words.hypernyms import hypernym_decay, hypernym_pairs
from src.geometry.words.pair_sums import JackknifeEstimate, jackknife_error
from src.modulators.evaluation.geometry.differences import mean_estimate, slope_estimate, word_difference
from src.modulators.evaluation.geometry.relations import correlation_with_scores
from tests.fixtures.random_taxonomy import random_taxonomy

CPU = torch.device("cpu")


def estimate(rows: np.ndarray, scores: torch.Tensor) -> JackknifeEstimate:
    return correlation_with_scores(unit_rows(torch.from_numpy(rows), "raw", CPU), scores)


def symmetric(draws: np.random.Generator, n: int) -> torch.Tensor:
    scores = torch.from_numpy(draws.normal(size=(n, n)))
    return scores + scores.T


def test_the_error_is_that_of_leaving_each_word_out_of_both_sides():
    draws = np.random.default_rng(0)
    n = 20
    scores, first = symmetric(draws, n), draws.normal(size=(n, 6))
    second = first + 0.2 * draws.normal(size=(n, 6))
    found = word_difference(estimate(first, scores), [estimate(second, scores)])
    left = []
    for word in range(n):
        kept = np.delete(np.arange(n), word)
        sides = [estimate(rows[kept], scores[kept][:, kept]).value for rows in (first, second)]
        left.append(sides[0] - sides[1])
    error = jackknife_error(np.array(left))
    assert found.value == pytest.approx(estimate(first, scores).value - estimate(second, scores).value)
    assert found.high - found.value == pytest.approx(stats.t.ppf(0.975, n - 1) * error, rel=1e-6)
    assert found.p == pytest.approx(2 * stats.t.sf(abs(found.value) / error, n - 1), rel=1e-6)
    # nearly the same states: the pairing takes most of the error away
    alone = math.hypot(estimate(first, scores).error, estimate(second, scores).error)
    assert error < alone / 2


def test_what_is_alike_differs_by_nothing_and_what_is_not_known_has_no_interval():
    draws = np.random.default_rng(1)
    one = estimate(draws.normal(size=(12, 4)), symmetric(draws, 12))
    same = word_difference(one, [one, one])
    assert (same.value, same.low, same.high, same.p) == (0, 0, 0, 1)
    assert one.left is not None
    rounded = JackknifeEstimate(one.value + 1e-8, one.error, one.left + 1e-8)
    assert word_difference(rounded, [one]).p == 1
    unknown = word_difference(one, [JackknifeEstimate(math.nan, math.nan, np.full(12, math.nan))])
    assert all(math.isnan(value) for value in (unknown.value, unknown.low, unknown.high, unknown.p))
    without = word_difference(one, [JackknifeEstimate(0.5, 0.1)])
    assert without.value == one.value - 0.5
    assert math.isnan(without.p)
    with pytest.raises(ValueError, match="12 words on one side, 3"):
        word_difference(one, [JackknifeEstimate(0.5, 0.1, np.zeros(3))])


def test_draws_of_a_control_that_lie_apart_widen_the_interval():
    """A control that is drawn at random (vectors permuted) is a population: one draw of it may be a lucky one."""
    left = np.linspace(-0.001, 0.001, 30)
    one = JackknifeEstimate(0.3, 0.0, 0.3 + left)
    flat = np.zeros(30)
    alike = [JackknifeEstimate(0.1, 0.0, 0.1 + flat) for _ in range(4)]
    apart = [JackknifeEstimate(value, 0.0, value + flat) for value in (-0.1, 0.1, 0.1, 0.3)]
    close, wide = word_difference(one, alike), word_difference(one, apart)
    assert close.value == pytest.approx(wide.value) == pytest.approx(0.2)
    spread = np.std([-0.1, 0.1, 0.1, 0.3], ddof=1) / 2
    assert close.p < 1e-6
    # the draws decide: their 3 degrees of freedom
    assert wide.high - wide.value == pytest.approx(stats.t.ppf(0.975, 3) * spread, rel=0.05)
    assert mean_estimate(apart).value == pytest.approx(0.1)
    assert mean_estimate(apart).error == pytest.approx(0, abs=1e-12)


def test_differences_of_states_without_relations_are_rarely_significant():
    """The share of p below 0.05 where nothing differs, over 250 pairs of random states of 30 words."""
    draws = np.random.default_rng(2)
    scores = symmetric(draws, 30)
    p = [
        word_difference(estimate(draws.normal(size=(30, 8)), scores), [estimate(draws.normal(size=(30, 8)), scores)]).p
        for _ in range(250)
    ]
    assert 0.01 <= np.mean(np.array(p) < 0.05) <= 0.09
    assert 0.35 < np.mean(np.array(p) < 0.5) < 0.65


def test_slopes_over_steps_up_can_be_paired():
    taxonomy = random_taxonomy(40, 3)
    pairs = hypernym_pairs(taxonomy, list(range(40)))
    rows = np.random.default_rng(4).normal(size=(40, 10))
    decay = hypernym_decay(unit_rows(torch.from_numpy(rows), "raw", CPU), pairs, 19, 0)
    assert decay is not None
    found = slope_estimate(decay)
    assert found.left is not None
    reach = stats.t.ppf(0.975, len(found.left) - 1) * found.error
    assert decay.excess_slope.high - found.value == pytest.approx(reach)
    assert word_difference(found, [found]).p == 1
    assert math.isnan(slope_estimate(None).value)
