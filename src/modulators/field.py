"""The geometric field modulator: experts that place simplices by the residual stream, and gate it by their shape."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal, Self

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from src.errors import StrataError
from src.modulators.gating import gated
from src.modulators.modulator import Modulator, Role
from src.modulators.simplex_features import first_edges, n_features, simplex_features
from src.modulators.simplex_geometry import regular_simplex
from src.modulators.tracked_health import STATISTICS, TrackedHealth, looked_at


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

    @classmethod
    def from_settings(cls, settings: dict[str, Any]) -> Self:
        """From plain values (JSON)."""
        known: dict[str, Any] = settings | {"dimensions": tuple(settings["dimensions"])}
        return cls(**known)


def bounded(logits: Float[Tensor, "*part"], lowest: float, highest: float) -> Float[Tensor, "*part"]:
    """Lowest + (highest - lowest) sigmoid(logit): the gradient is never zero (BUG H-6).

    The upper half is written from the other end: 1 - sigmoid is 0 in float32 from a logit of 17 on.
    """
    width = highest - lowest
    return torch.where(logits > 0, highest - width * (-logits).sigmoid(), lowest + width * logits.sigmoid())


def unbounded(alphas: Float[Tensor, "*part"], lowest: float, highest: float) -> Float[Tensor, "*part"]:
    """Logits that `bounded` makes strengths of, to float32's precision at the bounds themselves too."""
    share = (alphas.double() - lowest) / (highest - lowest)
    return share.clamp(1e-10, 1 - 1e-10).logit().to(alphas.dtype)


class ShapedModulator(Modulator):
    """A modulator that follows from the sizes of a model, its layers, a FieldShape and a seed."""

    def __init__(self, d_model: int, layers: Sequence[int], shape: FieldShape, seed: int) -> None:
        super().__init__()
        self.d_model, self.layers, self.shape, self.seed = d_model, tuple(layers), shape, seed

    def settings(self) -> dict[str, Any]:
        """See Modulator."""
        return {"d_model": self.d_model, "layers": list(self.layers), "shape": asdict(self.shape), "seed": self.seed}

    @property
    def part_names(self) -> tuple[str, ...]:
        """The dimension of each expert's simplices."""
        dimensions = self.shape.dimensions
        several = {k for k in dimensions if dimensions.count(k) > 1}
        return tuple(f"k = {k} ({part})" if k in several else f"k = {k}" for part, k in enumerate(dimensions))

    @classmethod
    def build(cls, settings: dict[str, Any]) -> Self:
        """See Modulator."""
        shape = FieldShape.from_settings(settings["shape"])
        return cls(settings["d_model"], settings["layers"], shape, settings["seed"])


