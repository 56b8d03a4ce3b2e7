"""The geometric field modulator: experts that place simplices by the residual stream, and gate it by their shape."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal, Self

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from src.errors import StrataError
from src.modulators.modulator import Modulator, Role
from src.modulators.simplex_geometry import log_square_volume, regular_simplex, regular_square_volume, square_edges


@dataclass(frozen=True)
class FieldShape:
    """Of a field modulator (spec H1).

    dimensions: k of each expert's simplices. width: of the space in which they lie. alpha: at the start. lowest,
    highest: what alpha can be. null_share: of the dimensions of the residual stream that are never touched; null_place:
    the last ones, or drawn with the seed. deformation: how far a unit of the experts' output moves a vertex.
    """

    dimensions: tuple[int, ...] = (1, 2, 4)
    width: int = 8
    alpha: float = 0.01
    lowest: float = 0.001
    highest: float = 0.35
    null_share: float = 0.25
    null_place: Literal["tail", "random"] = "tail"
    deformation: float = 0.05


class SimplexExpert(nn.Module):
    """Reads active dimensions as the deformation of a regular simplex, and gives a gate for each of them.

    The features are log d^2 of all edges and log V^2 relative to the template's: they differ for k = 1 too, where
    V^2 = d^2 (BUG H-3). gate = tanh(linear(features)), 0 at the start, so that nothing is changed then (BUG H-4).
    """

    def __init__(self, k: int, n_active: int, width: int, deformation: float) -> None:
        super().__init__()
        template = regular_simplex(k, width)
        self.k = k
        self.deformation = deformation
        self.deform = nn.Linear(n_active, template.numel())
        n_features = k * (k + 1) // 2 + (k > 1)
        self.gate = nn.Linear(n_features, n_active)
        nn.init.zeros_(self.gate.weight)
        nn.init.zeros_(self.gate.bias)
        self.template: Tensor
        self.register_buffer("template", template.float())

    def vertices(self, active: Float[Tensor, "*batch active"]) -> Float[Tensor, "*batch vertex width"]:
        """The template, moved."""
        moved = self.deform(active).unflatten(-1, self.template.shape)
        return self.template + self.deformation * moved

    def features(self, vertices: Float[Tensor, "*batch vertex width"]) -> Float[Tensor, "*batch feature"]:
        """Logarithms of squared edges, and for k > 1 of the squared volume over the template's."""
        smallest = torch.finfo(vertices.dtype).tiny
        edges = square_edges(vertices).clamp_min(smallest).log()
        if self.k == 1:
            return edges
        volume = log_square_volume(vertices) - math.log(regular_square_volume(self.k))
        return torch.cat([edges, volume.clamp_min(math.log(smallest))[..., None]], dim=-1)

    def forward(self, active: Float[Tensor, "*batch active"]) -> tuple[Tensor, Float[Tensor, "*batch vertex width"]]:
        """The gate of each active dimension in (-1, 1), and the vertices."""
        vertices = self.vertices(active)
        return self.gate(self.features(vertices)).tanh(), vertices


class FieldModulator(Modulator):
    """x' = x * prod over experts of (1 + alpha gate) on the active dimensions; the others are left as they are.

    Raises:
        StrataError: no active dimension, or a strength outside of its bounds.
    """

    kind: ClassVar[str] = "field"

    def __init__(self, d_model: int, layers: Sequence[int], shape: FieldShape, seed: int) -> None:
        super().__init__()
        self.d_model, self.seed = d_model, seed
        n_active = d_model - round(d_model * shape.null_share)
        if n_active < 1:
            raise StrataError(f"null_share={shape.null_share} leaves none of {d_model} dimensions")
        if not shape.lowest < shape.alpha < shape.highest:
            raise StrataError(f"alpha={shape.alpha} lies outside of ({shape.lowest}, {shape.highest})")
        self.shape = shape
        self.layers = tuple(layers)
        if shape.null_place == "tail":
            active = torch.arange(n_active)
        else:
            draws = torch.Generator().manual_seed(seed)
            active = torch.randperm(d_model, generator=draws)[:n_active].sort().values
        self.active: Tensor
        self.register_buffer("active", active)
        self.experts = nn.ModuleList(
            SimplexExpert(k, n_active, shape.width, shape.deformation) for k in shape.dimensions
        )
        share = (shape.alpha - shape.lowest) / (shape.highest - shape.lowest)
        start = math.log(share / (1 - share))
        self.strength = nn.Parameter(torch.full((len(self.layers), len(shape.dimensions)), start))

    def settings(self) -> dict[str, Any]:
        """See Modulator."""
        return {"d_model": self.d_model, "layers": list(self.layers), "shape": asdict(self.shape), "seed": self.seed}

    @classmethod
    def build(cls, settings: dict[str, Any]) -> Self:
        """See Modulator."""
        shape = settings["shape"]
        shape = FieldShape(**(shape | {"dimensions": tuple(shape["dimensions"])}))
        return cls(settings["d_model"], settings["layers"], shape, settings["seed"])

    def role(self, parameter: str) -> Role:
        """See Modulator."""
        return "strength" if parameter == "strength" else "geometry" if ".deform." in parameter else "weights"

    def strengths(self) -> Float[Tensor, "layer expert"]:
        """Lowest + (highest - lowest) sigmoid(strength): its gradient is never zero (BUG H-6)."""
        return self.shape.lowest + (self.shape.highest - self.shape.lowest) * self.strength.sigmoid()

    def forward(
        self, residual: Float[Tensor, "batch pos d_model"], token_ids: Int[Tensor, "batch pos"], layer: int
    ) -> Float[Tensor, "batch pos d_model"]:
        """See Modulator."""
        del token_ids
        active = residual.index_select(-1, self.active).to(self.strength.dtype)
        factor = self.factor(active, layer)
        return residual.index_copy(-1, self.active, (active * factor).to(residual.dtype))

    def gates(self, active: Float[Tensor, "*batch active"]) -> Float[Tensor, "*batch expert active"]:
        """Each expert's gate of each active dimension, in (-1, 1)."""
        return torch.stack([expert(active)[0] for expert in self.experts], dim=-2)

    def factor(self, active: Float[Tensor, "*batch active"], layer: int) -> Float[Tensor, "*batch active"]:
        """What active dimensions are multiplied by before a layer: prod over experts of (1 + alpha gate)."""
        alphas = self.strengths()[self.layers.index(layer)]
        factor = torch.ones_like(active)
        for expert, alpha in zip(self.experts, alphas, strict=True):
            factor = factor * (1 + alpha * expert(active)[0])
        return factor
