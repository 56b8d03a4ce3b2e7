"""The entries of a matrix: their scale, and what does not depend on it, beside what Gaussian entries would have."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from src.geometry.weights.blocks import exact_device, row_blocks

# shares of the root mean square (spec E3)
RELATIVE = (0.01, 0.1, 0.5)
# the notebook's thresholds: they measure the scale of a matrix (BUG E-5)
ABSOLUTE = (1e-6, 1e-4, 1e-3, 1e-2, 1e-1)
# of log10 |w|
LOG_RANGE, LOG_BINS = (-8.0, 2.0), 500


@dataclass(frozen=True, eq=False)
class Entries:
    """Entries of one matrix, or of several together.

    below_relative: shares of |w| below RELATIVE times the root mean square. below: shares below ABSOLUTE.
    row_dispersion, column_dispersion: standard deviation of the norms over their mean; NaN of a vector.
    histogram: counts of log10 |w| over LOG_RANGE, without zeros.
    """

    count: int
    rms: float
    mean: float
    excess_kurtosis: float
    hoyer: float
    zeros: float
    below_relative: tuple[float, ...]
    below: tuple[float, ...]
    row_dispersion: float
    column_dispersion: float
    histogram: Int[np.ndarray, "bin"]

    def numbers(self) -> dict[str, float]:
        """All of them by name."""
        relative = {f"below_{t:g}_rms": share for t, share in zip(RELATIVE, self.below_relative, strict=True)}
        absolute = {f"below_{t:g}": share for t, share in zip(ABSOLUTE, self.below, strict=True)}
        return {
            "rms": self.rms,
            "mean": self.mean,
            "excess_kurtosis": self.excess_kurtosis,
            "hoyer": self.hoyer,
            "zeros": self.zeros,
            **relative,
            **absolute,
            "row_dispersion": self.row_dispersion,
            "column_dispersion": self.column_dispersion,
        }


def entries(matrix: Float[Tensor, "row column"], device: torch.device) -> Entries:
    """Count the entries of a matrix, in blocks.

    Hoyer 2004: (sqrt n - |w|_1 / |w|_2) / (sqrt n - 1), 0 for entries of equal size, 1 for a single one.
    """
    where = exact_device(device)
    n = matrix.numel()
    sums = torch.zeros(3, dtype=torch.float64, device=where)  # of w, |w|, w^2
    rows, columns = [], torch.zeros(matrix.shape[1], dtype=torch.float64, device=where)
    for block in row_blocks(matrix, where, torch.float32):
        squares = block.double().square()
        rows.append(squares.sum(1))
        columns += squares.sum(0)
        sums += torch.stack([block.sum(dtype=torch.float64), block.abs().sum(dtype=torch.float64), squares.sum()])
    total, absolute_sum, energy = sums.tolist()
    rms = math.sqrt(energy / n)
    counts = _counts(matrix, where, rms, total / n)
    of_rows, of_columns = torch.cat(rows).sqrt(), columns.sqrt()
    variance = max(energy / n - (total / n) ** 2, 0.0)
    return Entries(
        count=n,
        rms=rms,
        mean=total / n,
        excess_kurtosis=counts.fourth / n / variance**2 * rms**4 - 3 if variance > 0 else math.nan,
        hoyer=(math.sqrt(n) - absolute_sum / math.sqrt(energy)) / (math.sqrt(n) - 1) if energy and n > 1 else math.nan,
        zeros=counts.zeros / n,
        below_relative=tuple(count / n for count in counts.relative),
        below=tuple(count / n for count in counts.absolute),
        row_dispersion=_dispersion(of_rows),
        column_dispersion=_dispersion(of_columns),
        histogram=counts.histogram,
    )


@dataclass
class _Counts:
    fourth: float  # sum of ((w - mean) / rms)^4
    zeros: int
    relative: list[int]
    absolute: list[int]
    histogram: Int[np.ndarray, "bin"]


def _counts(matrix: Tensor, device: torch.device, rms: float, mean: float) -> _Counts:
    limits = torch.tensor([*(t * rms for t in RELATIVE), *ABSOLUTE], dtype=torch.float64).tolist()
    tallies = torch.zeros(len(limits) + 1, dtype=torch.int64, device=device)
    histogram = torch.zeros(LOG_BINS, dtype=torch.float64, device=device)
    fourth = torch.zeros((), dtype=torch.float64, device=device)
    for block in row_blocks(matrix, device, torch.float32):
        sizes = block.abs()
        tallies += torch.stack([(sizes < limit).sum() for limit in limits] + [(sizes == 0).sum()])
        powers = sizes[sizes > 0].log10().clamp(LOG_RANGE[0], LOG_RANGE[1])
        histogram += torch.histc(powers, LOG_BINS, *LOG_RANGE)
        if rms > 0:
            fourth += ((block - mean) / rms).square().square().sum(dtype=torch.float64)
    found = tallies.tolist()
    split = len(RELATIVE)
    counted = histogram.round().long().cpu().numpy()
    return _Counts(float(fourth), found[-1], found[:split], found[split:-1], counted)


def _dispersion(norms: Float[Tensor, "norm"]) -> float:
    mean = float(norms.mean())
    return float(norms.std(correction=0)) / mean if mean > 0 and len(norms) > 1 else math.nan


def gaussian_below(threshold: float) -> float:
    """P(|w| < threshold * rms) = erf(threshold / sqrt 2) for Gaussian entries of mean 0."""
    return math.erf(threshold / math.sqrt(2))


def gaussian_hoyer(n: int) -> float:
    """Hoyer's sparsity of n Gaussian entries: |w|_1 / |w|_2 is sqrt(2 n / pi)."""
    return (math.sqrt(n) - math.sqrt(2 * n / math.pi)) / (math.sqrt(n) - 1) if n > 1 else math.nan


def gaussian_dispersion(n: int) -> float:
    """Standard deviation over mean of the norm of n Gaussian entries (chi with n degrees of freedom)."""
    mean = math.sqrt(2) * math.exp(math.lgamma((n + 1) / 2) - math.lgamma(n / 2))
    return math.sqrt(max(n / mean**2 - 1, 0.0))


def log_histogram_edges() -> Float[np.ndarray, "edge"]:
    """The edges of the bins of log10 |w|."""
    return np.linspace(*LOG_RANGE, LOG_BINS + 1)
