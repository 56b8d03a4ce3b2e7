"""Histograms of positive numbers over their logarithm, in bins that never have to be chosen."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

# powers of two between which numbers are told apart; others fall into the outermost bins
_LOWEST, _HIGHEST = -40, 40
_MANTISSA = 23
# bits of the mantissa: each power of two has 2^bits bins
FINE, COARSE = 11, 5
RELATIVE_ERROR = 2.0**-FINE


def n_bins(bits: int) -> int:
    """Number of bins."""
    return (_HIGHEST - _LOWEST) << bits


def bin_of(values: Float[Tensor, "row"], bits: int) -> Int[Tensor, "row"]:
    """The bin of each value, from the leading bits of its float32: at most 2^-bits of their lower edge wide."""
    pattern = values.float().view(torch.int32).long() >> (_MANTISSA - bits)
    return (pattern - ((127 + _LOWEST) << bits)).clamp(0, n_bins(bits) - 1)


def edges(bits: int) -> Float[Tensor, "bin+1"]:
    """Lower edges of all bins, and the upper one of the last; float64."""
    place = torch.arange(n_bins(bits) + 1, dtype=torch.float64)
    power = (place / 2**bits).floor()
    return torch.pow(2.0, power + _LOWEST) * (1 + place / 2**bits - power)


def quantile(
    counts: Float[Tensor, "*batch bin"] | Int[Tensor, "*batch bin"], probability: float, bits: int
) -> Float[Tensor, "*batch"]:
    """The value below which a share of the weight lies; NaN without weight.

    Values are spread evenly within their bin, so the error is at most a bin: a relative 2^-bits.
    """
    counts = counts.double()
    total = counts.sum(-1, keepdim=True)
    cumulative = counts.cumsum(-1)
    # never 0, where the first bin of all would do
    target = (probability * total).clamp(min=torch.finfo(torch.float64).tiny)
    place = torch.searchsorted(cumulative, target).clamp(max=counts.shape[-1] - 1)
    inside = counts.gather(-1, place)
    before = cumulative.gather(-1, place) - inside
    share = ((target - before) / inside.clamp(min=torch.finfo(torch.float64).tiny)).clamp(0, 1)
    ends = edges(bits).to(counts.device)
    low, high = ends[place], ends[place + 1]
    return torch.where(total > 0, low + share * (high - low), float("nan")).squeeze(-1)


def share_above(counts: Int[Tensor, "bin"], value: float, bits: int) -> float:
    """The share of the weight above a value (in the value's own bin: in proportion)."""
    counts = counts.double().cpu()
    ends = edges(bits)
    above = ((ends[1:] - value) / (ends[1:] - ends[:-1])).clamp(0, 1)
    return float((counts * above).sum() / counts.sum()) if counts.sum() > 0 else float("nan")
