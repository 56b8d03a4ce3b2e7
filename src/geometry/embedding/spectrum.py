"""Eigenvalues of a covariance, and how many dimensions share the variance (spec A4)."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from src.geometry.participation import participation_ratio, unbiased_participation_ratio

# percent of the variance whose dimensions are counted
SHARES = (80, 90, 95, 99)


@dataclass(frozen=True, eq=False)
class Spectrum:
    """eigenvalues: descending, with divisor n. participation: (sum of eigenvalues)^2 / sum of their squares.

    as_sample: the participation ratio with the bias of n rows removed, as if they were a sample of a Gaussian
    population; the rows of a whole vocabulary are none. dimensions: by percent of the variance.
    """

    eigenvalues: Float64[np.ndarray, "d_model"]
    participation: float
    as_sample: float
    dimensions: dict[int, int]

    @property
    def total(self) -> float:
        """The total variance."""
        return float(self.eigenvalues.sum())

    @property
    def cumulative(self) -> Float64[np.ndarray, "d_model"]:
        """Share of the variance in the first 1, 2, ... dimensions."""
        return np.cumsum(self.eigenvalues) / self.total if self.total > 0 else np.full(len(self.eigenvalues), np.nan)


def spectrum(covariance: Float64[Tensor, "d_model d_model"], n_rows: int) -> Spectrum:
    """Of a covariance with divisor n_rows."""
    eigenvalues = torch.linalg.eigvalsh(covariance).flip(0).clamp_min(0).cpu().numpy()
    trace, square = float(covariance.trace()), float(covariance.square().sum())
    unbiased = n_rows / (n_rows - 1) if n_rows > 1 else 1.0
    return Spectrum(
        eigenvalues=eigenvalues,
        participation=participation_ratio(trace, square),
        as_sample=unbiased_participation_ratio(unbiased * trace, unbiased**2 * square, n_rows),
        dimensions={percent: dimensions_for(eigenvalues, percent / 100) for percent in SHARES},
    )


def dimensions_for(eigenvalues: Float64[np.ndarray, "d_model"], share: float) -> int:
    """The first number of dimensions whose cumulative share reaches `share`; all of them where rounding never does."""
    cumulative = np.cumsum(eigenvalues)
    reached = np.flatnonzero(cumulative >= share * cumulative[-1])
    return int(reached[0]) + 1 if len(reached) and cumulative[-1] > 0 else len(eigenvalues)
