"""What null models and the band formula need to know of a whole cloud."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from src.geometry.participation import unbiased_participation_ratio

_BLOCK_ROWS = 8192


@dataclass(frozen=True, eq=False)
class CloudMoments:
    """Of all finite points, in float64.

    covariance: with n - 1. norms: of the centred points. n_non_finite: points that were left out.
    """

    n_points: int
    n_non_finite: int
    mean: Float[Tensor, " d"]
    covariance: Float[Tensor, "d d"]
    norms: Float[Tensor, " point"]

    @property
    def entry_std(self) -> float:
        """Standard deviation of all entries of the matrix about their one mean (population)."""
        second = (self.n_points - 1) / self.n_points * self.covariance.diagonal() + self.mean.square()
        return math.sqrt(max(0.0, float(second.mean() - self.mean.mean().square())))

    @property
    def dimension_std(self) -> Float[Tensor, " d"]:
        """Standard deviation of each dimension (population)."""
        return ((self.n_points - 1) / self.n_points * self.covariance.diagonal()).clamp(min=0).sqrt()

    @property
    def participation_ratio(self) -> float:
        """tr(C)^2 / |C|_F^2 with the bias of n points removed; NaN where too few points leave nothing to tell."""
        trace, square = float(self.covariance.trace()), float(self.covariance.square().sum())
        return unbiased_participation_ratio(trace, square, self.n_points)

    @property
    def log_norm_std(self) -> float:
        """Standard deviation of the logarithms of the centred norms, points at the mean itself left out."""
        logs = self.norms[self.norms > 0].log()
        return float(logs.std(correction=0)) if len(logs) else math.nan


def cloud_moments(points: Float[Tensor, "point d"], device: torch.device | str = "cpu") -> CloudMoments:
    """Mean, covariance and centred norms of rows in any dtype, in two passes, block by block in float64 on a device."""
    finite = finite_rows(points)
    n_points = int(finite.sum())
    total = torch.zeros(points.shape[1], dtype=torch.float64, device=device)
    for rows in _blocks(points, finite, device):
        total += rows.sum(dim=0)
    mean = total / max(n_points, 1)
    scatter = torch.zeros(len(mean), len(mean), dtype=torch.float64, device=device)
    norms = []
    for rows in _blocks(points, finite, device):
        rows -= mean
        scatter.addmm_(rows.T, rows)
        norms.append(rows.norm(dim=1))
    covariance = scatter / max(n_points - 1, 1)
    return CloudMoments(n_points, len(points) - n_points, mean, covariance, torch.cat([*norms, total[:0]]))


def finite_rows(points: Float[Tensor, "point d"]) -> Bool[Tensor, " point"]:
    """Which rows hold finite numbers only."""
    return torch.cat([block.isfinite().all(dim=1) for block in points.split(_BLOCK_ROWS)])


def _blocks(points: Tensor, finite: Tensor, device: torch.device | str) -> Iterator[Float[Tensor, "row d"]]:
    for block, keep in zip(points.split(_BLOCK_ROWS), finite.split(_BLOCK_ROWS), strict=True):
        yield block[keep].to(device=device, dtype=torch.float64)
