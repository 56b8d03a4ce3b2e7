"""Two readings of the same words, compared word by word."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from src.geometry.words.hypernyms import HypernymDecay
from src.geometry.words.pair_sums import JackknifeEstimate, jackknife_error

# of correlations of cosines of float32 states
_ROUNDING = 1e-6


@dataclass(frozen=True)
class WordDifference:
    """A difference with its 95 % interval and two-sided p; NaN where it, or its error, is not defined."""

    value: float
    low: float = math.nan
    high: float = math.nan
    p: float = math.nan


def word_difference(first: JackknifeEstimate, others: Sequence[JackknifeEstimate]) -> WordDifference:
    """`first` less the mean of `others`, all of the same words.

    Errors are paired: what leaving out a word does to both sides cancels, so they are those of the jackknife values'
    differences. Several others are draws of one random control: how far they lie apart is part of the error,
    Var = Var_jackknife + s^2 / draws (law of total variance), with the degrees of freedom of Satterthwaite (1946).
    Where both sides are alike but for rounding, p = 1.

    Raises ValueError without others, or where the words differ in number.
    """
    if not others:
        raise ValueError("a difference needs something to compare with")
    values = np.array([other.value for other in others])
    value = first.value - float(values.mean())
    if first.left is None or any(other.left is None for other in others):
        return WordDifference(value)
    left = np.stack([other.left for other in others if other.left is not None])
    if left.shape[1] != len(first.left):
        raise ValueError(f"{len(first.left)} words on one side, {left.shape[1]} on the other")
    with np.errstate(invalid="ignore"):  # a mean over no pairs
        of_words = jackknife_error(first.left - left.mean(0)) ** 2
    of_draws = float(values.var(ddof=1)) / len(values) if len(values) > 1 else 0.0
    error = math.sqrt(of_words + of_draws) if math.isfinite(of_words) else math.nan
    if not (math.isfinite(value) and math.isfinite(error)):
        return WordDifference(value)
    if error == 0:
        return WordDifference(value, value, value, 1.0 if abs(value) < _ROUNDING else 0.0)
    freedom = error**4 / (of_words**2 / (len(first.left) - 1) + of_draws**2 / max(len(values) - 1, 1))
    reach = float(stats.t.ppf(0.975, freedom)) * error
    p = 1.0 if abs(value) < _ROUNDING else float(2 * stats.t.sf(abs(value) / error, freedom))
    return WordDifference(value, value - reach, value + reach, p)


def mean_estimate(draws: Sequence[JackknifeEstimate]) -> JackknifeEstimate:
    """The mean over draws of a random control; its error is that of the words (`word_difference` adds the draws')."""
    left = [draw.left for draw in draws if draw.left is not None]
    value = float(np.mean([draw.value for draw in draws]))
    if len(left) < len(draws):
        return JackknifeEstimate(value, math.nan)
    mean = np.mean(left, axis=0)
    return JackknifeEstimate(value, jackknife_error(mean), mean)


def slope_estimate(decay: HypernymDecay | None) -> JackknifeEstimate:
    """The slope of a hypernym decay beyond its control, as something to compare; NaN without one."""
    if decay is None:
        return JackknifeEstimate(math.nan, math.nan)
    left = decay.left[:, 2]
    return JackknifeEstimate(decay.excess_slope.value, jackknife_error(left), left)
