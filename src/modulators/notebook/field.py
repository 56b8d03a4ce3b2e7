"""The notebook's field modulator: 38,552 parameters at its own sizes, BUG H-1 to H-7 included (spec H1 to H8)."""

import math
from collections.abc import Sequence
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from src.errors import StrataError
from src.modulators.field import FieldShape, ShapedModulator
from src.modulators.modulator import Role
from src.modulators.notebook.templates import notebook_template, notebook_volume

_DECAY = 0.99


class NotebookExpert(nn.Module):
    """Squared edges and V^2 of a deformed template, after LayerNorm, and what is made of them.

    For k = 1 both features are d^2, and LayerNorm makes 0 of two equal numbers: a constant gate (BUG H-3). `validity`
    is computed and goes nowhere, so its parameters never get a gradient (BUG H-2).
    """

    def __init__(self, k: int, n_active: int, width: int, deformation: float) -> None:
        super().__init__()
        template = notebook_template(k, width).float()
        self.deformation = deformation
        self.template: Tensor
        self.register_buffer("template", template, persistent=False)
        n_features = k * (k + 1) // 2 + 1
        self.deform = nn.Linear(n_active, template.numel())
        self.norm = nn.LayerNorm(n_features)
        self.validity = nn.Linear(n_features, 1)
        self.gate = nn.Linear(n_features, n_active)

    def forward(
        self, active: Float[Tensor, "*batch active"]
    ) -> tuple[Float[Tensor, "*batch active"], Float[Tensor, "*batch 1"], Float[Tensor, "*batch"]]:
        """Gates in (0, 1), validity, and V^2."""
        moved = self.template + self.deformation * self.deform(active).unflatten(-1, self.template.shape)
        edges, volume = notebook_volume(moved)
        features = self.norm(torch.cat([edges, volume[..., None]], dim=-1))
        return self.gate(features).sigmoid(), self.validity(features).sigmoid(), volume


class NotebookField(ShapedModulator):
    """x' = x * prod over experts of (1 - alpha + alpha gate): below x always, about half of alpha at the start (H-4).

    alpha = sigmoid(logit), cut off at its bounds: beyond them its gradient is 0 (BUG H-6). `valid` is a running mean of
    the share of V^2 > 0, from 0 and never corrected for it (spec H7).

    Raises:
        StrataError: a random null space, at which the notebook itself fails in the first pass (BUG H-5); templates that
            are not known.
    """

    kind: ClassVar[str] = "notebook_field"

    def __init__(self, d_model: int, layers: Sequence[int], shape: FieldShape, seed: int) -> None:
        super().__init__(d_model, layers, shape, seed)
        if shape.null_place == "random":
            raise StrataError(
                "the notebook's field modulator fails with a random null space (its layers are built for fewer "
                "dimensions than they are given): use modulator.field.null_place=tail, or compat=null"
            )
        self.n_active = d_model - int(d_model * shape.null_share)
        self.experts = nn.ModuleList(
            NotebookExpert(k, self.n_active, shape.width, shape.deformation) for k in shape.dimensions
        )
        draws = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for module in self.modules():
                if isinstance(module, nn.Linear):
                    bound = module.in_features**-0.5
                    module.weight.uniform_(-bound, bound, generator=draws)
                    module.bias.uniform_(-bound, bound, generator=draws)
        start = math.log(shape.alpha / (1 - shape.alpha))
        self.strength = nn.Parameter(torch.full((len(self.layers), len(shape.dimensions)), start))
        self.valid: Tensor
        self.register_buffer("valid", torch.zeros(len(self.layers), len(shape.dimensions)))

    def role(self, parameter: str) -> Role:
        """See Modulator; the notebook's geometric group is all of an expert but its gate."""
        if parameter == "strength":
            return "strength"
        return "weights" if ".gate." in parameter else "geometry"

    def strengths(self) -> Float[Tensor, "layer expert"]:
        """Cut off at the bounds (BUG H-6)."""
        return self.strength.sigmoid().clamp(self.shape.lowest, self.shape.highest)

    @property
    def active(self) -> Int[Tensor, " active"]:
        """The dimensions that are gated."""
        return torch.arange(self.n_active, device=self.strength.device)

    def gates(self, residual: Float[Tensor, "*batch d_model"]) -> list[Float[Tensor, "*batch active"]]:
        """Of each expert as in 1 + alpha gate, where ours have theirs too: between -1 and 0."""
        active = residual[..., : self.n_active].to(self.strength.dtype)
        return [expert(active)[0] - 1 for expert in self.experts]

    def forward(
        self, residual: Float[Tensor, "batch pos d_model"], token_ids: Int[Tensor, "batch pos"], layer: int
    ) -> Float[Tensor, "batch pos d_model"]:
        """See Modulator."""
        del token_ids
        row = self.layers.index(layer)
        active = residual[..., : self.n_active].to(self.strength.dtype)
        factor = torch.ones_like(active)
        for place, (expert, alpha) in enumerate(zip(self.experts, self.strengths()[row], strict=True)):
            gate, _, volume = expert(active)
            factor = factor * (1 - alpha + alpha * gate)
            if self.training and torch.is_grad_enabled():
                share = (volume.detach() > 0).to(self.valid.dtype).mean()
                self.valid[row, place] = _DECAY * self.valid[row, place] + (1 - _DECAY) * share
        return torch.cat([(active * factor).to(residual.dtype), residual[..., self.n_active :]], dim=-1)


def notebook_field_health(modulator: NotebookField) -> dict[str, float]:
    """Norms of deformations as the notebook's report has them: by a key that weight and bias share (BUG H-7)."""
    return {
        name.rpartition(".")[0]: float(parameter.detach().norm())
        for name, parameter in modulator.named_parameters()
        if ".deform." in name
    }
