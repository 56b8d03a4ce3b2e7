"""Health of a residual modulator: its vectors, targets and strengths, of the tokens that it knows (spec G6)."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch

from src.modulators.residual import ResidualModulator
from src.modulators.row_health import RowHealth

_TOKENS_AT_ONCE = 4096


@dataclass(frozen=True)
class ResidualHealth:
    """Vectors (rows of G) and targets (P g + b) of known tokens alone, all of them.

    Unknown rows never take part in a pass: with them, any table looks spread out (spec G6). alphas: by layer.
    """

    n_known: int
    d_vocab: int
    vectors: RowHealth
    targets: RowHealth
    alphas: Mapping[int, float]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self) | {"alphas": {str(layer): alpha for layer, alpha in self.alphas.items()}}


@torch.no_grad()
def residual_health(modulator: ResidualModulator) -> ResidualHealth:
    """Measure it as it is; no pass of the model is needed."""
    tokens = modulator.known.nonzero()[:, 0].split(_TOKENS_AT_ONCE)
    d_model, width = modulator.projection.shape
    alphas = modulator.strengths()[:, 0].tolist()
    return ResidualHealth(
        int(modulator.known.sum()),
        len(modulator.known),
        RowHealth.of((modulator.table[some] for some in tokens), width),
        RowHealth.of((modulator.target(some) for some in tokens), d_model),
        dict(zip(modulator.layers, alphas, strict=True)),
    )
