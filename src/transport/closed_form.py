"""Scores of a fitted affine map on any group of sequences, from moments alone: no second pass over the data."""

from dataclasses import dataclass

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
    """Score y = x W + b on the rows behind the statistics; needs the pairs (source, source) and (source, target)."""
    return _score(statistics, target, squared_errors(statistics, source, target, weight, bias))


def score_identity(
    statistics: Statistics, source: HookPoint, target: HookPoint, *, shifted_by: Tensor
) -> ClosedFormScore:
    """Score y = x + shift, where nothing is fitted but the shift [d_model] (zeros: the identity)."""
    return _score(statistics, target, identity_errors(statistics, source, target, shifted_by=shifted_by))


def squared_errors(
    statistics: Statistics,
    source: HookPoint,
    target: HookPoint,
    weight: Float[Tensor, "d_in d_out"],
    bias: Float[Tensor, " d_out"],
) -> Float[Tensor, " d_out"]:
    """SSE of y = x W + b per dimension, over the rows behind the statistics.

    With the rows' own means and scatters, SSE_j = Syy_jj - 2 (W'Sxy)_jj + (W'SxxW)_jj + n (my - mx W - b)_j^2.
    """
    sxy = statistics.scatter(source, target)
    weight, bias = weight.to(sxy), bias.to(sxy)
    offset = statistics.mean(target) - statistics.mean(source) @ weight - bias
    explained = 2 * (weight * sxy).sum(0) - (weight * (statistics.scatter(source, source) @ weight)).sum(0)
    return (statistics.square_scatter(target) - explained + statistics.n * offset.square()).clamp(min=0)


def identity_errors(
    statistics: Statistics, source: HookPoint, target: HookPoint, *, shifted_by: Float[Tensor, " d_model"]
) -> Float[Tensor, " d_model"]:
    """SSE of y = x + shift per dimension: `squared_errors` for W = I, without its products of matrices."""
    means = statistics.shifted_mean(source) * statistics.shifted_mean(target)
    sxy = statistics.product(source, target).diagonal() - statistics.n * means
    offset = statistics.mean(target) - statistics.mean(source) - shifted_by
    scatter = statistics.square_scatter(target) - 2 * sxy + statistics.square_scatter(source)
    return (scatter + statistics.n * offset.square()).clamp(min=0)


def _score(statistics: Statistics, target: HookPoint, sse: Float[Tensor, " d_out"]) -> ClosedFormScore:
    sst, square_sum = statistics.square_scatter(target), statistics.square_sums[target]
    return ClosedFormScore(
        r2_uniform=float(r2_per_dimension(sse, sst, square_sum).mean()),
        r2_variance_weighted=float(r2_variance_weighted(sse, sst, square_sum)),
        mse=float(sse.mean() / statistics.n),
    )
