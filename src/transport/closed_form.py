"""Scores of a fitted affine map on any group of sequences, from moments alone: no second pass over the data."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from src.activations.statistics import Statistics
from src.hook_points import HookPoint
from src.transport.metrics import r2_per_dimension, r2_variance_weighted


@dataclass(frozen=True)
class ClosedFormScore:
    """R2 on the rows of some statistics: uniform mean over dimensions, variance-weighted; mse per entry."""

    r2_uniform: float
    r2_variance_weighted: float
    mse: float


def score_affine(
    statistics: Statistics,
    source: HookPoint,
    target: HookPoint,
    weight: Float[Tensor, "d_in d_out"],
    bias: Float[Tensor, " d_out"],
) -> ClosedFormScore:
    """Score y = x W + b on the rows behind the statistics, which need the pairs (source, source) and (source, target).

    With the rows' own means and scatters, SSE_j = Syy_jj - 2 (W'Sxy)_jj + (W'SxxW)_jj + n (my - mx W - b)_j^2.
    """
    sxy = statistics.scatter(source, target)
    weight, bias = weight.to(sxy), bias.to(sxy)
    sst = statistics.square_scatter(target)
    offset = statistics.mean(target) - statistics.mean(source) @ weight - bias
    explained = 2 * (weight * sxy).sum(0) - (weight * (statistics.scatter(source, source) @ weight)).sum(0)
    sse = (sst - explained + statistics.n * offset.square()).clamp(min=0)
    square_sum = statistics.square_sums[target]
    return ClosedFormScore(
        r2_uniform=float(r2_per_dimension(sse, sst, square_sum).mean()),
        r2_variance_weighted=float(r2_variance_weighted(sse, sst, square_sum)),
        mse=float(sse.mean() / statistics.n),
    )


def score_identity(
    statistics: Statistics, source: HookPoint, target: HookPoint, *, shifted_by: Tensor
) -> ClosedFormScore:
    """Score y = x + shift, where nothing is fitted but the shift [d_model] (zeros: the identity)."""
    identity = torch.eye(len(shifted_by), dtype=torch.float64, device=shifted_by.device)
    return score_affine(statistics, source, target, identity, shifted_by)
