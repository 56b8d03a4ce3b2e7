"""95 % intervals from a bootstrap over documents, whose tokens depend on each other.

Each replicate gives every document a Poisson(1) weight (Hanley and MacGibbon 2006; Chamandy et al. 2012, "Estimating
uncertainty for massive data streams"), and every metric is recomputed from the weighted sums.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from src.errors import StrataError

_INTERVAL = (0.025, 0.975)


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
class Band:
    """`Estimate` for every entry of an array."""

    value: Float[Tensor, "*entry"]
    low: Float[Tensor, "*entry"]
    high: Float[Tensor, "*entry"]

    @classmethod
    def of(cls, replicates: Float[Tensor, "replicate *entry"], *, centred: bool = False) -> "Band":
        """As `Estimate.of`, entry by entry: replicates that are no number there are left out there.

        centred: move the interval so that the replicates' median falls on the estimate. For what is optimised on the
        very rows that are drawn anew: replicates are optimised once more, and all lie to one side of the estimate.
        """
        if len(replicates) == 1:
            nothing = torch.full_like(replicates[0], float("nan"))
            return cls(replicates[0], nothing, nothing)
        is_number = replicates[1:].isfinite()
        drawn = torch.where(is_number, replicates[1:], float("inf")).sort(0).values
        last = (is_number.sum(0, keepdim=True) - 1).clamp(min=0).double()

        def quantile(probability: float) -> Tensor:
            place = probability * last
            below = drawn.gather(0, place.floor().long())[0]
            above = drawn.gather(0, place.ceil().long())[0]
            value = below + (above - below) * place.frac()[0]
            return torch.where(is_number.any(0), value, float("nan"))

        low, high = (quantile(probability) for probability in _INTERVAL)
        bias = quantile(0.5) - replicates[0] if centred else torch.zeros_like(replicates[0])
        return cls(replicates[0], low - bias, high - bias)

    def at(self, place: int) -> Estimate:
        """One entry of a band over one axis."""
        return Estimate(*(float(values[place]) for values in (self.value, self.low, self.high)))


# below this number a percentile interval is told to be too narrow
FEW_DOCUMENTS = 20


class DocumentBootstrap:
    """Poisson(1) weights of documents that depend on (seed, index of the document) alone, not on order or batching."""

    def __init__(self, replicates: int, seed: int) -> None:
        if replicates < 0 or seed < 0:
            raise StrataError("the number of bootstrap replicates and the seed must not be negative")
        self.replicates, self.seed = replicates, seed

    def weights(self, document: Int[Tensor, "document"]) -> Float[Tensor, "replicate document"]:
        """float64, on the CPU. Row 0 is all ones: the point estimate. The other rows are the replicates."""
        draws = [np.random.default_rng([self.seed, index]).poisson(1.0, self.replicates) for index in document.tolist()]
        weights = np.ones((1 + self.replicates, len(document)))
        if draws:
            weights[1:] = np.stack(draws, axis=1)
        return torch.from_numpy(weights)
