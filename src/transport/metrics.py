"""How well predictions of activations match the truth, from sums that do not grow with the data, with intervals.

Tokens of one sequence depend on each other, so intervals come from resampling sequences: each replicate gives every
sequence a Poisson(1) weight (Hanley and MacGibbon 2006; Chamandy et al. 2012, "Estimating uncertainty for massive data
streams"), and every metric is recomputed from the weighted sums. All intervals are 95 % percentile intervals.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import cosine_similarity

from src.errors import StrataError

# A sum of squared deviations below this share of the uncentred one is rounding, not variance.
CONSTANT_TOLERANCE = 1e-13
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
_INTERVAL = (0.025, 0.975)


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
class Estimate:
    """A value with its 95 % interval; low and high are NaN where no replicate was drawn."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, replicates: Float[Tensor, "replicate"]) -> "Estimate":
        """From a point estimate (entry 0) and its bootstrap replicates; replicates without data are left out."""
        drawn = replicates[1:][replicates[1:].isfinite()].cpu().numpy()
        low, high = np.quantile(drawn, _INTERVAL) if len(drawn) else (float("nan"), float("nan"))
        return cls(float(replicates[0]), float(low), float(high))


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


class SequenceBootstrap:
    """Poisson(1) weights of sequences that depend on (seed, index of the sequence) alone, not on order or batching."""

    def __init__(self, replicates: int, seed: int) -> None:
        if replicates < 0 or seed < 0:
            raise StrataError("the number of bootstrap replicates and the seed must not be negative")
        self.replicates, self.seed = replicates, seed
        self._last: tuple[Tensor, Tensor] | None = None

    def weights(self, sequence: Int[Tensor, "sequence"]) -> Float[Tensor, "replicate sequence"]:
        """float64, on the CPU. Row 0 is all ones: the point estimate. The other rows are the replicates."""
        # all predictors of a batch ask for the same sequences in turn
        if self._last is None or not torch.equal(self._last[0], sequence):
            draws = [np.random.default_rng([self.seed, s]).poisson(1.0, self.replicates) for s in sequence.tolist()]
            drawn = torch.from_numpy(np.stack(draws, axis=1).astype(np.float64))
            self._last = sequence, torch.cat([torch.ones(1, len(sequence), dtype=torch.float64), drawn])
        return self._last[1]


class ResidualTally:
    """Weighted sums for one predictor of one target, for the point estimate and every bootstrap replicate.

    Memory: 3 (replicates + 1) d_model float64 numbers, however many rows are seen. Tallies that share a bootstrap use
    the same weights, so that their differences and ratios are paired.
    """

    def __init__(
        self,
        reference: Float[Tensor, "d_model"],
        bootstrap: SequenceBootstrap,
        device: torch.device | str = "cpu",
    ) -> None:
        """reference: a rough mean of the truth (say, over the training rows); it only keeps sums of squares precise."""
        self.device = torch.device("cpu") if torch.device(device).type == "mps" else torch.device(device)
        self.reference = reference.to(self.device, torch.float64)
        self.bootstrap = bootstrap
        shape = (bootstrap.replicates + 1, len(reference))
        self.count, self.cosine_sum = (torch.zeros(shape[0], dtype=torch.float64, device=self.device) for _ in range(2))
        self.sum, self.square_sum, self.sse = (
            torch.zeros(shape, dtype=torch.float64, device=self.device) for _ in range(3)
        )

    @torch.no_grad()
    def update(
        self,
        prediction: Float[Tensor, "row d_model"],
        truth: Float[Tensor, "row d_model"],
        sequence: Int[Tensor, "row"],
    ) -> None:
        """Add rows; sequence[i] is the index of row i's sequence in the whole data set. Rows may come in any order.

        Raises StrataError on NaN or inf.
        """
        if prediction.shape != truth.shape or truth.shape != (len(sequence), len(self.reference)):
            raise StrataError(
                f"predictions {tuple(prediction.shape)}, truth {tuple(truth.shape)} and {len(sequence)} sequence"
                f" indices do not fit {len(self.reference)} dimensions"
            )
        if len(truth) == 0:
            return
        truth, prediction = truth.to(self.device, torch.float64), prediction.to(self.device, torch.float64)
        indices, inverse = sequence.cpu().unique(return_inverse=True)
        inverse = inverse.to(self.device)
        weights = self.bootstrap.weights(indices).to(self.device)

        def weighted_sum(rows: Tensor) -> Tensor:
            per_sequence = rows.new_zeros(len(indices), *rows.shape[1:]).index_add_(0, inverse, rows)
            return weights @ per_sequence

        shifted = truth - self.reference
        sse = weighted_sum((truth - prediction).square_())
        if not sse[0].isfinite().all():
            raise StrataError("NaN or inf among predictions or truth: check the operator and the activations")
        self.sse += sse
        self.sum += weighted_sum(shifted)
        self.square_sum += weighted_sum(shifted.square_())
        self.cosine_sum += weighted_sum(cosine_similarity(prediction, truth))
        self.count += weights @ inverse.bincount().double()

    def merge(self, other: "ResidualTally") -> "ResidualTally":
        """Add the rows of a tally made with an equal reference and bootstrap, in place."""
        ours, theirs = ((t.bootstrap.replicates, t.bootstrap.seed) for t in (self, other))
        if ours != theirs or not torch.equal(self.reference, other.reference.to(self.device)):
            raise StrataError("tallies with other references or bootstraps cannot be merged: make them alike")
        for name in ("count", "cosine_sum", "sum", "square_sum", "sse"):
            getattr(self, name).add_(getattr(other, name).to(self.device))
        return self

    def _scatter(self) -> Float[Tensor, "replicate d_model"]:
        return (self.square_sum - self.sum.square() / self.count[:, None]).clamp(min=0)

    def _r2(self) -> Float[Tensor, "replicate d_model"]:
        r2 = r2_per_dimension(self.sse, self._scatter(), self.square_sum)
        # a replicate that drew no rows at all tells nothing
        return r2.masked_fill(self.count[:, None] == 0, float("nan"))

    def result(self) -> ResidualMetrics:
        """All metrics with their intervals. Raises StrataError if no row was seen."""
        if self.count[0] == 0:
            raise StrataError("no rows to evaluate: the held-out split is empty")
        r2 = self._r2()
        weighted = r2_variance_weighted(self.sse, self._scatter(), self.square_sum)
        quantiles = torch.quantile(r2, torch.tensor(QUANTILES, dtype=r2.dtype, device=r2.device), dim=1)
        return ResidualMetrics(
            n_rows=int(self.count[0]),
            r2_uniform=Estimate.of(r2.mean(1)),
            r2_variance_weighted=Estimate.of(weighted.masked_fill(self.count == 0, float("nan"))),
            r2_quantiles={q: Estimate.of(values) for q, values in zip(QUANTILES, quantiles, strict=True)},
            mse=Estimate.of(self.sse.mean(1) / self.count),
            cosine=Estimate.of(self.cosine_sum / self.count),
        )

    def r2_of_dimensions(self) -> Float[Tensor, "d_model"]:
        """R2 of each output dimension: the point estimate."""
        return self._r2()[0]

    def skill(self, baseline: "ResidualTally") -> Estimate:
        """1 - SSE / SSE of the baseline over all dimensions, paired by replicate; both must have seen the same rows."""
        if not torch.equal(self.count, baseline.count.to(self.device)):
            raise StrataError("skill compares predictors on the same rows: feed both tallies alike")
        return Estimate.of(1 - self.sse.sum(1) / baseline.sse.to(self.device).sum(1))
