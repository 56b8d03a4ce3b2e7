"""Tables of learned absolute positions: are positions that are near in the text near in space? (spec A)."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from src.activations.products import arithmetic_device
from src.geometry.directions import unit_rows
from src.geometry.embedding.norms import NormSummary, summarise_norms
from src.geometry.participation import participation_ratio

# each draw costs as much as the statistic
DRAWS = 199


@dataclass(frozen=True, eq=False)
class PositionTable:
    """cosine_by_offset: mean cosine of positions i and i + k, for k = 0, 1, ...

    pearson: of |i - j| and the cosine, over all pairs. p: one-sided, from `n_draws` shuffled orders of the positions.
    centred_*: of rows less their mean.
    """

    n_positions: int
    norms: NormSummary
    norm_by_position: Float64[np.ndarray, "position"]
    participation: float
    cosine_by_offset: Float64[np.ndarray, "offset"]
    centred_cosine_by_offset: Float64[np.ndarray, "offset"]
    pearson: float
    p: float
    n_draws: int


def describe_positions(
    table: Float[Tensor, "position d_model"], device: torch.device, rng: np.random.Generator, n_draws: int = DRAWS
) -> PositionTable:
    """Of at least three positions. Sums over diagonals come from autocorrelations (FFT): no position x position."""
    rows = table.to(arithmetic_device(device), torch.float64)
    n = len(rows)
    centred = rows - rows.mean(0)
    unit, centred_unit = unit_rows(rows), unit_rows(centred)
    covariance = centred.T @ centred / n
    counts = n - np.arange(n)
    sums = _diagonal_sums(unit)
    second = float((unit.T @ unit).square().sum()) - n  # of cosines, over both halves
    pearson = _pearson(sums, second)
    null = [_pearson(_diagonal_sums(unit[torch.from_numpy(rng.permutation(n))]), second) for _ in range(n_draws)]
    as_low = sum(value <= pearson for value in null)
    return PositionTable(
        n_positions=n,
        norms=summarise_norms(rows.norm(dim=1).cpu()),
        norm_by_position=rows.norm(dim=1).cpu().numpy(),
        participation=participation_ratio(float(covariance.trace()), float(covariance.square().sum())),
        cosine_by_offset=sums / counts,
        centred_cosine_by_offset=_diagonal_sums(centred_unit) / counts,
        pearson=pearson,
        p=(1 + as_low) / (1 + n_draws) if math.isfinite(pearson) else math.nan,
        n_draws=n_draws,
    )


def _diagonal_sums(unit: Float64[Tensor, "position d_model"]) -> Float64[np.ndarray, "offset"]:
    """Sum over i of u_i u_{i+k}, for every k."""
    spectra = torch.fft.rfft(unit, n=2 * len(unit), dim=0)
    power = (spectra.real.square() + spectra.imag.square()).sum(1)
    return torch.fft.irfft(power, n=2 * len(unit))[: len(unit)].cpu().numpy()


def _pearson(sums: Float64[np.ndarray, "offset"], second: float) -> float:
    """Of offset and cosine over all pairs i < j. second: sum of squared cosines over ordered pairs."""
    n = len(sums)
    offsets, counts, pairs = np.arange(n), n - np.arange(n), n * (n - 1) / 2
    counts[0] = 0
    mean_offset, mean = float(offsets @ counts) / pairs, float(sums[1:].sum()) / pairs
    of_offset = float(np.square(offsets) @ counts) / pairs - mean_offset**2
    of_cosine = second / 2 / pairs - mean**2
    covariance = float(offsets[1:] @ sums[1:]) / pairs - mean_offset * mean
    return covariance / math.sqrt(of_offset * of_cosine) if of_offset > 0 and of_cosine > 1e-15 else math.nan
