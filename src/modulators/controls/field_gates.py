"""Controls of field modulators: the same dimensions and strengths, with less in the gates."""

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Self

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from src.modulators.field import FieldModulator, bounded, unbounded
from src.modulators.gating import gated
from src.modulators.modulator import Modulator, Role
from src.modulators.notebook.field import NotebookField

# its tanh is -1 to the bit in float32 and float64
CLOSED = -20.0


class _GatesOnActive(Modulator):
    """x' = x * prod over experts of (1 + alpha gate) on the active dimensions, with strengths as FieldModulator's."""

    def __init__(
        self,
        active: Int[Tensor, " active"],
        layers: Sequence[int],
        strength: Float[Tensor, "layer expert"],
        bounds: tuple[float, float],
    ) -> None:
        super().__init__()
        self.layers, self.bounds = tuple(layers), bounds
        self.strength = nn.Parameter(strength.detach().clone())
        self.active: Tensor
        self.register_buffer("active", active.clone())

    def settings(self) -> dict[str, Any]:
        """See Modulator."""
        return {
            "n_active": len(self.active),
            "layers": list(self.layers),
            "n_experts": self.strength.shape[1],
            "bounds": list(self.bounds),
        }

    def role(self, parameter: str) -> Role:
        """See Modulator."""
        return "strength" if parameter == "strength" else "weights"

    def strengths(self) -> Float[Tensor, "layer expert"]:
        """As FieldModulator's."""
        return bounded(self.strength, *self.bounds)

    @abstractmethod
    def logits(self, active: Float[Tensor, "token active"], row: int) -> Sequence[Float[Tensor, "token active"]]:
        """Of each expert's gates, which are their tanh, before the layer of a row of strengths."""

    def forward(
        self, residual: Float[Tensor, "batch pos d_model"], token_ids: Int[Tensor, "batch pos"], layer: int
    ) -> Float[Tensor, "batch pos d_model"]:
        """See Modulator."""
        del token_ids
        row = self.layers.index(layer)
        states = residual.flatten(0, 1)
        logits = self.logits(states[:, self.active].to(self.strength.dtype), row)
        return gated(states, self.active, self.strengths()[row], logits).view_as(residual)


class ConstantGates(_GatesOnActive):
    """Gates tanh(bias) that do not read the residual stream; at CLOSED they are -1: the shrink prod (1 - alpha).

    Args:
        bias: of each layer, or one for all.
        active, layers, strength, bounds: as in FieldModulator.
        train_bias: it is trained too; otherwise strengths alone.
    """

    kind: ClassVar[str] = "constant_gates"

    def __init__(
        self,
        bias: Float[Tensor, "layer_or_one expert active"],
        active: Int[Tensor, " active"],
        layers: Sequence[int],
        strength: Float[Tensor, "layer expert"],
        bounds: tuple[float, float],
        train_bias: bool,
    ) -> None:
        super().__init__(active, layers, strength, bounds)
        self.bias = nn.Parameter(bias.detach().clone(), requires_grad=train_bias)
        self.train_bias = train_bias

    def settings(self) -> dict[str, Any]:
        """See Modulator."""
        return super().settings() | {"n_biases": len(self.bias), "train_bias": self.train_bias}

    @classmethod
    def build(cls, settings: dict[str, Any]) -> Self:
        """See Modulator."""
        n_active, n_experts = settings["n_active"], settings["n_experts"]
        return cls(
            torch.zeros(settings["n_biases"], n_experts, n_active),
            torch.zeros(n_active, dtype=torch.long),
            settings["layers"],
            torch.zeros(len(settings["layers"]), n_experts),
            tuple(settings["bounds"]),
            settings["train_bias"],
        )

    def logits(self, active: Float[Tensor, "token active"], row: int) -> Sequence[Float[Tensor, "token active"]]:
        """See _GatesOnActive."""
        of_layer = self.bias[row if len(self.bias) > 1 else 0]
        return list(of_layer[:, None].expand(-1, len(active), -1))


