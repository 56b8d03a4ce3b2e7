"""Tables of relative position biases, a bias for each bucket of distances and each head (spec A11)."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float64
from torch import Tensor


@dataclass(frozen=True, eq=False)
class RelativeBias:
    """table: the biases. What heads do with them is told by analysis=weights."""

    name: str
    table: Float64[np.ndarray, "bucket head"]

    @property
    def head_means(self) -> Float64[np.ndarray, "head"]:
        """Over buckets."""
        return self.table.mean(0)

    @property
    def head_stds(self) -> Float64[np.ndarray, "head"]:
        """Over buckets (population)."""
        return self.table.std(0)

    @property
    def head_ranges(self) -> Float64[np.ndarray, "head"]:
        """Largest less least bias."""
        return np.ptp(self.table, axis=0)


def relative_bias(name: str, table: Float[Tensor, "bucket head"]) -> RelativeBias:
    """One stack's table."""
    return RelativeBias(name, table.double().cpu().numpy())
