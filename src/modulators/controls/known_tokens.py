"""Controls of residual modulators: the same tokens and strengths, with less in the targets."""

from collections.abc import Sequence
from typing import Any, ClassVar, Self

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from src.modulators.modulator import Modulator, Role
from src.modulators.residual import mixed


class ConstantTarget(Modulator):
    """r' = (1 - a) r + a t with one target t for all known tokens; t = 0 leaves the shrink alone, (1 - a) r.

    Args:
        target: t.
        known: tokens that are changed.
        layers: before whose blocks it stands.
        strength: logits of a, of each layer or one for all.
        match_norms: the target takes the length of what it is mixed with.
        train_target: the target is trained too; otherwise strengths alone.
    """

    kind: ClassVar[str] = "constant_target"

    def __init__(
        self,
        target: Float[Tensor, " d_model"],
        known: Bool[Tensor, " d_vocab"],
        layers: Sequence[int],
        strength: Float[Tensor, " layer_or_one"],
        match_norms: bool,
        train_target: bool,
    ) -> None:
        super().__init__()
        self.target = nn.Parameter(target.detach().clone(), requires_grad=train_target)
        self.strength = nn.Parameter(strength.detach().clone())
        self.layers, self.match_norms, self.train_target = tuple(layers), match_norms, train_target
        self.known: Tensor
        self.register_buffer("known", known.clone())

    def settings(self) -> dict[str, Any]:
        """See Modulator."""
        return {
            "d_model": len(self.target),
            "d_vocab": len(self.known),
            "layers": list(self.layers),
            "n_strengths": len(self.strength),
            "match_norms": self.match_norms,
            "train_target": self.train_target,
        }

    @classmethod
    def build(cls, settings: dict[str, Any]) -> Self:
        """See Modulator."""
        return cls(
            torch.zeros(settings["d_model"]),
            torch.zeros(settings["d_vocab"], dtype=torch.bool),
            settings["layers"],
            torch.zeros(settings["n_strengths"]),
            settings["match_norms"],
            settings["train_target"],
        )

    def role(self, parameter: str) -> Role:
        """See Modulator."""
        return "strength" if parameter == "strength" else "weights"

    def strengths(self) -> Float[Tensor, "layer 1"]:
        """Alpha of each layer."""
        return self.strength.sigmoid().expand(len(self.layers))[:, None]

    def forward(
        self, residual: Float[Tensor, "batch pos d_model"], token_ids: Int[Tensor, "batch pos"], layer: int
    ) -> Float[Tensor, "batch pos d_model"]:
        """See Modulator."""
        share = self.strengths()[self.layers.index(layer)] * self.known[token_ids, None]
        return mixed(residual, self.target, share, self.match_norms)


class TokenScaling(Modulator):
    """r' = s r for known tokens, with a learnt factor s of each layer that may be anything (1 at the start).

    departure: s - 1. It is trained as weights are: the rate of strengths, which are logits, would carry it past what it
    looks for.
    """

    kind: ClassVar[str] = "token_scaling"

    def __init__(self, known: Bool[Tensor, " d_vocab"], layers: Sequence[int]) -> None:
        super().__init__()
        self.layers = tuple(layers)
        self.departure = nn.Parameter(torch.zeros(len(self.layers)))
        self.known: Tensor
        self.register_buffer("known", known.clone())

    def settings(self) -> dict[str, Any]:
        """See Modulator."""
        return {"d_vocab": len(self.known), "layers": list(self.layers)}

    @classmethod
    def build(cls, settings: dict[str, Any]) -> Self:
        """See Modulator."""
        return cls(torch.zeros(settings["d_vocab"], dtype=torch.bool), settings["layers"])

    def forward(
        self, residual: Float[Tensor, "batch pos d_model"], token_ids: Int[Tensor, "batch pos"], layer: int
    ) -> Float[Tensor, "batch pos d_model"]:
        """See Modulator."""
        change = self.departure[self.layers.index(layer)] * self.known[token_ids, None]
        return residual + (change * residual.to(change)).to(residual.dtype)
