"""The volumes of random simplices of one cloud, beside four nulls and the band formula."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from src.geometry.simplices.band import gaussian_cv, predicted_cv
from src.geometry.simplices.drawing import draw_pool, draw_simplices
from src.geometry.simplices.moments import CloudMoments, cloud_moments, finite_rows
from src.geometry.simplices.nulls import MATCHED, NULLS, null_points, principal_spreads
from src.geometry.simplices.statistics import (
    Estimate,
    VolumeStatistics,
    VolumeSums,
    interval_of,
    point_weights,
    volume_statistics,
    volume_sums,
)
from src.geometry.simplices.volumes import VertexPool

Advance = Callable[[int], None]

# the nulls that nothing is concluded from are drawn so many times at most
_PLAIN_DRAWS = 3


@dataclass(frozen=True)
class SimplexSettings:
    """What is drawn.

    k: dimension of the simplices. pool: points that all vertices are taken from. null_draws: clouds of the null with
    matched covariance and norms. resamples: of the pool's points, for intervals. dtype: float64, or float32 (by QR).
    """

    k: int = 4
    n_simplices: int = 100_000
    pool: int = 2048
    null_draws: int = 39
    resamples: int = 1000
    dtype: torch.dtype = torch.float64

    @property
    def n_draws(self) -> dict[str, int]:
        """Clouds of each null."""
        return {name: self.null_draws if name == MATCHED else min(_PLAIN_DRAWS, self.null_draws) for name in NULLS}


@dataclass(frozen=True)
class NullComparison:
    """The data beside one null.

    cv: mean over the drawn clouds, whose own CVs are `draws`. ratio: mean volume of the data by that of the null.
    excess: CV of the data minus that of the null. p: of the matched null (`rank_p`), NaN of the others. The intervals
    are over points of the pool.
    """

    cv: Estimate
    draws: tuple[float, ...]
    ratio: Estimate
    excess: Estimate
    p: float


@dataclass(frozen=True, eq=False)
class SimplexProfile:
    """Volumes of simplices of one cloud.

    cv: with its interval over points of the pool. nulls: by name. predicted_cv: by the band formula from
    effective_dimension and log_norm_std. gaussian_cv: of a Gaussian of that dimension, whose norms spread as its own
    do. n_copies: points of the pool that equal another one. log_volumes: of the data, and of the first cloud of each
    null. norms: of all centred points (of the pool, where it is weighted).
    """

    n_points: int
    n_non_finite: int
    n_pool: int
    n_copies: int
    k: int
    volumes: VolumeStatistics
    cv: Estimate
    effective_dimension: float
    log_norm_std: float
    gaussian_cv: float
    predicted_cv: float
    nulls: Mapping[str, NullComparison]
    log_volumes: Float[Tensor, " simplex"]
    null_log_volumes: Mapping[str, Float[Tensor, " simplex"]]
    norms: Float[Tensor, " point"]

    @property
    def excess_over_formula(self) -> Estimate:
        """CV minus what the band formula gives."""
        return Estimate(*(end - self.predicted_cv for end in (self.cv.value, self.cv.low, self.cv.high)))

    @property
    def matched(self) -> NullComparison:
        """The null of the same covariance and the same norms: what exceeds it is structure."""
        return self.nulls[MATCHED]


def simplex_profile(
    points: Float[Tensor, "point d"],
    settings: SimplexSettings,
    seed: int,
    weights: Float[np.ndarray, " point"] | None = None,
    device: torch.device | str = "cpu",
    advance: Advance = lambda _: None,
) -> SimplexProfile:
    """Measure random k-simplices of a cloud. Rows with non-finite numbers are left out.

    weights: how likely each point gets into the pool, in proportion. advance: is told of each cloud measured.
    Raises ValueError for fewer than k + 1 points.
    """
    draws = np.random.default_rng([seed, 0])
    finite = np.flatnonzero(finite_rows(points).cpu().numpy())
    chosen = draw_pool(len(finite), settings.pool, draws, None if weights is None else weights[finite])
    drawn = draw_simplices(len(chosen), settings.k, settings.n_simplices, draws)
    simplices = torch.from_numpy(drawn).to(device)
    rows = points[torch.from_numpy(finite[chosen]).to(points.device)].to(device=device, dtype=torch.float64)
    # a weighted pool has a mean and a covariance of its own, and its nulls have those
    moments = cloud_moments(points if weights is None else rows, device)
    norms = (rows - moments.mean).norm(dim=1)
    log_volumes = VertexPool(rows.to(settings.dtype)).log_volumes(simplices)
    advance(1)
    volumes = volume_statistics(log_volumes)
    reference = volumes.log_mean if volumes.n_valid else 0.0
    sums = volume_sums(simplices, log_volumes, len(rows), reference)
    resampling = point_weights(len(rows), settings.resamples, draws)
    nulls, first = _nulls(moments, norms, simplices, volumes, sums, resampling, settings, seed, advance)
    dimension, spread = moments.participation_ratio, moments.log_norm_std
    return SimplexProfile(
        n_points=len(finite),
        n_non_finite=len(points) - len(finite),
        n_pool=len(rows),
        n_copies=len(rows) - len(torch.unique(rows, dim=0)),
        k=settings.k,
        volumes=volumes,
        cv=interval_of(volumes.cv, sums.cv(resampling)),
        effective_dimension=dimension,
        log_norm_std=spread,
        gaussian_cv=gaussian_cv(settings.k, dimension) if dimension > settings.k else math.nan,
        predicted_cv=predicted_cv(settings.k, dimension, spread),
        nulls=nulls,
        log_volumes=log_volumes.cpu(),
        null_log_volumes=first,
        norms=moments.norms.cpu(),
    )


def _nulls(
    moments: CloudMoments,
    norms: Float[Tensor, " drawn"],
    simplices: Int[Tensor, "simplex vertex"],
    volumes: VolumeStatistics,
    data: VolumeSums,
    resampling: Float[np.ndarray, "resample point"],
    settings: SimplexSettings,
    seed: int,
    advance: Advance,
) -> tuple[dict[str, NullComparison], dict[str, Float[Tensor, " simplex"]]]:
    """The same simplices of clouds of each null: point i of a null stands beside point i of the pool."""
    spreads = principal_spreads(moments)
    reference = volumes.log_mean if volumes.n_valid else 0.0
    compared, first = {}, {}
    for place, (name, n_draws) in enumerate(settings.n_draws.items(), start=1):
        draws = np.random.default_rng([seed, place])
        cvs, means, all_sums = [], [], []
        for _ in range(n_draws):
            cloud = null_points(name, moments, spreads, norms, draws)
            logs = VertexPool(cloud.to(settings.dtype)).log_volumes(simplices)
            first.setdefault(name, logs.cpu())
            found = volume_statistics(logs)
            cvs.append(found.cv)
            means.append(found.log_mean)
            all_sums.append(volume_sums(simplices, logs, len(cloud), reference))
            advance(1)
        null_cv = np.mean([sums.cv(resampling) for sums in all_sums], axis=0)
        null_mean = np.mean([sums.mean(resampling) for sums in all_sums], axis=0)
        mean = np.logaddexp.reduce(means) - math.log(n_draws) if volumes.n_valid else math.nan
        compared[name] = NullComparison(
            cv=interval_of(float(np.mean(cvs)), null_cv),
            draws=tuple(cvs),
            ratio=interval_of(math.exp(volumes.log_mean - mean), data.mean(resampling) / null_mean),
            excess=interval_of(volumes.cv - float(np.mean(cvs)), data.cv(resampling) - null_cv),
            p=rank_p(volumes.cv, cvs) if name == MATCHED else math.nan,
        )
    return compared, first


def rank_p(value: float, null: list[float]) -> float:
    """Two-sided p of a value among draws of a null that it would be exchangeable with.

    (1 + draws at least as far from the mean of value and draws) / (1 + draws).
    """
    if not math.isfinite(value):
        return math.nan
    pooled = np.array([value, *null])
    distance = np.abs(pooled - pooled.mean())
    return float((distance[1:] >= distance[0]).sum() + 1) / len(pooled)
