"""The same simplices of states before and after a modulator: did volumes change by more than the states' size?"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy import stats
from torch import Tensor

from src.geometry.simplices.drawing import draw_pool, draw_simplices
from src.geometry.simplices.moments import finite_rows
from src.geometry.simplices.profile import Advance, SimplexProfile, SimplexSettings, simplex_profile
from src.geometry.simplices.statistics import Estimate, VolumeSums, row_sums, volume_statistics, volume_sums
from src.geometry.simplices.volumes import VertexPool
from src.geometry.words.pair_sums import jackknife_error


@dataclass(frozen=True)
class VolumeChange:
    """Of one cloud against the same points elsewhere, paired: each interval is the jackknife's over points.

    NaN where nothing has a volume. n_joint: simplices that have one in both clouds; the others count in neither (BUG
    B-1). cv: coefficient of variation of V, this cloud's less the other's. log_volume: mean log V less the other's.
    log_size: k times the log ratio of root mean square centred norms, what a mere change of size makes of log V.
    beyond_size: their difference.
    """

    n_simplices: int
    n_joint: int
    cv: Estimate
    log_volume: Estimate
    log_size: Estimate
    beyond_size: Estimate


@dataclass(frozen=True, eq=False)
class CloudVolumes:
    """Volumes of simplices of the same tokens' states under variants of a model.

    cv: coefficient of variation of each, with its jackknife interval over points. profiles: beside nulls without
    structure, of those that were asked for. changes: of all others against the first.
    """

    cv: Mapping[str, Estimate]
    profiles: Mapping[str, SimplexProfile]
    changes: Mapping[str, VolumeChange]


def cloud_volumes(
    clouds: Mapping[str, Float[Tensor, "point d"]],
    profiled: Collection[str],
    settings: SimplexSettings,
    seed: int,
    advance: Advance = lambda _: None,
) -> CloudVolumes:
    """Measure the same simplices of all clouds, in all their dimensions (BUG H-8: never in the first few).

    Point i is the same token in every cloud; points that are not finite in one of them are left out of all. No vertex
    comes twice in a simplex, and where no simplex has a volume there is no number (H9).

    Args:
        clouds: by name; the others are compared with the first.
        profiled: those that are set beside nulls too.
        settings: what is drawn.
        seed: of the draws.
        advance: is told of each cloud measured, of the nulls too, and once for the comparisons.

    Raises ValueError for clouds of other lengths, or fewer than k + 1 points.
    """
    if len(set(map(len, clouds.values()))) != 1:
        raise ValueError(f"the same tokens in all clouds: { {name: len(points) for name, points in clouds.items()} }")
    profiles = {name: simplex_profile(clouds[name], settings, seed, advance=advance) for name in profiled}
    finite = torch.stack([finite_rows(points).cpu() for points in clouds.values()]).all(0)
    usable = np.flatnonzero(finite.numpy())
    draws = np.random.default_rng([seed, 0])
    chosen = torch.from_numpy(usable[draw_pool(len(usable), settings.pool, draws)])
    simplices = torch.from_numpy(draw_simplices(len(chosen), settings.k, settings.n_simplices, draws))
    measured = {name: _measured(points, chosen, simplices) for name, points in clouds.items()}
    first, *others = measured
    advance(1)
    return CloudVolumes(
        {name: _cv(each, each.log_volumes.isfinite(), simplices).estimate() for name, each in measured.items()},
        profiles,
        {name: _change(measured[first], measured[name], simplices, settings.k) for name in others},
    )


@dataclass(frozen=True, eq=False)
class _Measured:
    log_volumes: Float[Tensor, " simplex"]
    square_norms: Float[np.ndarray, " point"]


@dataclass(frozen=True, eq=False)
class _Left:
    """A number, and without each point: without all simplices that it is a vertex of."""

    value: float
    left: Float[np.ndarray, " point"]

    def less(self, other: "_Left") -> "_Left":
        return _Left(self.value - other.value, self.left - other.left)

    def estimate(self) -> Estimate:
        """With its 95 % interval by Student's t."""
        reach = float(stats.t.ppf(0.975, len(self.left) - 1)) * jackknife_error(self.left)
        return Estimate(self.value, self.value - reach, self.value + reach)


def _measured(points: Tensor, chosen: Int[Tensor, " point"], simplices: Int[Tensor, "simplex vertex"]) -> _Measured:
    pool = VertexPool(points[chosen.to(points.device)].double())
    logs = pool.log_volumes(simplices.to(points.device))
    return _Measured(logs.cpu(), pool.points.square().sum(1).cpu().numpy())


def _change(before: _Measured, after: _Measured, simplices: Int[Tensor, "simplex vertex"], k: int) -> VolumeChange:
    joint = before.log_volumes.isfinite() & after.log_volumes.isfinite()
    gain = _mean((after.log_volumes - before.log_volumes)[joint], simplices[joint], len(before.square_norms))
    size = _log_power(after, k).less(_log_power(before, k))
    cv = _cv(after, joint, simplices).less(_cv(before, joint, simplices))
    parts = (cv, gain, size, gain.less(size))
    return VolumeChange(len(simplices), int(joint.sum()), *(part.estimate() for part in parts))


def _log_power(cloud: _Measured, k: int) -> _Left:
    total = cloud.square_norms.sum()
    with np.errstate(divide="ignore", invalid="ignore"):
        return _Left(k / 2 * float(np.log(total)), k / 2 * np.log(total - cloud.square_norms))


def _mean(values: Float[Tensor, " simplex"], simplices: Int[Tensor, "simplex vertex"], n_points: int) -> _Left:
    powers = torch.stack([torch.ones_like(values), values], dim=1)
    total, by_point = powers.sum(0).numpy(), row_sums(simplices, powers, n_points)
    with np.errstate(divide="ignore", invalid="ignore"):
        counts, sums = (total - by_point).T
        return _Left(float(total[1] / total[0]), sums / counts)


def _cv(cloud: _Measured, counted: Bool[Tensor, " simplex"], simplices: Int[Tensor, "simplex vertex"]) -> _Left:
    logs = cloud.log_volumes[counted]
    found = volume_statistics(logs)
    reference = found.log_mean if found.n_valid else 0.0
    sums = volume_sums(simplices[counted], logs, len(cloud.square_norms), reference)
    return _Left(found.cv, _cv_without(sums))


def _cv_without(sums: VolumeSums) -> Float[np.ndarray, " point"]:
    count, first, second = (sums.total - sums.by_point).T
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.sqrt(np.maximum(count * second / first**2 - 1, 0))
