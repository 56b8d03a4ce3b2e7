"""Chunks of whole sequences with what features do on them, and the tokens around a row."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Chunk:
    """Whole sequences of a store. activations: of the chosen features; NaN where a token is not counted."""

    activations: Float[Tensor, "row feature"]
    is_counted: Bool[Tensor, " row"]
    token_ids: Int[Tensor, " row"]
    sequence: Int[Tensor, " row"]
    position: Int[Tensor, " row"]
    document: Int[Tensor, " row"]

    def around(
        self, rows: Int[Tensor, " n"], before: int, after: int
    ) -> tuple[Int[Tensor, "n width"], Bool[Tensor, "n width"]]:
        """The rows from `before` rows before to `after` rows after each, and which of them are of its sequence."""
        there = rows[:, None] + torch.arange(-before, after + 1, device=rows.device)
        clamped = there.clamp(0, len(self.sequence) - 1)
        return clamped, (there == clamped) & (self.sequence[clamped] == self.sequence[rows][:, None])


@dataclass(frozen=True)
class Context:
    """A piece of a sequence around a token on which a feature fires.

    band: None among the top ones, else which band of strength (0 = weakest firings). place: of the firing token within
    token_ids. activations: of the feature on these tokens; NaN where a token is not counted.
    """

    band: int | None
    document: int
    sequence: int
    position: int
    activation: float
    place: int
    token_ids: tuple[int, ...]
    activations: tuple[float, ...]
