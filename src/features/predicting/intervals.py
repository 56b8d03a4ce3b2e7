"""95 % intervals for thousands of features at once, in memory that grows neither with documents nor with replicates.

Documents are dealt to a fixed number of groups, sums are kept per group, and every metric is computed anew without each
group in turn: the delete-a-group jackknife (Kott 2001, *Journal of Official Statistics* 17). A bootstrap would need its
replicates, or all documents, for every feature.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float
from scipy.stats import t as student_t
from torch import Tensor

N_GROUPS = 40
# from fewer groups with data no interval is made
FEWEST_GROUPS = 5
# Where a metric's error is near to normal: plain; the logarithm of the value, or of what it lacks to 1; Fisher's z of a
# correlation; share: of counts, by Wilson's score interval
Scale = Literal["plain", "log", "log_rest", "fisher", "share"]

# by the number of groups with data
_QUANTILES = torch.tensor([float("nan")] * 2 + [float(student_t.ppf(0.975, n - 1)) for n in range(2, N_GROUPS + 1)])
_TINY = 1e-300
_NEAR_ONE = 1 - 1e-15


@dataclass(frozen=True)
class Interval:
    """Values with the ends of their 95 % intervals; low and high are NaN where there is too little data for one."""

    value: Float[Tensor, "*entry"]
    low: Float[Tensor, "*entry"]
    high: Float[Tensor, "*entry"]


def leave_one_out(sums: Float[Tensor, "statistic group feature"]) -> Float[Tensor, "statistic replicate feature"]:
    """The sums over all groups (entry 0), and over all groups but each one in turn.

    The others are added up, not taken from the whole: of a group far larger than the rest only rounding would be left.
    """
    before, after = sums.cumsum(1), sums.flip(1).cumsum(1).flip(1)
    nothing = torch.zeros_like(sums[:, :1])
    rest = torch.cat([nothing, before[:, :-1]], 1) + torch.cat([after[:, 1:], nothing], 1)
    return torch.cat([before[:, -1:], rest], 1)


def jackknife_interval(
    replicates: Float[Tensor, "replicate feature"], has_data: Bool[Tensor, "group feature"], scale: Scale
) -> Interval:
    """From a metric on all groups (entry 0) and without each in turn. has_data: which groups have rows of a feature.

    With G groups the variance is (G - 1) / G sum_g (t_(g) - t)^2 on the metric's scale; the interval is wide by the
    quantile of Student's t with as many degrees of freedom as groups have data, less one.
    """
    value = replicates[0]
    spread, groups = _spread(_transformed(replicates, scale)), has_data.sum(0)
    quantile = _QUANTILES.to(value)[groups]
    half = quantile * spread
    if scale == "share":
        low, high = _wilson(value, spread, groups.to(value), quantile)
    else:
        middle = _transformed(value, scale)
        low, high = (_restored(end, scale) for end in (middle - half, middle + half))
        if scale == "log_rest":
            low, high = high, low
    too_few = (groups < FEWEST_GROUPS) | ~value.isfinite()
    return Interval(value, low.masked_fill(too_few, float("nan")), high.masked_fill(too_few, float("nan")))


def median(values: Float[Tensor, "*replicate entry"]) -> Float[Tensor, "*replicate"]:
    """The median of what is not NaN along the last axis; of an even number the mean of the two in the middle.

    (torch.median is the lower of these; numpy's and everyone's is their mean.) NaN of none.
    """
    ordered, n = values.sort(-1).values, (~values.isnan()).sum(-1, keepdim=True)  # NaN comes last
    middle = torch.cat([(n - 1).clamp_min(0) // 2, n // 2], -1)
    return ordered.gather(-1, middle.clamp_max(values.shape[-1] - 1)).mean(-1)


def median_interval(replicates: Float[Tensor, "replicate feature"]) -> tuple[float, float, float]:
    """The median over the features that have a value, and its 95 % interval over documents; NaN without any."""
    known = replicates[:, replicates[0].isfinite()]
    if not known.shape[1]:
        return float("nan"), float("nan"), float("nan")
    medians = median(known)
    half = float(student_t.ppf(0.975, len(medians) - 2) * _spread(medians))
    return float(medians[0]), float(medians[0]) - half, float(medians[0]) + half


def _spread(replicates: Float[Tensor, "replicate *feature"]) -> Float[Tensor, "*feature"]:
    """The jackknife's standard error; NaN where a replicate has no value."""
    n_groups = len(replicates) - 1
    return ((replicates[1:] - replicates[0]).square().sum(0) * (n_groups - 1) / n_groups).sqrt()


def _transformed(values: Tensor, scale: Scale) -> Tensor:
    if scale == "log":
        return values.clamp(min=_TINY).log()
    if scale == "log_rest":
        return (1 - values).clamp(min=1 - _NEAR_ONE).log()
    if scale == "fisher":
        return values.clamp(-_NEAR_ONE, _NEAR_ONE).atanh()
    return values


def _restored(ends: Tensor, scale: Scale) -> Tensor:
    if scale == "log":
        return ends.exp()
    if scale == "log_rest":
        return 1 - ends.exp()
    return ends.tanh() if scale == "fisher" else ends


def _wilson(share: Tensor, spread: Tensor, groups: Tensor, quantile: Tensor) -> tuple[Tensor, Tensor]:
    """Wilson's interval with the effective sample size share (1 - share) / variance (Korn and Graubard 1998).

    Where all is one kind the variance says nothing, and each group counts as one draw.
    """
    variance = spread.square()
    size = torch.where(variance > 0, share * (1 - share) / torch.where(variance > 0, variance, 1), groups)
    squared = quantile.square() / size
    middle = (share + squared / 2) / (1 + squared)
    half = (share * (1 - share) * squared + squared.square() / 4).sqrt() / (1 + squared)
    # rounding aside, Wilson's interval ends at 0 or 1 where the share does
    low, high = (middle - half).clamp(min=0), (middle + half).clamp(max=1)
    return torch.where(share <= 0, 0.0, low), torch.where(share >= 1, 1.0, high)
