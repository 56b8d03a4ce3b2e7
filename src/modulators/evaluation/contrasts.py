"""Means over tokens with intervals over groups (documents, synsets), differences paired by group, and their tests."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor

from src.features.training.reconstruction import Ratio
from src.modulators.comparison import mean_loss_of

_DRAWS = 9999
_FLIPS_AT_ONCE = 2**22


@dataclass(frozen=True)
class Difference:
    """A paired difference with its 95 % interval over groups; p: two-sided, by sign flips."""

    ratio: Ratio
    p: float


def mean_with_interval(
    sums: Float[Tensor, " example"], counts: Float[Tensor, " example"], groups: Int[Tensor, " example"]
) -> Ratio:
    """Sum over sum, with its interval over groups. Examples whose sum is NaN are left out."""
    above, below = _per_group(sums, counts, groups)
    return _ratio(above, below)


def within(ratio: Ratio, lowest: float, highest: float) -> Ratio:
    """With an interval that ends where its number does: a share's at 0 and 1."""
    return Ratio(ratio.value, max(ratio.low, lowest), min(ratio.high, highest))


def paired_difference(
    one: Float[Tensor, " example"],
    other: Float[Tensor, " example"],
    counts: Float[Tensor, " example"],
    groups: Int[Tensor, " example"],
    seed: int,
) -> Difference:
    """One less other, both sums over the same tokens. The interval is that of the ratio of sums.

    p: the share of random signs of the groups' differences whose sum is as far from 0, (1 + count) / (1 + draws).
    """
    above, below = _per_group(one - other, counts, groups)
    return Difference(_ratio(above, below), sign_flip_p(above.numpy(), seed))


def sign_flip_p(differences: Float[np.ndarray, " group"], seed: int) -> float:
    """Two-sided p of a sum of differences that are as likely to be positive as negative; 1 where all are 0."""
    draws, n = np.random.default_rng(seed), len(differences)
    # as far as rounding can tell
    reached = abs(differences.sum()) - 1e-12 * np.abs(differences).sum()
    count, at_once = 0, max(1, _FLIPS_AT_ONCE // max(1, n))
    for start in range(0, _DRAWS, at_once):
        signs = draws.integers(0, 2, (min(at_once, _DRAWS - start), n), dtype=np.int8)
        # the sum under a flip of those drawn is the whole less twice theirs
        flipped = differences.sum() - 2 * signs.astype(np.float64) @ differences
        count += int((np.abs(flipped) >= reached).sum())
    return (1 + count) / (1 + _DRAWS)


def _ratio(above: Float[Tensor, " group"], below: Float[Tensor, " group"]) -> Ratio:
    """With the interval that the comparison of train_modulator.py has: groups may be few, and of unequal size."""
    found = mean_loss_of(above[None], below)
    return Ratio(found.value, found.low, found.high)


def _per_group(
    sums: Float[Tensor, " example"], counts: Float[Tensor, " example"], groups: Int[Tensor, " example"]
) -> tuple[Float[Tensor, " group"], Float[Tensor, " group"]]:
    """Of the groups with something to count."""
    known = ~sums.isnan()
    n_groups = int(groups.max()) + 1
    above = sums.new_zeros(n_groups).index_add_(0, groups[known], sums[known])
    below = counts.new_zeros(n_groups).index_add_(0, groups[known], counts[known])
    return above[below > 0], below[below > 0]
