"""The notebook's residual modulator: 2,088,966 parameters at its own sizes (spec G1, G3 to G5)."""

from collections.abc import Sequence
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from src.geometry.directions import unit_rows
from src.modulators.beginning.beginning import Beginning
from src.modulators.residual import ResidualModulator

# standard deviation of the numbers of P
_PROJECTION = 0.01


class NotebookResidual(ResidualModulator):
    """r' = (1 - a) r + a P G[token] for every token, at whatever length P G has (BUG G-3, G-6)."""

    kind: ClassVar[str] = "notebook_residual"

    def forward(
        self, residual: Float[Tensor, "batch pos d_model"], token_ids: Int[Tensor, "batch pos"], layer: int
    ) -> Float[Tensor, "batch pos d_model"]:
        """See Modulator."""
        alpha = self.strengths()[self.layers.index(layer)]
        return ((1 - alpha) * residual.to(alpha.dtype) + alpha * self.target(token_ids)).to(residual.dtype)


def notebook_residual(
    start: Beginning | None,
    d_vocab: int,
    d_model: int,
    width: int,
    layers: Sequence[int],
    alpha: float,
    per_layer: bool,
    train_table: bool,
    seed: int,
    fitted: bool = False,
) -> NotebookResidual:
    """As the notebook begins: G standard normal, P normal with standard deviation 0.01.

    Args:
        start: its known tokens' vectors, at length 1, take the place of their random ones; the other rows stay, about
            sqrt(width) times as long (BUG G-3). None: all are random.
        d_vocab: rows of G.
        d_model: rows of P.
        width: columns of both.
        layers: as in ResidualModulator.
        alpha: likewise.
        per_layer: likewise.
        train_table: likewise.
        seed: draws G and P.
        fitted: `start` has a fitted P, which is taken; what it leaves over as an offset is dropped (BUG G-5).
    """
    draws = torch.Generator().manual_seed(seed)
    table = torch.randn(d_vocab, width, generator=draws)
    projection = _PROJECTION * torch.randn(d_model, width, generator=draws)
    if start is not None:
        table[start.known] = unit_rows(start.table[start.known])
        if fitted:
            projection = start.projection
    known = torch.ones(d_vocab, dtype=torch.bool)
    return NotebookResidual(table, projection, known, layers, alpha, per_layer, False, train_table)
