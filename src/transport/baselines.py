"""Predictors that need no regression, as affine fits: the identity, the identity with a shift, and the mean."""

from collections.abc import Sequence
from typing import Literal

import torch

from src.activations.moments import Moments
from src.hook_points import HookPoint
from src.transport.affine import AffineFit, bias_of, distinct, require_equal_widths

Baseline = Literal["identity", "identity_shift", "mean"]


def fit_baseline(
    moments: Moments, source: HookPoint, targets: Sequence[HookPoint], groups: Sequence[int], baseline: Baseline
) -> dict[HookPoint, AffineFit]:
    """identity: y = x; identity_shift: y = x + mean(y - x) over the rows of the groups; mean: y = mean(y).

    Raises StrataError if the identity is asked for between unequal widths.
    """
    total = moments.subset(distinct(groups))
    fits = {}
    for target in targets:
        means = total.mean(target)
        if baseline == "mean":
            weight, rank = means.new_zeros(len(total.sums[source]), len(means)), 0
        else:
            rank = require_equal_widths(total, source, target, baseline)
            weight = torch.eye(rank, dtype=means.dtype, device=means.device)
        bias = torch.zeros_like(means) if baseline == "identity" else bias_of(total, source, target, weight)
        fits[target] = AffineFit(weight, bias, None, None, rank)
    return fits