class RandomFeatureGates(_GatesOnActive):
    """Gates tanh(linear(features)) of random features in place of simplices': tanh(W x / rms(x)), W fixed.

    W is standard normal over sqrt(number of active dimensions): the root mean square of what goes into the tanh is 1
    wherever the stream has grown, so that features saturate in no layer. The linear maps are 0 at the start.
    """

    kind: ClassVar[str] = "random_feature_gates"

    def __init__(
        self,
        n_features: Sequence[int],
        active: Int[Tensor, " active"],
        layers: Sequence[int],
        strength: Float[Tensor, "layer expert"],
        bounds: tuple[float, float],
        seed: int,
    ) -> None:
        super().__init__(active, layers, strength, bounds)
        self.n_features, self.seed = tuple(n_features), seed
        draws = torch.Generator().manual_seed(seed)
        drawn = torch.randn(sum(n_features), len(active), generator=draws) / math.sqrt(len(active))
        self.features: Tensor
        self.register_buffer("features", drawn.to(active.device))
        self.weight = nn.Parameter(torch.zeros(sum(n_features), len(active), device=active.device))
        self.bias = nn.Parameter(torch.zeros(len(n_features), len(active), device=active.device))

    def settings(self) -> dict[str, Any]:
        """See Modulator."""
        return super().settings() | {"n_features": list(self.n_features), "seed": self.seed}

    @classmethod
    def build(cls, settings: dict[str, Any]) -> Self:
        """See Modulator."""
        return cls(
            settings["n_features"],
            torch.zeros(settings["n_active"], dtype=torch.long),
            settings["layers"],
            torch.zeros(len(settings["layers"]), settings["n_experts"]),
            tuple(settings["bounds"]),
            settings["seed"],
        )

    def logits(self, active: Float[Tensor, "token active"], row: int) -> Sequence[Float[Tensor, "token active"]]:
        """See _GatesOnActive."""
        del row
        size = active.square().mean(-1, keepdim=True).sqrt().clamp_min(torch.finfo(active.dtype).tiny)
        features = (active / size @ self.features.T).tanh().split(self.n_features, dim=-1)
        weights = self.weight.split(self.n_features)
        return [torch.addmm(bias, of, weight) for of, weight, bias in zip(features, weights, self.bias, strict=True)]


class ActiveScaling(Modulator):
    """x' = s x on the active dimensions, with a learnt factor s of each layer that may be anything (1 at the start).

    departure: s - 1, which is trained as weights are (see TokenScaling).
    """

    kind: ClassVar[str] = "active_scaling"

    def __init__(self, active: Int[Tensor, " active"], layers: Sequence[int]) -> None:
        super().__init__()
        self.layers = tuple(layers)
        self.departure = nn.Parameter(torch.zeros(len(self.layers), device=active.device))
        self.active: Tensor
        self.register_buffer("active", active.clone())

    def settings(self) -> dict[str, Any]:
        """See Modulator."""
        return {"n_active": len(self.active), "layers": list(self.layers)}

    @classmethod
    def build(cls, settings: dict[str, Any]) -> Self:
        """See Modulator."""
        return cls(torch.zeros(settings["n_active"], dtype=torch.long), settings["layers"])

    def forward(
        self, residual: Float[Tensor, "batch pos d_model"], token_ids: Int[Tensor, "batch pos"], layer: int
    ) -> Float[Tensor, "batch pos d_model"]:
        """See Modulator."""
        del token_ids
        active = residual.index_select(-1, self.active).to(self.departure.dtype)
        scaled = active + active * self.departure[self.layers.index(layer)]
        return residual.index_copy(-1, self.active, scaled.to(residual.dtype))


def closed_gates(field: FieldModulator | NotebookField) -> ConstantGates:
    """Gates of -1: active dimensions are shrunk by prod (1 - alpha). Strengths alone can be trained."""
    bias = torch.full((1, len(field.shape.dimensions), len(field.active)), CLOSED)
    return _constant(field, bias, train_bias=False)


def constant_gates(
    field: FieldModulator | NotebookField, gates: Float[Tensor, "layer_or_one expert active"]
) -> ConstantGates:
    """Given gates in (-1, 1), whatever the residual stream is; they can be trained."""
    nearly_one = 1 - 2 * torch.finfo(torch.float32).eps  # above this a gate is 1 to the bit, without a gradient
    return _constant(field, gates.clamp(-nearly_one, nearly_one).atanh(), train_bias=True)


def _constant(field: FieldModulator | NotebookField, bias: Tensor, train_bias: bool) -> ConstantGates:
    bounds = (field.shape.lowest, field.shape.highest)
    # the notebook's logits mean other strengths
    strength = unbounded(field.strengths(), *bounds) if isinstance(field, NotebookField) else field.strength
    return ConstantGates(bias.to(field.strength), field.active, field.layers, strength, bounds, train_bias)
