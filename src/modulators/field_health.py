"""What became of a field modulator: its parts, and the simplices that it places on real states (spec H7, H8)."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from src.activations.collect import batches_of_like_length
from src.models import LanguageModel
from src.modulators.field import FieldModulator
from src.modulators.injection import changed_inputs
from src.modulators.simplex_geometry import regular_square_volume
from src.modulators.tracked_health import STATISTICS, edge_ratios
from src.modulators.training.examples import Example, changed_ids, example_losses

QUANTILES = (0.0, 0.05, 0.5, 0.95, 1.0)
_POSITIONS = 4096
_BATCH = 16
# gates that are kept of a layer and expert
_GATES = 2**17


@dataclass(frozen=True)
class ExpertHealth:
    """Of one expert before one layer, over positions of text.

    alpha: its strength. log_volume: QUANTILES of log V^2 relative to the template's (for k = 1: of log d^2).
    edge_ratio: of the longest over the shortest edge; 1 for the template. gate: of the gates of all active dimensions.
    """

    layer: int
    k: int
    alpha: float
    log_volume: list[float]
    edge_ratio: list[float]
    gate: list[float]


@dataclass(frozen=True)
class PartHealth:
    """Of one expert's parameters.

    square_volume: of the template with edges of 1. Norms of weights and of biases apart (BUG H-7: under one key, the
    bias's was all that was told).
    """

    k: int
    square_volume: float
    deformation_weight: float
    deformation_bias: float
    gate_weight: float
    gate_bias: float


@dataclass(frozen=True)
class FieldHealth:
    """Of a field modulator.

    experts: by layer and expert. parts: by expert. n_positions: of text that were looked at. n_parameters: trained
    ones. tracked: running means of training by statistic, [layer][expert] (TrackedHealth); None before any step.
    """

    experts: list[ExpertHealth]
    parts: list[PartHealth]
    n_positions: int
    n_parameters: int
    n_active: int
    n_null: int
    tracked: dict[str, list[list[float]]] | None

    def to_json(self) -> dict[str, Any]:
        """Plain values, with quantiles named."""
        return asdict(self) | {"quantiles": list(QUANTILES)}


@torch.no_grad()
def field_health(model: LanguageModel, modulator: FieldModulator, examples: Sequence[Example]) -> FieldHealth:
    """Measure it on examples, while it is at work; padding takes no part.

    So many examples as hold some thousand positions, evenly drawn from all, and no more: nothing is fitted here.

    Raises:
        StrataError: a pass that fails.
    """
    chosen = _some(examples, model)
    lengths = np.array([len(changed_ids(model, example)) for example in chosen])
    stride = max(1, math.ceil(int(lengths.sum()) * len(modulator.active) / _GATES))
    found: dict[int, list[list[tuple[Tensor, Tensor, Tensor]]]] = {layer: [] for layer in modulator.layers}
    for rows in batches_of_like_length(lengths, _BATCH):
        of_batch = torch.from_numpy(lengths[rows]).to(modulator.strength.device)

        def look(residual: Tensor, token_ids: Tensor, layer: int, of_batch: Tensor = of_batch) -> Tensor:
            is_text = (torch.arange(residual.shape[1], device=of_batch.device) < of_batch[:, None]).flatten()
            features = modulator.features(modulator.read(residual, token_ids)[is_text])
            logits = modulator.gate_logits(features)
            found[layer].append([
                (seen[-1].cpu(), edge_ratios(seen, k).exp().cpu(), gate.flatten()[::stride].tanh().cpu())
                for seen, gate, k in zip(features, logits, modulator.shape.dimensions, strict=True)
            ])  # fmt: skip
            return modulator(residual, token_ids, layer)

        with changed_inputs(model, modulator.layers, look):
            example_losses(model, [chosen[row] for row in rows])
    alphas = modulator.strengths().tolist()
    experts = [
        ExpertHealth(layer, k, alphas[row][place], *(_quantiles(torch.cat(part)) for part in zip(*parts, strict=True)))
        for row, layer in enumerate(modulator.layers)
        for place, (k, parts) in enumerate(
            zip(modulator.shape.dimensions, zip(*found[layer], strict=True), strict=True)
        )
    ]
    n_active = len(modulator.active)
    return FieldHealth(
        experts,
        field_parts(modulator),
        int(lengths.sum()),
        modulator.n_trained,
        n_active,
        modulator.d_model - n_active,
        _tracked(modulator),
    )


@torch.no_grad()
def field_parts(modulator: FieldModulator) -> list[PartHealth]:
    """Of each expert; no pass of the model is needed."""
    dimensions, width = modulator.shape.dimensions, modulator.shape.width
    rows = [(k + 1) * width for k in dimensions]
    weights, biases = modulator.deform.weight.split(rows), modulator.deform.bias.split(rows)
    parts = []
    for k, weight, bias, gate in zip(dimensions, weights, biases, modulator.gates, strict=True):
        assert isinstance(gate, nn.Linear)
        norms = (float(part.norm()) for part in (weight, bias, gate.weight, gate.bias))
        parts.append(PartHealth(k, regular_square_volume(k), *norms))
    return parts


def _some(examples: Sequence[Example], model: LanguageModel) -> list[Example]:
    """Evenly spread over all examples, with about _POSITIONS positions in all."""
    total = sum(len(changed_ids(model, example)) for example in examples)
    step = max(1, math.ceil(total / _POSITIONS))
    return list(examples[::step])


def _quantiles(values: Tensor) -> list[float]:
    """Linear between order statistics, as torch.quantile's, which takes no more than 2^24 numbers."""
    return np.quantile(values.double().numpy(), QUANTILES).tolist()


def _tracked(modulator: FieldModulator) -> dict[str, list[list[float]]] | None:
    values = modulator.health.values()
    if not bool(values.isfinite().all()):
        return None
    return {name: values[..., place].tolist() for place, name in enumerate(STATISTICS)}
