"""Which loops of a cloud are more than chance: p per H1 bar, by a universal law and against clouds of a null model."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float
from scipy.stats import false_discovery_control

from src.errors import StrataError
from src.multiple_tests import holm
from src.topology.homology.persistence import Bars
from src.topology.inference.nulls import Cloud, NullModel, gaussian, null_distribution
from src.topology.measures.summaries import largest_ratio

# With fewer bars the universal law is not used: their mean says too little of where it lies.
MIN_BARS = 8
LEVEL = 0.05
# p is 0.01 at least.
DRAWS = 99

PValues = Float[np.ndarray, "bar"]


def death_over_birth(bars: Bars) -> Float[np.ndarray, "bar"]:
    """The ratio of each bar, which no change of scale alters; NaN for bars that never die or are born at 0.

    Loops are born at 0 only where distances are no metric.
    """
    usable = np.isfinite(bars.death) & (bars.birth > 0)
    return np.divide(bars.death, bars.birth, out=np.full(len(bars), np.nan), where=usable)


def universal_p_values(bars: Bars) -> PValues:
    """The p of each bar if all were noise, by the universal law of Bobrowski and Skraba.

    With r = ln ln(death / birth), l = A r - A mean(r) - gamma has about the left-skewed Gumbel distribution, so that
    p = exp(-exp(l)); A = 1 for Vietoris-Rips filtrations, gamma is Euler's constant ("A universal null-distribution for
    topological data analysis", Sci. Rep. 13, 12274, 2023). A conjecture for many independent points; the mean
    contains the loops that are no noise, which costs power. NaN for bars without a ratio, and for all bars if fewer
    than MIN_BARS have one.
    """
    if bars.dimension < 1:
        raise StrataError("the universal law is for loops and what is above: components are all born at 0")
    ratio = death_over_birth(bars)
    usable = ~np.isnan(ratio)
    p = np.full(len(bars), np.nan)
    if usable.sum() >= MIN_BARS:
        r = np.log(np.log(ratio[usable]))
        p[usable] = np.exp(-np.exp(r - r.mean() - np.euler_gamma))
    return p


def benjamini_hochberg(p: PValues) -> PValues:
    """The q of each p (Benjamini and Hochberg 1995): taking all q <= level keeps the share of false ones at the level.

    NaN stay NaN and do not count.
    """
    tested = ~np.isnan(p)
    q = np.full(len(p), np.nan)
    if tested.any():
        q[tested] = false_discovery_control(p[tested])
    return q


def null_p_values(bars: Bars, null_largest_ratios: Float[np.ndarray, "draw"]) -> PValues:
    """The p of each bar against the largest death / birth of each draw of a null model, which corrects for the family.

    (1 + #{draws whose largest ratio is at least the bar's}) / (1 + draws): Westfall and Young's single-step maximum.
    A draw without loops (NaN) has no ratio as large as any. NaN for bars without a ratio.
    """
    ratio = death_over_birth(bars)
    largest = np.sort(np.nan_to_num(null_largest_ratios, nan=1.0))
    as_large = len(largest) - np.searchsorted(largest, ratio, side="left")
    return np.where(np.isnan(ratio), np.nan, (1 + as_large) / (1 + len(largest)))


def decisive_p_values(p_null: PValues, q_universal: PValues) -> PValues:
    """What decides on each bar: the larger of both, or the one there is (NaN: not tested).

    The two tests fail in different places. The null model is exact for Gaussian clouds of any size, and finds weak
    loops; but clouds whose density or dimension varies from place to place have larger ratios everywhere, which it
    takes for loops. The universal law measures each bar against the cloud's others, so that it does not, but it has
    less power, and nothing to go by where there are few bars. docs/methods.md has the numbers.
    """
    return np.fmax(p_null, q_universal)


@dataclass(frozen=True)
class LoopSignificance:
    """What is known of every H1 bar, in their order (longest first).

    Attributes:
        ratio: death / birth.
        p_null: against the null model, corrected for the family; NaN where no null model was drawn.
        p_universal, q_universal, p_universal_family: by the universal law; with Benjamini and Hochberg's correction;
            with Holm's.
        decisive: of p_null and q_universal, see `decisive_p_values`.
        level: at which bars are significant.
        draws: of the null model.
    """

    ratio: Float[np.ndarray, "bar"]
    p_null: PValues
    p_universal: PValues
    q_universal: PValues
    p_universal_family: PValues
    decisive: PValues
    level: float
    draws: int

    @property
    def significant(self) -> Bool[np.ndarray, "bar"]:
        """Which bars are more than chance."""
        return self.decisive <= self.level


def significant_loops(
    bars: Bars, null_largest_ratios: Float[np.ndarray, "draw"] | None, level: float = LEVEL
) -> LoopSignificance:
    """The loops of a cloud that are more than chance: p_null <= level and q_universal <= level.

    Args:
        bars: of dimension 1.
        null_largest_ratios: the largest death / birth of each draw of a null model, from `null_largest_ratios` or from
            the values of statistic h1_max_ratio of `null_distribution`. None for distances without points, which no
            null model fits: the universal law decides alone. So does the null model if there are fewer than MIN_BARS
            bars.
        level: of the test of all bars of the cloud together. Several clouds need a correction of their own.

    Raises:
        StrataError: if there are too few draws for any bar to be significant at the level.
    """
    draws = 0 if null_largest_ratios is None else len(null_largest_ratios)
    if null_largest_ratios is None:
        p_null = np.full(len(bars), np.nan)
    elif 1 / (1 + draws) > level:
        raise StrataError(
            f"with {draws} draws of the null model no p is below {1 / (1 + draws):.3g}, so nothing is significant at "
            f"level {level:g}: draw {int(np.ceil(1 / level - 1))} or more"
        )
    else:
        p_null = null_p_values(bars, null_largest_ratios)
    p_universal = universal_p_values(bars)
    q_universal = benjamini_hochberg(p_universal)
    return LoopSignificance(
        death_over_birth(bars),
        p_null,
        p_universal,
        q_universal,
        holm(p_universal),
        decisive_p_values(p_null, q_universal),
        level,
        draws,
    )


def null_largest_ratios(
    points: Cloud,
    null: NullModel = gaussian,
    draws: int = DRAWS,
    seed: int = 0,
    metric: Literal["euclidean", "cosine"] = "euclidean",
    workers: int = 1,
) -> Float[np.ndarray, "draw"]:
    """The largest death / birth of the loops of each draw of a null model of a cloud; NaN for a draw without loops."""
    found = null_distribution(
        points,
        lambda _, found: {"ratio": largest_ratio(found.bars[1])},
        null,
        draws,
        seed,
        metric,
        observed={"ratio": float("nan")},
        workers=workers,
    )
    return found["ratio"].values
