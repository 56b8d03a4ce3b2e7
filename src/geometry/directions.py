"""Rows as directions."""

import torch
from jaxtyping import Float
from torch import Tensor


def unit_rows(rows: Float[Tensor, "row d"]) -> Float[Tensor, "row d"]:
    """Rows divided by their norms; rows of zeros stay zeros, and add nothing to sums."""
    norms = rows.norm(dim=1, keepdim=True)
    return rows / torch.where(norms > 0, norms, 1.0)
