"""What a block does to the residual stream of a token, and what attention and MLP have in it."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from src.geometry.layers.texts import TextBlock, sums_by_text


@dataclass(frozen=True, eq=False)
class UpdateStatistics:
    """Means over counted tokens of a block with input x and output y; entry 0 is the value, then bootstrap replicates.

    cosine: of x and y. size: |y - x| / |x|. direction: cosine of x and y - x (negative: the block takes away from what
    is there; of a random direction it is 0 on average, with a standard deviation of d^-1/2 for one token). growth:
    |y| / |x|. unrelated_cosine: of x and y were y - x orthogonal to x, of the same size: mean of (1 + size^2)^-1/2.
    """

    cosine: Float[Tensor, "replicate"]
    unrelated_cosine: Float[Tensor, "replicate"]
    size: Float[Tensor, "replicate"]
    direction: Float[Tensor, "replicate"]
    growth: Float[Tensor, "replicate"]


@dataclass(frozen=True, eq=False)
class IncrementStatistics:
    """Means over counted tokens of what attention (a) and MLP (m) of a block add; replicates as above.

    attention_share: |a| / (|a| + |m|). cosine: of a and m (0 for unrelated directions, up to d^-1/2 for one token).
    """

    attention_share: Float[Tensor, "replicate"]
    attention_norm: Float[Tensor, "replicate"]
    mlp_norm: Float[Tensor, "replicate"]
    cosine: Float[Tensor, "replicate"]


class TokenMeans:
    """Means over tokens of several quantities, with replicates; a token where one is not finite is in none of them."""

    def __init__(self, n_replicates: int, n_quantities: int, device: torch.device) -> None:
        self._sums = torch.zeros(n_replicates, n_quantities + 1, dtype=torch.float64, device=device)

    def add(self, values: Float[Tensor, "counted quantity"], block: TextBlock) -> None:
        """Add the counted tokens of a block."""
        known = values.isfinite().all(-1)
        columns = torch.cat([torch.where(known[:, None], values, 0), known[:, None]], -1)
        self._sums += block.weights @ sums_by_text(columns, block.text[block.counted], block.n_texts)

    def means(self) -> list[Float[Tensor, "replicate"]]:
        """Of each quantity; NaN where there are no tokens."""
        sums = self._sums.cpu()
        return list((sums[:, :-1] / sums[:, -1:]).unbind(-1))


class UpdateSums(TokenMeans):
    """Running sums over one block's updates."""

    def __init__(self, n_replicates: int, device: torch.device) -> None:
        super().__init__(n_replicates, 5, device)

    def add_pair(
        self, before: Float[Tensor, "counted d_model"], after: Float[Tensor, "counted d_model"], block: TextBlock
    ) -> None:
        """Add the input and the output of a block for the counted tokens. A token whose norm is 0 has no cosine."""
        before, after = before.double(), after.double()
        change = after - before
        norm, norm_after, size = (rows.norm(dim=-1) for rows in (before, after, change))
        relative = size / norm
        values = [
            (before * after).sum(-1) / (norm * norm_after),
            (1 + relative**2).rsqrt(),
            relative,
            # a block that changes nothing has no direction
            torch.where(size > 0, (before * change).sum(-1) / (norm * size), 0.0),
            norm_after / norm,
        ]
        self.add(torch.stack(values, -1), block)

    def statistics(self) -> UpdateStatistics:
        """What the sums say."""
        return UpdateStatistics(*self.means())


class IncrementSums(TokenMeans):
    """Running sums over one block's attention and MLP."""

    def __init__(self, n_replicates: int, device: torch.device) -> None:
        super().__init__(n_replicates, 4, device)

    def add_pair(
        self, attention: Float[Tensor, "counted d_model"], mlp: Float[Tensor, "counted d_model"], block: TextBlock
    ) -> None:
        """Add what attention and MLP write for the counted tokens."""
        attention, mlp = attention.double(), mlp.double()
        of_attention, of_mlp = attention.norm(dim=-1), mlp.norm(dim=-1)
        cosine = (attention * mlp).sum(-1) / (of_attention * of_mlp)
        share = of_attention / (of_attention + of_mlp)
        self.add(torch.stack([share, of_attention, of_mlp, cosine], -1), block)

    def statistics(self) -> IncrementStatistics:
        """What the sums say."""
        return IncrementStatistics(*self.means())
