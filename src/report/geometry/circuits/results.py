"""What was measured of the circuits of one model, on its way into words, tables and figures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from src.geometry.circuits.profile import COPYING, TOKEN_COPYING, LayerCircuits, LayerMean, over_layers

TITLES = {
    "positive_mass": "positive mass of QK",
    "symmetry": "symmetry of QK",
    "stable_rank": "stable rank of QK",
    "energy_rank": "90 % energy rank of QK",
    COPYING: "copying of OV",
    TOKEN_COPYING: "copying of OV, tokens to logits",
}
# statistics whose sign may go either way from head to head
SIGNED = ("positive_mass", "symmetry", COPYING)


@dataclass(frozen=True)
class CircuitResults:
    """Of one model. unread: layers without circuits, and why. notebook: its numbers by layer, or nothing."""

    layers: Sequence[LayerCircuits]
    level: float
    draws: int
    seed: int
    unread: Sequence[str]
    notebook: Sequence[Mapping[str, Any]]

    @property
    def several_stacks(self) -> bool:
        """Whether layers are told apart by more than their number."""
        return len({(each.stack, each.attention) for each in self.layers}) > 1

    def place(self, layer: LayerCircuits) -> str:
        """The layer, for readers."""
        return layer.label if self.several_stacks else str(layer.layer)

    def mean(self, name: str) -> float:
        """Mean of a statistic over all heads for which it is defined."""
        of_layers = [each.statistics[name].values for each in self.layers if name in each.statistics]
        values = [value for of_layer in of_layers for value in of_layer.tolist() if np.isfinite(value)]
        return float(np.mean(values)) if values else float("nan")

    def over_layers(self, name: str, which: Literal["mean", "strength"]) -> LayerMean | None:
        """Its mean (or that of its distance from no alignment) beside dealings to other heads in all layers."""
        return over_layers(self.layers, name, which)
