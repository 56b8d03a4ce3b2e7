"""A block of whole texts, and sums over it that a bootstrap over documents can weigh anew."""

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from src.text import Keep


@dataclass(frozen=True, eq=False)
class TextBlock:
    """Whole sequences (texts), token by token; all tensors on one device that knows float64.

    keep: `Keep` codes. text: of each token, the index of its text within the block. weights: float64, of each text in
    each replicate of a bootstrap over documents; row 0 is all ones. group: of each text, its group of documents for a
    delete-a-group jackknife.
    """

    token_ids: Int[Tensor, "token"]
    position: Int[Tensor, "token"]
    keep: Int[Tensor, "token"]
    text: Int[Tensor, "token"]
    weights: Float[Tensor, "replicate text"]
    group: Int[Tensor, "text"]

    @property
    def n_texts(self) -> int:
        """Number of texts."""
        return len(self.group)

    @property
    def device(self) -> torch.device:
        """Where sums are kept."""
        return self.weights.device

    @cached_property
    def counted(self) -> Bool[Tensor, "token"]:
        """Tokens that statistics are over."""
        return self.keep == Keep.COUNTED

    @cached_property
    def readable(self) -> Bool[Tensor, "token"]:
        """Tokens whose states are numbers."""
        return self.keep != Keep.NON_FINITE


def sums_by_text(
    values: Float[Tensor, "row *entry"], text: Int[Tensor, "row"], n_texts: int
) -> Float[Tensor, "text *entry"]:
    """Sums of the rows of each text, in float64."""
    totals = torch.zeros(n_texts, *values.shape[1:], dtype=torch.float64, device=values.device)
    return totals.index_add_(0, text, values.double())
