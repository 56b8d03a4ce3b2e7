"""The same simplices of states before and after a modulator: did volumes change by more than the states' size?"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from src.geometry.simplices.drawing import draw_pool, draw_simplices
from src.geometry.simplices.moments import finite_rows
from src.geometry.simplices.profile import SimplexSettings
from src.geometry.simplices.statistics import (
    Estimate,
    interval_of,
    point_weights,
    resampled,
    row_sums,
    volume_statistics,
    volume_sums,
)
from src.geometry.simplices.volumes import VertexPool


@dataclass(frozen=True)
class VolumeChange:
    """Of one cloud, against the same points elsewhere; intervals are over points, paired. NaN: nothing has a volume.

    n_joint: simplices that have a volume in both clouds; the others count in neither (BUG B-1). cv: coefficient of
    variation of V, this cloud's less the other's. log_volume: mean log V less the other's. log_size: k times the log
    ratio of root mean square centred norms, what a mere change of size makes of log V. beyond_size: their difference.
    """

    n_simplices: int
    n_joint: int
    cv: Estimate
    log_volume: Estimate
    log_size: Estimate
    beyond_size: Estimate


def volume_changes(
    before: Float[Tensor, "point d"],
    after: Mapping[str, Float[Tensor, "point d"]],
    settings: SimplexSettings,
    seed: int,
) -> dict[str, VolumeChange]:
    """Measure the same simplices of all clouds, in all their dimensions (BUG H-8: never in the first few).

    Point i is the same token in every cloud; points that are not finite in one of them are left out of all. No vertex
    comes twice in a simplex, and a simplex without volume is no number (H9).

    Raises ValueError for clouds of other lengths, or fewer than k + 1 points.
    """
    if wrong := {name: len(points) for name, points in after.items() if len(points) != len(before)}:
        raise ValueError(f"{len(before)} points before, after: {wrong}: they must be the same tokens")
    draws = np.random.default_rng([seed, 0])
    finite = finite_rows(before)
    for points in after.values():
        finite &= finite_rows(points).to(finite.device)
    usable = np.flatnonzero(finite.cpu().numpy())
    chosen = usable[draw_pool(len(usable), settings.pool, draws)]
    simplices = torch.from_numpy(draw_simplices(len(chosen), settings.k, settings.n_simplices, draws))
    simplices = simplices.to(before.device)
    resampling = point_weights(len(chosen), settings.resamples, draws)
    first = _measured(before, chosen, simplices)
    return {
        name: _change(first, _measured(points, chosen, simplices), simplices, resampling, settings.k)
        for name, points in after.items()
    }


@dataclass(frozen=True, eq=False)
class _Measured:
    log_volumes: Float[Tensor, " simplex"]
    square_norms: Float[np.ndarray, " point"]


def _measured(points: Tensor, chosen: np.ndarray, simplices: Int[Tensor, "simplex vertex"]) -> _Measured:
    rows = points[torch.from_numpy(chosen).to(points.device)].to(simplices.device, torch.float64)
    pool = VertexPool(rows)
    return _Measured(pool.log_volumes(simplices), pool.points.square().sum(1).cpu().numpy())


def _change(
    before: _Measured,
    after: _Measured,
    simplices: Int[Tensor, "simplex vertex"],
    resampling: Float[np.ndarray, "resample point"],
    k: int,
) -> VolumeChange:
    joint = before.log_volumes.isfinite() & after.log_volumes.isfinite()
    n_points = resampling.shape[1]
    cvs, cv_draws = zip(*(_spread(each, joint, simplices, resampling) for each in (before, after)), strict=True)
    gain = (after.log_volumes - before.log_volumes)[joint]
    powers = torch.stack([torch.ones_like(gain), gain], dim=1)
    counts, gains = resampled(resampling, row_sums(simplices[joint], powers, n_points), powers.sum(0).cpu().numpy()).T
    with np.errstate(divide="ignore", invalid="ignore"):
        gain_draws = gains / counts
        times = 1 + resampling
        size_draws = k / 2 * np.log((times @ after.square_norms) / (times @ before.square_norms))
        size = k / 2 * float(np.log(after.square_norms.sum() / before.square_norms.sum()))
    mean_gain = float(gain.mean()) if len(gain) else float("nan")
    return VolumeChange(
        len(simplices),
        int(joint.sum()),
        interval_of(cvs[1] - cvs[0], cv_draws[1] - cv_draws[0]),
        interval_of(mean_gain, gain_draws),
        interval_of(size, size_draws),
        interval_of(mean_gain - size, gain_draws - size_draws),
    )


def _spread(
    cloud: _Measured,
    joint: Bool[Tensor, " simplex"],
    simplices: Int[Tensor, "simplex vertex"],
    resampling: Float[np.ndarray, "resample point"],
) -> tuple[float, Float[np.ndarray, " resample"]]:
    logs = cloud.log_volumes[joint]
    found = volume_statistics(logs)
    reference = found.log_mean if found.n_valid else 0.0
    sums = volume_sums(simplices[joint], logs, resampling.shape[1], reference)
    return found.cv, sums.cv(resampling)
