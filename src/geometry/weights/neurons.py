"""MLP neurons by the norms of their weights. Weights alone show which neurons can't act, not which never do."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from src.geometry.weights.entries import gaussian_dispersion

# of the median (the notebook: of the mean)
DEAD, WEAK = 0.01, 0.1


@dataclass(frozen=True, eq=False)
class Neurons:
    """Norms of a layer's neurons: rows of up and gate, columns of down. importance: their product."""

    up: Float[np.ndarray, "neuron"]
    down: Float[np.ndarray, "neuron"]
    gate: Float[np.ndarray, "neuron"] | None

    @property
    def factors(self) -> list[Float[np.ndarray, "neuron"]]:
        """up, down, and gate if there is one."""
        return [self.up, self.down, *([] if self.gate is None else [self.gate])]

    @property
    def importance(self) -> Float[np.ndarray, "neuron"]:
        """|up row| |down column| (|gate row|)."""
        return np.prod(self.factors, axis=0)

    @property
    def relative(self) -> Float[np.ndarray, "neuron"]:
        """Importance over its median."""
        return _relative(self.importance)

    @property
    def weakest_factor(self) -> Float[np.ndarray, "neuron"]:
        """The least of the factors, each over its median: large norms elsewhere do not hide a factor of zero."""
        return np.min([_relative(factor) for factor in self.factors], axis=0)

    def numbers(self) -> dict[str, float]:
        """Counts and norms by name."""
        importance = self.importance
        mean = importance.mean()
        return {
            "n_neurons": len(importance),
            "dead": int((self.relative < DEAD).sum()),
            "weak": int((self.relative < WEAK).sum()),
            "dead_in_a_factor": int((self.weakest_factor < DEAD).sum()),
            "weak_in_a_factor": int((self.weakest_factor < WEAK).sum()),
            "dead_of_mean": int((importance < DEAD * mean).sum()),
            "weak_of_mean": int((importance < WEAK * mean).sum()),
            "dispersion": float(importance.std() / mean) if mean > 0 else float("nan"),
            "largest_of_median": float(self.relative.max()),
        }


def _relative(values: Float[np.ndarray, "neuron"]) -> Float[np.ndarray, "neuron"]:
    """Values over their median; over their mean where more than half are zero."""
    unit = float(np.median(values)) or float(values.mean())
    return values / unit if unit > 0 else np.zeros_like(values)


def neurons(
    up: Float[Tensor, "neuron d_model"],
    down: Float[Tensor, "d_model neuron"],
    gate: Float[Tensor, "neuron d_model"] | None,
) -> Neurons:
    """The norms of a layer's (or an expert's) neurons."""
    return Neurons(_norms(up, 1), _norms(down, 0), None if gate is None else _norms(gate, 1))


def _norms(matrix: Float[Tensor, "row column"], axis: int) -> Float[np.ndarray, "neuron"]:
    return torch.linalg.vector_norm(matrix, dim=axis, dtype=torch.float64).cpu().numpy()


def gaussian_importance_dispersion(d_model: int, gated: bool) -> float:
    """Standard deviation over mean of a product of independent norms of d_model Gaussian entries."""
    factors = 3 if gated else 2
    return float(np.sqrt((1 + gaussian_dispersion(d_model) ** 2) ** factors - 1))
