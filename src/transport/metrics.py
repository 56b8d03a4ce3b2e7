"""How well predictions of activations match the truth, from weighted sums: one entry per replicate of a bootstrap.

Entry 0 of every sum has weight 1 for each row: it gives the point estimate, the others give the interval.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from src.errors import StrataError
from src.transport.bootstrap import Estimate

# A sum of squared deviations below this share of the uncentred one is rounding, not variance.
CONSTANT_TOLERANCE = 1e-13
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


def constant_dimensions(scatter: Float[Tensor, "*b d"], square_sum: Float[Tensor, "*b d"]) -> Bool[Tensor, "*b d"]:
    """Dimensions that do not vary, given the sums of squares about the mean and about the shift of the data."""
    return scatter <= CONSTANT_TOLERANCE * square_sum


def r2_per_dimension(
    sse: Float[Tensor, "*b d"], scatter: Float[Tensor, "*b d"], square_sum: Float[Tensor, "*b d"]
) -> Float[Tensor, "*b d"]:
    """1 - SSE / SST; of a dimension that does not vary, 1 if it is predicted exactly, else 0 (as r2_score does)."""
    constant = constant_dimensions(scatter, square_sum)
    exact = (sse <= CONSTANT_TOLERANCE * square_sum).to(sse.dtype)
    return torch.where(constant, exact, 1 - sse / torch.where(constant, 1, scatter))


def r2_variance_weighted(
    sse: Float[Tensor, "*b d"], scatter: Float[Tensor, "*b d"], square_sum: Float[Tensor, "*b d"]
) -> Float[Tensor, "*b"]:
    """1 - sum SSE / sum SST over the dimensions that vary; if none does, the mean of `r2_per_dimension`."""
    constant = constant_dimensions(scatter, square_sum)
    total = torch.where(constant, 0, scatter).sum(-1)
    ratio = torch.where(constant, 0, sse).sum(-1) / torch.where(total > 0, total, 1)
    return torch.where(total > 0, 1 - ratio, r2_per_dimension(sse, scatter, square_sum).mean(-1))


@dataclass(frozen=True)
class ResidualMetrics:
    """Metrics of predicted against true activations.

    r2_uniform: mean over dimensions of R2. r2_quantiles: of the dimensions' R2 (keys 0.05 ... 0.95). mse: per entry, in
    squared units of the activations. cosine: mean over rows of the uncentred cosine. n_rows: rows seen.
    """

    n_rows: int
    r2_uniform: Estimate
    r2_variance_weighted: Estimate
    r2_quantiles: dict[float, Estimate]
    mse: Estimate
    cosine: Estimate


@dataclass(frozen=True)
class TruthSums:
    """Sums over rows of the truth: their number, their deviations from a reference, and the squares of those.

    reference: a rough mean of the truth (say, over the training rows); it only keeps sums of squares precise.
    """

    count: Float[Tensor, "replicate"]
    sum: Float[Tensor, "replicate d_model"]
    square_sum: Float[Tensor, "replicate d_model"]


@dataclass(frozen=True)
class ErrorSums:
    """Sums over rows of a predictor's squared errors, and of the cosines of prediction and truth."""

    sse: Float[Tensor, "replicate d_model"]
    cosine_sum: Float[Tensor, "replicate"]


def residual_metrics(truth: TruthSums, errors: ErrorSums) -> ResidualMetrics:
    """All metrics with their intervals. Raises StrataError if no row was seen, or an error is NaN or infinite."""
    if truth.count[0] == 0:
        raise StrataError("no rows to evaluate: the held-out split is empty")
    if not errors.sse[0].isfinite().all():
        raise StrataError("NaN or inf among predictions or truth: check the operator and the activations")
    scatter = (truth.square_sum - truth.sum.square() / truth.count[:, None]).clamp(min=0)
    # a replicate that drew no rows at all tells nothing
    is_empty, nan = truth.count == 0, float("nan")
    r2 = r2_per_dimension(errors.sse, scatter, truth.square_sum).masked_fill(is_empty[:, None], nan)
    weighted = r2_variance_weighted(errors.sse, scatter, truth.square_sum).masked_fill(is_empty, nan)
    quantiles = torch.quantile(r2, torch.tensor(QUANTILES, dtype=r2.dtype, device=r2.device), dim=1)
    return ResidualMetrics(
        n_rows=int(truth.count[0]),
        r2_uniform=Estimate.of(r2.mean(1)),
        r2_variance_weighted=Estimate.of(weighted),
        r2_quantiles={q: Estimate.of(values) for q, values in zip(QUANTILES, quantiles, strict=True)},
        mse=Estimate.of(errors.sse.mean(1) / truth.count),
        cosine=Estimate.of(errors.cosine_sum / truth.count),
    )


def skill(errors: ErrorSums, baseline: ErrorSums) -> Estimate:
    """1 - SSE / SSE of the baseline over all dimensions, paired by replicate; both over the same rows."""
    return Estimate.of(1 - errors.sse.sum(1) / baseline.sse.sum(1))
