"""Statistics of the volumes of simplices from one pool, with their bootstrap over the points of the pool."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from src.geometry.percentiles import PERCENTILES


@dataclass(frozen=True)
class Estimate:
    """An estimate and the ends of its 95 % interval; NaN where there is none."""

    value: float
    low: float = math.nan
    high: float = math.nan


@dataclass(frozen=True)
class VolumeStatistics:
    """Of the simplices that have a volume (spec B2).

    cv: standard deviation (population) by mean. log_mean: logarithm of the mean volume; volumes themselves leave the
    range of floats at large k. log_std, log_percentiles: standard deviation and percentiles of log V.
    """

    n_simplices: int
    n_valid: int
    cv: float
    log_mean: float
    log_min: float
    log_max: float
    log_std: float
    log_percentiles: dict[int, float]


def volume_statistics(log_volumes: Float[Tensor, " simplex"]) -> VolumeStatistics:
    """Statistics of volumes given by their logarithms; NaN where no simplex has a volume."""
    valid = log_volumes[log_volumes.isfinite()]
    if not len(valid):
        nan = math.nan
        return VolumeStatistics(len(log_volumes), 0, nan, nan, nan, nan, nan, dict.fromkeys(PERCENTILES, nan))
    log_mean = float(valid.logsumexp(dim=0)) - math.log(len(valid))
    relative = (valid - log_mean).exp()
    ranks = np.percentile(valid.cpu().numpy(), PERCENTILES)
    return VolumeStatistics(
        n_simplices=len(log_volumes),
        n_valid=len(valid),
        cv=float((relative - 1).square().mean().sqrt()),
        log_mean=log_mean,
        log_min=float(valid.min()),
        log_max=float(valid.max()),
        log_std=float(valid.std(correction=0)),
        log_percentiles=dict(zip(PERCENTILES, ranks.tolist(), strict=True)),
    )


def row_sums(
    simplices: Int[Tensor, "simplex vertex"], values: Float[Tensor, "simplex value"], n_points: int
) -> Float[np.ndarray, "point value"]:
    """For each point the sums of values over the simplices that it is a vertex of."""
    sums = values.new_zeros(n_points, values.shape[1])
    for vertex in simplices.T:
        sums.index_add_(0, vertex, values)
    return sums.cpu().numpy()


def point_weights(n_points: int, n_resamples: int, draws: np.random.Generator) -> Float[np.ndarray, "resample point"]:
    """How much more often than once each point is in each bootstrap resample."""
    counts = draws.multinomial(n_points, np.full(n_points, 1 / n_points), size=n_resamples)
    return counts - 1.0


def resampled(
    weights: Float[np.ndarray, "resample point"],
    sums: Float[np.ndarray, "point value"],
    total: Float[np.ndarray, " value"],
) -> Float[np.ndarray, "resample value"]:
    """Sums over simplices in bootstrap resamples of the points.

    A simplex has the weight 1 + sum of (n_i - 1) over its vertices, n_i being how often vertex i was drawn: additive
    weights, the first-order part of the product of all n_i (generalised bootstrap of U-statistics: Bose and Chatterjee
    2018, chapter 4). Products would give most of the simplices that were drawn the weight 0.
    """
    return total + weights @ sums


def interval_of(value: float, resamples: Float[np.ndarray, " resample"]) -> Estimate:
    """A value with the percentiles 2.5 and 97.5 of its resamples."""
    finite = resamples[np.isfinite(resamples)]
    if not math.isfinite(value) or len(finite) < 2:
        return Estimate(value)
    low, high = np.percentile(finite, [2.5, 97.5])
    return Estimate(value, float(low), float(high))


@dataclass(frozen=True, eq=False)
class VolumeSums:
    """Sums of 1, u and u^2 over simplices that have a volume, u = V / exp(reference): of each point, and in all."""

    by_point: Float[np.ndarray, "point 3"]
    total: Float[np.ndarray, " 3"]

    def cv(self, weights: Float[np.ndarray, "resample point"]) -> Float[np.ndarray, " resample"]:
        """Coefficient of variation in each resample."""
        count, first, second = resampled(weights, self.by_point, self.total).T
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.sqrt(np.maximum(count * second / first**2 - 1, 0))

    def mean(self, weights: Float[np.ndarray, "resample point"]) -> Float[np.ndarray, " resample"]:
        """Mean of u in each resample."""
        count, first, _ = resampled(weights, self.by_point, self.total).T
        with np.errstate(divide="ignore", invalid="ignore"):
            return first / count


def volume_sums(
    simplices: Int[Tensor, "simplex vertex"], log_volumes: Float[Tensor, " simplex"], n_points: int, reference: float
) -> VolumeSums:
    """The sums that means and coefficients of variation are made of."""
    valid = log_volumes.isfinite()
    relative = (log_volumes[valid].double() - reference).exp()
    powers = torch.stack([torch.ones_like(relative), relative, relative.square()], dim=1)
    return VolumeSums(row_sums(simplices[valid], powers, n_points), powers.sum(dim=0).cpu().numpy())
