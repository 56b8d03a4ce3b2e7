"""Which heads look near, far, or to one side, from what they add to logits by distance; one rule for all sources."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Int
from scipy.stats import rankdata
from torch import Tensor

Kind = Literal[
    "flat", "global", "global past", "global future", "directional past", "directional future", "local", "mixed"
]


@dataclass(frozen=True)
class Thresholds:
    """What decides the kind of a head.

    near: the farthest distance that is near. far: the nearest that is far (spec E8). share: of the mass that decides.
    one_sided: share of the mass (without the query's own position) on one side that makes a side. flat: the greatest
    total variation from a uniform distribution that counts as none.
    """

    near: int = 2
    far: int = 46
    share: float = 0.5
    one_sided: float = 0.75
    flat: float = 0.1


@dataclass(frozen=True)
class DistanceHead:
    """Where the softmax of a head's bias over all distances puts its mass.

    mean_distance: mean |delta|. near, far: shares within and beyond the thresholds. past, future: before and after the
    query. variation: total variation from the uniform distribution over the same distances. decay: Spearman
    correlation of the bias with -|delta|, mean over the sides; NaN where the bias is constant. value_range: of the
    bias. peak: delta of the greatest bias.
    """

    kind: Kind
    mean_distance: float
    near: float
    far: float
    past: float
    future: float
    variation: float
    decay: float
    value_range: float
    peak: int


def distance_heads(
    bias: Float[Tensor, "head delta"], delta: Int[Tensor, "delta"], thresholds: Thresholds | None = None
) -> list[DistanceHead]:
    """Each head by itself. A bias that is not finite at some distances is taken over the others."""
    by = thresholds or Thresholds()
    values, distance = bias.double().cpu().numpy(), delta.cpu().numpy()
    known = np.isfinite(values).all(0)
    return [_head(row, distance[known], by) for row in values[:, known]]


def uniform_head(delta: Int[Tensor, "delta"], thresholds: Thresholds | None = None) -> DistanceHead:
    """What a head without any bias has: the null that others stand beside."""
    by = thresholds or Thresholds()
    return _head(np.zeros(len(delta)), delta.cpu().numpy(), by)


def mass_by_distance(bias: Float[np.ndarray, "delta"]) -> Float[np.ndarray, "delta"]:
    """Softmax over distances."""
    weights = np.exp(bias - bias.max())
    return weights / weights.sum()


def _head(bias: Float[np.ndarray, "delta"], delta: Int[np.ndarray, "delta"], by: Thresholds) -> DistanceHead:
    mass = mass_by_distance(bias)
    distance = np.abs(delta)
    near, far = float(mass[distance <= by.near].sum()), float(mass[distance >= by.far].sum())
    past, future = float(mass[delta < 0].sum()), float(mass[delta > 0].sum())
    variation = float(np.abs(mass - 1 / len(mass)).sum() / 2)
    far_past, far_future = (float(mass[side & (distance >= by.far)].sum()) for side in (delta < 0, delta > 0))
    two_sided = bool((delta > 0).any())
    kind: Kind = "mixed"
    if variation <= by.flat:
        kind = "flat"
    elif far >= by.share:
        past_side, future_side = (two_sided and part >= by.one_sided * far for part in (far_past, far_future))
        kind = "global past" if past_side else "global future" if future_side else "global"
    elif two_sided and max(past, future) >= max(by.share, by.one_sided * (past + future)):
        kind = "directional past" if past > future else "directional future"
    elif near >= by.share:
        kind = "local"
    sides_of = [delta <= 0, delta >= 0] if two_sided else [delta <= 0]
    return DistanceHead(
        kind=kind,
        mean_distance=float((mass * distance).sum()),
        near=near,
        far=far,
        past=past,
        future=future,
        variation=variation,
        decay=float(np.mean([_spearman(bias[side], -distance[side]) for side in sides_of])),
        value_range=float(np.ptp(bias)),
        peak=int(delta[bias.argmax()]),
    )


def _spearman(one: np.ndarray, other: np.ndarray) -> float:
    if np.ptp(one) == 0 or np.ptp(other) == 0:
        return float("nan")
    return float(np.corrcoef(rankdata(one), rankdata(other))[0, 1])
