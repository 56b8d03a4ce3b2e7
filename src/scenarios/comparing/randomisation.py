"""p values of permutation tests, one for each cell of an array, alone and corrected for all of them."""

import torch
from jaxtyping import Float
from torch import Tensor

# two sums of the same numbers in another order may differ by this share
_ROUNDING = 1e-9


def permutation_p(
    observed: Float[Tensor, "*cell"], null: Float[Tensor, "draw *cell"]
) -> tuple[Float[Tensor, "*cell"], Float[Tensor, "*cell"]]:
    """(1 + draws that are at least the observed) / (1 + draws); and the same with each draw's largest cell.

    The second holds for all cells together (Westfall and Young 1993, single-step maximum); cells must be of one scale.
    NaN where the observed is; a draw's cell that is NaN counts as none. Large values are the evidence.
    """
    slack = _ROUNDING * (1 + observed.abs())
    low = torch.where(null.isnan(), -float("inf"), null)
    largest = low.flatten(1).max(1).values.reshape(-1, *[1] * observed.ndim)
    counts = ((low >= observed - slack).sum(0), (largest >= observed - slack).sum(0))
    alone, together = ((1 + count) / (1 + len(null)) for count in counts)
    nan = observed.isnan()
    return alone.masked_fill(nan, float("nan")), together.masked_fill(nan, float("nan"))


def null_range(null: Float[Tensor, "draw *cell"]) -> tuple[Float[Tensor, "*cell"], Float[Tensor, "*cell"]]:
    """What 2.5 % and 97.5 % of the draws lie below; NaN where a draw is."""
    return null.quantile(0.025, dim=0), null.quantile(0.975, dim=0)