class FieldModulator(ShapedModulator):
    """x' = x * prod over experts of (1 + alpha gate) on the active dimensions; the others are left as they are.

    Each expert reads the active dimensions as the deformation of a regular simplex (spec H3, H4), sees logarithms of
    its squared edges and volume (simplex_features.py), and gates each active dimension: gate = tanh(linear(features)),
    0 at the start, so that nothing is changed then (BUG H-4).

    A control overrides `read` (what places simplices), `features` or `gate_logits`.

    Args:
        d_model: of the residual stream.
        layers: before whose blocks it stands.
        shape: what it is made of.
        seed: draws the deformations and, with null_place=random, the active dimensions.
        directions: experts read combinations of these directions of the residual stream alone, drawn with the seed and
            as long as random ones; None = random ones.

    Raises:
        StrataError: no active dimension, a strength outside of its bounds, directions that lie in the null space.
    """

    kind: ClassVar[str] = "field"

    def __init__(
        self,
        d_model: int,
        layers: Sequence[int],
        shape: FieldShape,
        seed: int,
        directions: Float[Tensor, "direction d_model"] | None = None,
    ) -> None:
        super().__init__(d_model, layers, shape, seed)
        n_active = d_model - round(d_model * shape.null_share)
        if n_active < 1:
            raise StrataError(f"null_share={shape.null_share} leaves none of {d_model} dimensions")
        if not shape.lowest < shape.alpha < shape.highest:
            raise StrataError(f"alpha={shape.alpha} lies outside of ({shape.lowest}, {shape.highest})")
        draws = torch.Generator().manual_seed(seed)
        if shape.null_place == "tail":
            active = torch.arange(n_active)
        else:
            active = torch.randperm(d_model, generator=draws)[:n_active].sort().values
        self.active: Tensor
        self.register_buffer("active", active)
        templates = [regular_simplex(k, shape.width) for k in shape.dimensions]
        incidence = torch.block_diag(*(first_edges(k) for k in shape.dimensions))
        self.incidence: Tensor
        self.register_buffer("incidence", incidence, persistent=False)
        self.template: Tensor
        self.register_buffer("template", torch.cat(templates).float(), persistent=False)
        # all experts' vertices in one map: dimension of the space by dimension, vertex by vertex
        self.deform = nn.Linear(n_active, self.template.numel())
        self.gates = nn.ModuleList(nn.Linear(n_features(k), n_active) for k in shape.dimensions)
        self._begin(directions, draws)
        share = (shape.alpha - shape.lowest) / (shape.highest - shape.lowest)
        start = math.log(share / (1 - share))
        self.strength = nn.Parameter(torch.full((len(self.layers), len(shape.dimensions)), start))
        self.health = TrackedHealth(len(self.layers), shape.dimensions)
        self._looked_at: Int[Tensor, " place"] | None = None

    @torch.no_grad()
    def _begin(self, directions: Float[Tensor, "direction d_model"] | None, draws: torch.Generator) -> None:
        for gate in self._gates():
            nn.init.zeros_(gate.weight)
            nn.init.zeros_(gate.bias)
        n_rows, n_active = self.deform.weight.shape
        bound = n_active**-0.5
        self.deform.weight.uniform_(-bound, bound, generator=draws)
        self.deform.bias.uniform_(-bound, bound, generator=draws)
        if directions is None:
            return
        readable = directions.detach().to("cpu", torch.float64)[:, self.active]
        mixed = torch.randn(n_rows, len(readable), generator=draws).double() @ readable
        lengths = mixed.norm(dim=1, keepdim=True)
        if not bool((lengths > 0).all() and lengths.isfinite().all()):
            raise StrataError(
                "the directions that experts are to read are not finite, or lie in the dimensions that are never "
                "touched: choose a smaller modulator.field.null_share, or modulator.init=random"
            )
        lengths_then = self.deform.weight.norm(dim=1, keepdim=True)
        self.deform.weight.copy_(mixed / lengths * lengths_then)

    def role(self, parameter: str) -> Role:
        """See Modulator."""
        return "strength" if parameter == "strength" else "geometry" if parameter.startswith("deform.") else "weights"

    def strengths(self) -> Float[Tensor, "layer expert"]:
        """See `bounded`."""
        return bounded(self.strength, self.shape.lowest, self.shape.highest)

    def read(
        self, residual: Float[Tensor, "batch pos d_model"], token_ids: Int[Tensor, "batch pos"]
    ) -> Float[Tensor, "token active"]:
        """What places the simplices that gate each position: its own active dimensions, in the parameters' dtype."""
        del token_ids
        return residual[..., self.place].flatten(0, 1).to(self.strength.dtype)

    @property
    def place(self) -> Int[Tensor, " active"] | slice:
        """Index of the active dimensions."""
        return slice(0, len(self.active)) if self.shape.null_place == "tail" else self.active

    def edges(self, read: Float[Tensor, "token active"]) -> list[Float[Tensor, "k width token"]]:
        """Edge vectors from vertex 0 of each expert's simplices to the others.

        They are differences of the rows that place vertices: edges come from one product, without the vertices.
        """
        weight, bias = self.deform.weight, self.deform.bias
        width, scale = self.shape.width, self.shape.deformation
        weight = self.incidence @ (scale * weight).view(-1, width * len(self.active))
        bias = self.incidence @ (self.template + scale * bias.view(-1, width))
        edges = torch.addmm(bias.view(-1, 1), weight.view(-1, len(self.active)), read.T)
        return list(edges.view(-1, width, len(read)).split(self.shape.dimensions))

    def features(self, read: Float[Tensor, "token active"]) -> list[Float[Tensor, "feature token"]]:
        """What each expert sees of its simplices."""
        return [simplex_features(edges) for edges in self.edges(read)]

    def _gates(self) -> list[nn.Linear]:
        return [gate for gate in self.gates if isinstance(gate, nn.Linear)]

    def gate_logits(self, features: Sequence[Float[Tensor, "feature token"]]) -> list[Float[Tensor, "token active"]]:
        """Of each expert: its gates are their tanh."""
        # laid out like this, the gradient of the weights is a product of contiguous matrices
        return [
            torch.addmm(gate.bias, seen.T, gate.weight.T.contiguous())
            for gate, seen in zip(self._gates(), features, strict=True)
        ]

    @contextmanager
    def tracked(self, lengths: Sequence[int]) -> Iterator[None]:
        """See Modulator: in TrackedHealth. Blocks that a backward pass after it computes again count once."""
        self._looked_at = looked_at(lengths).to(self.strength.device)
        try:
            yield
        finally:
            self._looked_at = None

    def health_numbers(self) -> dict[str, float]:
        """Running means of its simplices (TrackedHealth), over all layers; an edge has no other to be compared with."""
        means = self.health.values().mean(0)
        return {
            f"{statistic}, {part}": value
            for k, part, row in zip(self.shape.dimensions, self.part_names, means.tolist(), strict=True)
            for statistic, value in zip(STATISTICS.values(), row, strict=True)
            if k > 1 or "ratio" not in statistic
        }

    def forward(
        self, residual: Float[Tensor, "batch pos d_model"], token_ids: Int[Tensor, "batch pos"], layer: int
    ) -> Float[Tensor, "batch pos d_model"]:
        """See Modulator."""
        row = self.layers.index(layer)
        features = self.features(self.read(residual, token_ids))
        if self._looked_at is not None:
            self.health.update(row, features, self._looked_at)
        logits = [logit.view(*residual.shape[:-1], -1) for logit in self.gate_logits(features)]
        return gated(residual, self.place, self.strengths()[row], logits)
