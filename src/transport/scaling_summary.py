"""What the points of a scaling study say: a curve for each pair, its growth, and whether it has become flat."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from statistics import fmean
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from src.transport.bootstrap import Estimate
from src.transport.jackknife import jackknife_estimate
from src.transport.pairs import LayerPair
from src.transport.scaling import ScalingPoint

Plateau = Literal["yes", "no", "undecided"]


@dataclass(frozen=True)
class OverSubsets:
    """A number on the test documents that several subsets give.

    estimate: its mean over the subsets, with the jackknife interval over test documents. lowest, highest: of the
    subsets, which tells of the choice of training documents.
    """

    estimate: Estimate
    lowest: float
    highest: float

    @classmethod
    def of(cls, replicates: Float[Tensor, "subset replicate"]) -> "OverSubsets":
        """From the number of each subset on all test documents (entry 0), and without each group of them."""
        values = replicates[:, 0]
        return cls(jackknife_estimate(replicates.mean(0)), float(values.min()), float(values.max()))


@dataclass(frozen=True)
class CurvePoint:
    """One pair at one fraction: its subsets together. n_rows: mean over the subsets. points: sorted by draw."""

    fraction: float
    points: tuple[ScalingPoint, ...]
    n_rows: float
    val_r2: float
    test_r2: OverSubsets

    @classmethod
    def of(cls, points: Sequence[ScalingPoint]) -> "CurvePoint":
        """From the points of one pair and fraction."""
        points = tuple(sorted(points, key=lambda point: point.subset.draw))
        return cls(
            fraction=points[0].subset.fraction,
            points=points,
            n_rows=fmean(point.n_rows for point in points),
            val_r2=fmean(point.operator.val.r2_uniform for point in points),
            test_r2=OverSubsets.of(torch.stack([point.operator.test.r2_uniform for point in points])),
        )


@dataclass(frozen=True)
class Growth:
    """The curve of a pair; R2 is the uniform mean over dimensions.

    improvement: R2 at the largest fraction less that at the smallest. slope: R2 per doubling of the training tokens,
    from the last fraction but one to the last. Both are taken within each draw. plateau: see `is_flat`.
    """

    pair: LayerPair
    curve: tuple[CurvePoint, ...]
    val_improvement: float
    val_slope: float
    improvement: OverSubsets
    slope: OverSubsets
    plateau: Plateau


def is_flat(slope: OverSubsets, threshold: float) -> Plateau:
    """Yes if every subset's slope and the upper end of the interval of their mean lie below the threshold.

    No if every subset's slope and the lower end lie above it; else undecided.
    """
    estimate = slope.estimate
    if max(slope.highest, estimate.high) < threshold:
        return "yes"
    return "no" if min(slope.lowest, estimate.low) > threshold else "undecided"


def growth_of(points: Sequence[ScalingPoint], plateau: float) -> list[Growth]:
    """The growth of every pair, over at least two fractions.

    plateau: R2 per doubling of the training tokens, below which a curve counts as flat.
    """
    growths = []
    by_pair = sorted(points, key=lambda point: (point.pair, point.subset.fraction))
    for pair, of_pair in groupby(by_pair, key=lambda point: point.pair):
        curve = tuple(CurvePoint.of(list(each)) for _, each in groupby(of_pair, key=lambda p: p.subset.fraction))
        rise, last_rise = _Rise.between(curve[0], curve[-1]), _Rise.between(curve[-2], curve[-1])
        slope = OverSubsets.of(last_rise.test / last_rise.doublings[:, None])
        growth = Growth(
            pair=pair,
            curve=curve,
            val_improvement=float(rise.val.mean()),
            val_slope=float((last_rise.val / last_rise.doublings).mean()),
            improvement=OverSubsets.of(rise.test),
            slope=slope,
            plateau=is_flat(slope, plateau),
        )
        growths.append(growth)
    return growths


@dataclass(frozen=True)
class _Rise:
    """How R2 grows from one fraction to another, within each draw. doublings: of the training tokens."""

    val: Float[Tensor, "draw"]
    test: Float[Tensor, "draw replicate"]
    doublings: Float[Tensor, "draw"]

    @classmethod
    def between(cls, low: CurvePoint, high: CurvePoint) -> "_Rise":
        # all blocks are one subset, in which all draws end
        ends = high.points * len(low.points) if len(high.points) == 1 else high.points
        both = list(zip(low.points, ends, strict=True))
        return cls(
            val=torch.tensor([b.operator.val.r2_uniform - a.operator.val.r2_uniform for a, b in both]).double(),
            test=torch.stack([b.operator.test.r2_uniform - a.operator.test.r2_uniform for a, b in both]),
            doublings=torch.tensor([math.log2(b.n_rows / a.n_rows) for a, b in both]).double(),
        )
