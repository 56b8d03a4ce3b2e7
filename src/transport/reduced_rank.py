"""Reduced-rank regression as an operator, with rank and alpha given, or chosen by cross-validation over all ranks."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from src.activations.moments import Moments
from src.activations.products import exact_products
from src.activations.statistics import Statistics
from src.errors import StrataError
from src.hook_points import HookPoint
from src.transport.affine import (
    SCORINGS,
    AffineFit,
    RegularizationPath,
    Scoring,
    bias_of,
    cross_validation,
    distinct,
)
from src.transport.metrics import CONSTANT_TOLERANCE, constant_dimensions
from src.transport.preprocessing import RAW, Prepared, Preprocessing
from src.transport.rank import Expansion
from src.transport.rank_factors import Metric, RankFactors, ReducedRankRegression
from src.transport.solvers import RidgeAlphas


def fit_reduced_rank_path(
    moments: Moments,
    source: HookPoint,
    targets: Sequence[HookPoint],
    folds: Sequence[int],
    alphas: Sequence[float],
    rank: int | None = None,
    metric: Metric = "raw",
    scoring: Scoring = "uniform",
    relative: bool = True,
    preprocessing: Preprocessing = RAW,
) -> dict[HookPoint, RegularizationPath]:
    """Choose alpha and rank by held-out R2 for each target of a source, and fit on all rows of `folds` with them.

    Per split and alpha one singular value decomposition gives all ranks, and their errors are one cumulative sum
    (`src.transport.rank`). Of equal scores the first counts: the smallest rank of the first alpha.

    folds, alphas, relative, scoring, preprocessing: as in `fit_ridge_path`; a single alpha may be 0.
    rank: None = each of 1..min(d_in, d_out) is tried.
    metric: errors that the regression minimises; the scores are R2 of raw y in either case. "whitened" takes the pairs
        (target, target) too.

    Raises StrataError if a split lacks rows, a rank is above the width, or the source is constant.
    """
    total = moments.subset(distinct(folds))
    whole = preprocessing.of(total, source, targets)
    grid = _alphas(whole, alphas, relative)
    absolute = grid.absolute.tolist()
    splits = [
        _Split.of(preprocessing.of(train, source, targets), part, metric)
        for train, part in cross_validation(moments, folds)
    ]
    paths = {}
    for target in targets:
        ranks = _ranks(total, source, target, rank)
        columns = torch.tensor(ranks) - 1
        # [split, alpha, scoring, rank]
        scores = torch.stack([split.r2(target, absolute)[..., columns] for split in splits])
        by_scoring: dict[Scoring, Tensor] = {name: scores[:, :, i].flatten(1) for i, name in enumerate(SCORINGS)}
        best = int(by_scoring[scoring].mean(0).argmax())
        place, chosen = divmod(best, len(ranks))
        fit = _fit(whole, target, grid, place, ranks[chosen], metric)
        every_alpha, every_relative = (
            values.repeat_interleave(len(ranks)) for values in (grid.absolute, grid.relative)
        )
        paths[target] = RegularizationPath(
            fit,
            every_alpha,
            every_relative,
            by_scoring,
            scoring,
            best,
            ranks=torch.tensor(ranks).repeat(len(grid.absolute)),
        )
    return paths


def fit_reduced_rank(
    moments: Moments,
    source: HookPoint,
    targets: Sequence[HookPoint],
    groups: Sequence[int],
    alpha: float,
    rank: int,
    metric: Metric = "raw",
    relative: bool = True,
    preprocessing: Preprocessing = RAW,
) -> dict[HookPoint, AffineFit]:
    """Reduced-rank regression with a given alpha (0: least squares) and rank on all rows of the groups; no scores."""
    total = moments.subset(distinct(groups))
    prepared = preprocessing.of(total, source, targets)
    grid = _alphas(prepared, [alpha], relative)
    ranks = {target: _ranks(total, source, target, rank)[0] for target in targets}
    return {target: _fit(prepared, target, grid, 0, ranks[target], metric) for target in targets}


def _alphas(prepared: Prepared, alphas: Sequence[float], relative: bool) -> RidgeAlphas:
    total = prepared(prepared.train)
    if list(alphas) == [0]:
        return RidgeAlphas(*total.sums[prepared.source].new_zeros(2, 1))
    return RidgeAlphas.of(total, prepared.source, alphas, relative)


def _ranks(total: Statistics, source: HookPoint, target: HookPoint, rank: int | None) -> list[int]:
    d = min(len(total.sums[source]), len(total.sums[target]))
    if rank is not None and not 1 <= rank <= d:
        raise StrataError(f"rank={rank}: maps from {source} to {target} have ranks 1..{d}")
    return list(range(1, d + 1)) if rank is None else [rank]


def _fit(prepared: Prepared, target: HookPoint, grid: RidgeAlphas, place: int, rank: int, metric: Metric) -> AffineFit:
    total, source = prepared(prepared.train), prepared.source
    alpha, relative = float(grid.absolute[place]), float(grid.relative[place])
    (factors,) = ReducedRankRegression(total, source, metric).factors(target, [alpha])
    weight = factors.weight(rank)
    bias = bias_of(total, source, target, weight)
    return prepared.restore(AffineFit(weight, bias, alpha, relative, rank, {"rank_metric": metric}), target)


@dataclass(frozen=True)
class _Split:
    """One split: the regressions on its training rows, and the held-out rows, prepared and as they are."""

    prepared: Prepared
    regression: ReducedRankRegression
    train: Statistics
    held_out: Statistics
    truth: Statistics

    @classmethod
    def of(cls, prepared: Prepared, truth: Statistics, metric: Metric) -> "_Split":
        train = prepared(prepared.train)
        regression = ReducedRankRegression(train, prepared.source, metric)
        return cls(prepared, regression, train, prepared(truth), truth)

    def r2(self, target: HookPoint, alphas: Sequence[float]) -> Float[Tensor, "alpha scoring d"]:
        """R2 of raw y on the held-out rows for every alpha and rank 1..d, in the order of SCORINGS.

        A dimension that does not vary among them counts 1 if it is predicted exactly, else 0 (`metrics`).
        """
        source = self.prepared.source
        sxx = self.held_out.scatter(source, source, about=self.train)
        sxy = self.held_out.scatter(source, target, about=self.train)
        of_mean = self.held_out.square_scatter(target, about=self.train)
        sst, square_sum = self.truth.square_scatter(target), self.truth.square_sums[target]
        unit = self.prepared.output_scale(target).square()
        constant = constant_dimensions(sst, square_sum)
        varying, d = ~constant, min(len(sxx), len(sst))
        scores = []
        with exact_products():
            for factors in self.regression.factors(target, alphas):
                errors = _Errors(factors, sxx, sxy, of_mean, d)
                uniform = varying.sum() - errors.weighted(torch.where(varying, unit / sst, 0))
                for j in constant.nonzero()[:, 0]:
                    sse = errors.weighted(torch.zeros_like(unit).index_fill(0, j, 1)) * unit[j]
                    uniform = uniform + (sse <= CONSTANT_TOLERANCE * square_sum[j])
                uniform = uniform / len(sst)
                weighted = uniform
                if varying.any():
                    weighted = 1 - errors.weighted(varying * unit / sst[varying].sum())
                scores.append(torch.stack((uniform, weighted)))
        return torch.stack(scores)


class _Errors:
    """Squared errors of every rank on held-out rows, summed over output dimensions with any weights."""

    def __init__(self, factors: RankFactors, sxx: Tensor, sxy: Tensor, of_mean: Tensor, d: int) -> None:
        self._right, self._of_mean, self._d = factors.right, of_mean, d
        self._gram = factors.left.T @ sxx @ factors.left
        self._crossed = (factors.left.T @ sxy).T * factors.right

    def weighted(self, weight: Float[Tensor, "d_out"]) -> Float[Tensor, "d"]:
        quadratic = self._gram * (self._right.T @ (weight[:, None] * self._right))
        return Expansion(weight @ self._crossed, quadratic, weight @ self._of_mean).sse(self._d)
