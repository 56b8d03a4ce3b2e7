"""Mean cosine of all pairs of tokens, within texts and across them, from sums of unit rows."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from src.geometry.layers.texts import TextBlock, sums_by_text


@dataclass(frozen=True, eq=False)
class CosineStatistics:
    """Means over pairs of counted tokens; entry 0 is the value, the others are bootstrap replicates.

    within: pairs of one text, NaN where no text has two tokens. across: pairs of different texts. n_zero: tokens of
    norm 0, which have no direction and are in no pair.
    """

    within: Float[Tensor, "replicate"]
    across: Float[Tensor, "replicate"]
    n_within_pairs: int
    n_across_pairs: int
    n_zero: int


class CosineSums:
    """Running sums: of unit rows, and of the squared sums of each text.

    With unit rows u, s_t = sum of u over text t of n_t tokens (spec A3, applied to texts):
      within = sum_t (|s_t|^2 - n_t) / sum_t n_t (n_t - 1)
      across = (|sum_t s_t|^2 - sum_t |s_t|^2) / ((sum_t n_t)^2 - sum_t n_t^2)
    A replicate gives text t the weight w_t: pairs within count w_t, pairs of texts t and v w_t w_v; no text is paired
    with its own copy.
    """

    def __init__(self, n_replicates: int, d_model: int, device: torch.device) -> None:
        self._unit = torch.zeros(n_replicates, d_model, dtype=torch.float64, device=device)
        self._within = torch.zeros(n_replicates, 2, dtype=torch.float64, device=device)
        self._own = torch.zeros(n_replicates, 3, dtype=torch.float64, device=device)
        self._n_zero = 0

    def add(
        self, rows: Float[Tensor, "counted d_model"], norms: Float[Tensor, "counted"], block: TextBlock
    ) -> Float[Tensor, "text d_model"]:
        """Add the counted tokens of a block; returns the sum of unit rows of each text."""
        text, has_direction = block.text[block.counted], norms > 0
        self._n_zero += int((~has_direction).sum())
        unit = torch.where(has_direction[:, None], rows.double() / norms[:, None], 0.0)
        sums = sums_by_text(unit, text, block.n_texts)
        count = sums_by_text(has_direction.double(), text, block.n_texts)
        square = sums.square().sum(-1)
        self._unit += block.weights @ sums
        self._within += block.weights @ torch.stack([square - count, count * (count - 1)], -1)
        # of a text's weight the first power goes with its tokens, the square with its pairs with itself
        self._own[:, 0] += block.weights @ count
        self._own[:, 1:] += block.weights**2 @ torch.stack([square, count**2], -1)
        return sums

    def statistics(self) -> CosineStatistics:
        """What the sums say."""
        total, pairs = self._within.unbind(-1)
        count, own_square, own_pairs = self._own.unbind(-1)
        across_pairs = count**2 - own_pairs
        across = (self._unit.square().sum(-1) - own_square) / across_pairs
        return CosineStatistics(
            within=torch.where(pairs > 0, total / pairs, float("nan")).cpu(),
            across=torch.where(across_pairs > 0, across, float("nan")).cpu(),
            n_within_pairs=int(pairs[0] / 2),
            n_across_pairs=int(across_pairs[0] / 2),
            n_zero=self._n_zero,
        )
