"""The same simplices in two spaces: do tokens that span much in one span much in the other?"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from src.geometry.simplices.drawing import draw_pool, draw_simplices
from src.geometry.simplices.moments import finite_rows
from src.geometry.simplices.profile import Advance, SimplexSettings
from src.geometry.simplices.statistics import Estimate, interval_of, point_weights, resampled, row_sums
from src.geometry.simplices.volumes import VertexPool


@dataclass(frozen=True)
class Correlation:
    """A Pearson correlation with its interval over points of the pool, and with the points of one space permuted.

    null_low, null_high: percentiles 2.5 and 97.5. p: two-sided, (1 + at least as large) / (1 + permutations).
    """

    r: Estimate
    null_low: float
    null_high: float
    p: float


@dataclass(frozen=True, eq=False)
class JointStatistics:
    """Volumes of the same index sets in two spaces (spec B2).

    n_joint: simplices that have a volume in both; one without in either is left out of both (BUG B-1). volumes,
    log_volumes: correlations of V and of log V. beyond_norms: of log V less what a line in the log volume of
    orthogonal vertices of the same centred norms explains, in each space. log_pairs: log V in both spaces, of the first
    simplices.
    """

    n_simplices: int
    n_joint: int
    n_pool: int
    volumes: Correlation
    log_volumes: Correlation
    beyond_norms: Correlation
    log_pairs: Float[Tensor, "simplex 2"]


_SHOWN_PAIRS = 20_000


def joint_mask(first: Float[Tensor, " simplex"], second: Float[Tensor, " simplex"]) -> Tensor:
    """Simplices that have a volume in both spaces: filtered apart, the two lists would shift against each other."""
    return first.isfinite() & second.isfinite()


def joint_statistics(
    first: Float[Tensor, "point d1"],
    second: Float[Tensor, "point d2"],
    settings: SimplexSettings,
    permutations: int,
    seed: int,
    weights: Float[np.ndarray, " point"] | None = None,
    device: torch.device | str = "cpu",
    advance: Advance = lambda _: None,
) -> JointStatistics:
    """Measure the same random simplices in two spaces; point i is the same token in both.

    weights: how likely each point gets into the pool, in proportion. advance: is told of each permutation measured.
    Raises ValueError for spaces of different lengths, or fewer than k + 1 points that are finite in both.
    """
    if len(first) != len(second):
        raise ValueError(f"{len(first)} points in one space, {len(second)} in the other: they must be the same tokens")
    draws = np.random.default_rng([seed, 0])
    finite = np.flatnonzero((finite_rows(first) & finite_rows(second)).cpu().numpy())
    chosen = draw_pool(len(finite), settings.pool, draws, None if weights is None else weights[finite])
    simplices = torch.from_numpy(draw_simplices(len(chosen), settings.k, settings.n_simplices, draws)).to(device)
    rows = torch.from_numpy(finite[chosen])
    pools = [
        VertexPool(space[rows.to(space.device)].to(device=device, dtype=torch.float64).to(settings.dtype))
        for space in (first, second)
    ]
    norms = [pool.points.norm(dim=1).double().clamp(min=torch.finfo(torch.float64).tiny).log() for pool in pools]
    fixed = pools[0].log_volumes(simplices).double()
    residual = _beyond(fixed, _of_norms(norms[0][simplices]))
    resampling = point_weights(len(rows), settings.resamples, draws)

    def measured(vertices: Int[Tensor, "simplex vertex"]) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        other = pools[1].log_volumes(vertices).double()
        both = joint_mask(fixed, other)
        beyond = _beyond(other, _of_norms(norms[1][vertices]))
        kinds = ((fixed, other), (residual, beyond))
        (a, b), (c, d) = ([values[both] for values in pair] for pair in kinds)
        return both, [(_relative(a), _relative(b)), (a, b), (c, d)]

    both, pairs = measured(simplices)
    advance(1)
    nulls: list[list[float]] = []
    for _ in range(permutations):
        moved = torch.from_numpy(draws.permutation(len(rows))).to(device)[simplices]
        nulls.append([_pearson(a, b) for a, b in measured(moved)[1]])
        advance(1)
    by_kind = np.array(nulls).reshape(permutations, 3).T
    found = [
        _correlation(a, b, simplices[both], len(rows), resampling, null)
        for (a, b), null in zip(pairs, by_kind, strict=True)
    ]
    shown = torch.stack(pairs[1], dim=1)[:_SHOWN_PAIRS].cpu()
    return JointStatistics(len(simplices), int(both.sum()), len(rows), found[0], found[1], found[2], shown)


def _relative(logs: Float[Tensor, " simplex"]) -> Float[Tensor, " simplex"]:
    """Volumes from their logs, in units of the greatest."""
    return (logs - logs.max()).exp() if len(logs) else logs


def _of_norms(log_norms: Float[Tensor, "simplex vertex"]) -> Float[Tensor, " simplex"]:
    """Log volume, but for log k!, of a simplex whose vertices are orthogonal and have these norms.

    The edges' Gram determinant is then the sum over vertices of the product of the others' squared norms.
    """
    return log_norms.sum(dim=1) + (-2 * log_norms).logsumexp(dim=1) / 2


def _beyond(logs: Float[Tensor, " simplex"], norms: Float[Tensor, " simplex"]) -> Float[Tensor, " simplex"]:
    """What a line in the log volume of the norms does not explain; what is not finite stays so."""
    here = logs.isfinite()
    x, y = norms[here] - norms[here].mean(), logs[here] - logs[here].mean()
    power = x.square().sum()
    slope = (x * y).sum() / power if len(x) and float(power) > 0 else 0.0
    return logs - slope * norms


def _pearson(a: Float[Tensor, " simplex"], b: Float[Tensor, " simplex"]) -> float:
    if len(a) < 2:
        return math.nan
    a, b = a - a.mean(), b - b.mean()
    scale = float(a.norm() * b.norm())
    return min(1.0, max(-1.0, float(a @ b) / scale)) if scale > 0 else math.nan


def _correlation(
    a: Float[Tensor, " simplex"],
    b: Float[Tensor, " simplex"],
    simplices: Int[Tensor, "simplex vertex"],
    n_points: int,
    resampling: Float[np.ndarray, "resample point"],
    null: Float[np.ndarray, " permutation"],
) -> Correlation:
    r = _pearson(a, b)
    if not math.isfinite(r):
        return Correlation(Estimate(r), math.nan, math.nan, math.nan)
    a, b = ((values - values.mean()) / values.std() for values in (a, b))
    powers = torch.stack([torch.ones_like(a), a, b, a * a, b * b, a * b], dim=1)
    sums = resampled(resampling, row_sums(simplices, powers, n_points), powers.sum(dim=0).cpu().numpy())
    n, sa, sb, saa, sbb, sab = sums.T
    with np.errstate(divide="ignore", invalid="ignore"):
        draws = (sab - sa * sb / n) / np.sqrt((saa - sa**2 / n) * (sbb - sb**2 / n))
    finite = null[np.isfinite(null)]
    low, high = np.percentile(finite, [2.5, 97.5]) if len(finite) else (math.nan, math.nan)
    p = float(1 + (np.abs(finite) >= abs(r)).sum()) / (1 + len(finite))
    return Correlation(interval_of(r, draws), float(low), float(high), p)
