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
