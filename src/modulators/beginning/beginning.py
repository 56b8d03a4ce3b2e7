"""Where the training of a modulator begins."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from src.errors import StrataError


@dataclass(frozen=True, eq=False)
class Beginning:
    """Table G, projection P and offset b of a residual modulator, and the tokens that it knows; float32 on the CPU.

    Whatever made them, numbers in G are about 1, so that a learning rate means the same for all.
    """

    table: Float[Tensor, "d_vocab width"]
    projection: Float[Tensor, "d_model width"]
    offset: Float[Tensor, " d_model"]
    known: Bool[Tensor, " d_vocab"]


def random_beginning(d_vocab: int, d_model: int, width: int, seed: int) -> Beginning:
    """G standard normal, P so that numbers of P g are standard normal too; every token is known."""
    draws = torch.Generator().manual_seed(seed)
    return Beginning(
        torch.randn(d_vocab, width, generator=draws),
        torch.randn(d_model, width, generator=draws) / width**0.5,
        torch.zeros(d_model),
        torch.ones(d_vocab, dtype=torch.bool),
    )


def with_vectors(
    start: Beginning, tokens: Int[Tensor, " token"], vectors: Float[Tensor, "token part"]
) -> tuple[Beginning, float]:
    """These tokens alone are known (BUG G-3), by vectors that fill the first columns of G; and the factor put to them.

    One factor makes the mean square of their numbers 1: lengths keep their proportions (BUG G-2). The other columns are
    0, and have the random columns of P to be trained with.

    Raises:
        StrataError: vectors of other width than fits, or none that is not zero.
    """
    size = vectors.double().square().mean().sqrt()
    if vectors.shape[1] > start.table.shape[1]:
        raise StrataError(f"vectors of {vectors.shape[1]} numbers do not fit into a table of {start.table.shape[1]}")
    if not bool(size > 0) or not bool(size.isfinite()):
        raise StrataError("tokens' vectors are all zero or not finite: there is nothing to begin with")
    table, known = torch.zeros_like(start.table), torch.zeros_like(start.known)
    table[tokens, : vectors.shape[1]] = (vectors.double() / size).to(table)
    known[tokens] = True
    return Beginning(table, start.projection, start.offset, known), float(1 / size)
