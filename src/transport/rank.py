"""How well maps of every rank 1..d predict a target, all at once from moments, and how near they come to a ceiling.

A map of rank r is sum_{i<=r} a_i b_i' of an ordered list of factors, so R2 of all ranks on any rows is one cumulative
sum over the list (docs/methods.md). All moments are about the training means, which the bias of every rank is refitted
to. Two metrics: *whitened*, errors in units of the training covariance of y, every direction alike (the metric of
canonical correlations); *raw*, errors as they are, so directions count by their variance.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from src.activations.products import exact_products
from src.activations.statistics import Statistics
from src.errors import StrataError
from src.hook_points import HookPoint
from src.transport.canonical import (
    EIGENVALUE_FLOOR,
    CanonicalCorrelations,
    Whitening,
    correlate,
    held_out_correlations,
    padded,
)
from src.transport.rank_factors import (
    METRICS,
    Metric,
    RankFactors,
    of_canonical,
    reduced_rank,
    source_root,
    truncated_svd_factors,
)

Family = Literal["reduced_rank_whitened", "reduced_rank_raw", "truncated_svd"]
"""Reduced-rank regression that is optimal in one metric, or a given operator whose singular values are cut."""
FAMILIES: tuple[Family, ...] = ("reduced_rank_whitened", "reduced_rank_raw", "truncated_svd")
OPTIMAL: Mapping[Metric, Family] = {"whitened": "reduced_rank_whitened", "raw": "reduced_rank_raw"}


class _Rows:
    """Second moments of the rows that are scored, about the training means."""

    def __init__(self, rows: Statistics, train: Statistics, source: HookPoint, target: HookPoint) -> None:
        if rows.n < 2:
            raise StrataError("R2 needs at least 2 held-out rows: hold out more sequences")
        self.target = target
        self.sxx = rows.scatter(source, source, about=train)
        self.sxy = rows.scatter(source, target, about=train)
        self.syy = rows.scatter(target, target, about=train)

    def scores(self, factors: RankFactors, whitening: Whitening) -> dict[Metric, "Expansion"]:
        gram = factors.left.T @ self.sxx @ factors.left
        crossed = factors.left.T @ self.sxy
        return {
            "raw": self._expand(gram, crossed, factors.right, self.syy.trace()),
            "whitened": self._expand(
                gram,
                crossed @ whitening.into,
                whitening.into.T @ factors.right,
                (whitening.into * (self.syy @ whitening.into)).sum(),
            ),
        }

    def _expand(self, gram: Tensor, crossed: Tensor, right: Tensor, total: Tensor) -> "Expansion":
        if not total > 0:
            raise StrataError(f"{self.target} does not vary among the held-out rows: hold out more sequences")
        return Expansion((crossed.T * right).sum(0), gram * (right.T @ right), total)


@dataclass(frozen=True)
class Expansion:
    """SSE(r) = total - 2 sum_{i<=r} linear_i + sum_{i,j<=r} quadratic_ij, of a map with factors a_i b_i' in a metric.

    linear_i = a_i' Hxy M b_i, quadratic_ij = (a_i' Hxx a_j) (b_i' M b_j), total = tr(M Hyy); M the metric.
    """

    linear: Float[Tensor, "k"]
    quadratic: Float[Tensor, "k k"]
    total: Float[Tensor, ""]

    def sse(self, d: int) -> Float[Tensor, "d"]:
        """For r = 1..d."""
        return self.total - self._explained(d)

    def r2(self, d: int) -> Float[Tensor, "d"]:
        """For r = 1..d."""
        return self._explained(d) / self.total

    def _explained(self, d: int) -> Float[Tensor, "d"]:
        added = 2 * self.linear - 2 * self.quadratic.tril(-1).sum(1) - self.quadratic.diagonal()
        return padded(added, d).cumsum(0)

    def ceiling(self, d: int) -> Float[Tensor, "d"]:
        """R2 if each factor were scaled at its best for these rows; a factor of the wrong sign counts against it.

        For factors that are orthogonal in the metric: no other scaling of theirs reaches more.
        """
        square = self.quadratic.diagonal()
        gain = torch.where(square > 0, self.linear * self.linear.abs() / square, 0)
        return padded(gain, d).cumsum(0) / self.total


@dataclass(frozen=True)
class MatchedRank:
    """Curves over the ranks r = 1..d, d = min(d_in, d_out); beyond the effective rank they stay flat.

    canonical: correlations of the training rows, with their in-sample ceiling. correlations: of the same directions on
    the held-out rows. r2: on the held-out rows about the training means, by family and metric. ceiling: by metric, on
    the same rows: the directions of the least-squares reduced-rank regression that is optimal in it, each scaled at its
    best for those rows; in the whitened metric sum_{i<=r} rho_i |rho_i| w_i / sum w, rho the held-out correlations and
    w the held-out variances in units of training. A map of other directions can reach more where rows are few.
    """

    canonical: CanonicalCorrelations
    correlations: Float[Tensor, "d"]
    r2: Mapping[Family, Mapping[Metric, Float[Tensor, "d"]]]
    ceiling: Mapping[Metric, Float[Tensor, "d"]]
    alpha: float
    n_held_out: int

    def without_directions(self) -> "MatchedRank":
        """The same with empty directions, which of many wide pairs would fill the memory."""
        found = self.canonical
        empty = (found.source_directions[:, :0].clone(), found.target_directions[:, :0].clone())
        return replace(self, canonical=replace(found, source_directions=empty[0], target_directions=empty[1]))

    def efficiency(self, family: Family, metric: Metric) -> Float[Tensor, "d"]:
        """R2 over the ceiling, same rows and metric; NaN where the ceiling is not above 0."""
        ceiling = self.ceiling[metric]
        return torch.where(ceiling > 0, self.r2[family][metric] / ceiling, float("nan"))


@dataclass(frozen=True)
class RankFamilies:
    """Maps of every rank that some training rows decide; `match` scores them on others, by families and metrics.

    whitening: of the target. alpha: penalty of the reduced-rank regressions. ceiling_factors: by metric, the directions
    of the ceiling, which has no penalty, so that it is one and the same for all operators of a pair.
    """

    source: HookPoint
    target: HookPoint
    train: Statistics
    canonical: CanonicalCorrelations
    whitening: Whitening
    factors: Mapping[Family, RankFactors]
    ceiling_factors: Mapping[Metric, RankFactors]
    alpha: float

    @property
    def d(self) -> int:
        """Number of ranks: the smaller of the widths of source and target."""
        return len(self.canonical.correlations)

    def match(self, held_out: Statistics) -> MatchedRank:
        """R2 of every rank and the ceilings on held-out rows (`train` itself: in sample)."""
        with exact_products():
            rows = _Rows(held_out, self.train, self.source, self.target)
            scores: dict[Family, dict[Metric, Expansion]] = {
                family: rows.scores(factors, self.whitening) for family, factors in self.factors.items()
            }
            ceiling: dict[Metric, Tensor] = {
                metric: rows.scores(factors, self.whitening)[metric].ceiling(self.d)
                for metric, factors in self.ceiling_factors.items()
            }
        return MatchedRank(
            canonical=self.canonical,
            correlations=held_out_correlations(self.canonical, self.train, held_out, self.source, self.target),
            r2={family: {metric: score.r2(self.d) for metric, score in scores[family].items()} for family in scores},
            ceiling=ceiling,
            alpha=self.alpha,
            n_held_out=held_out.n,
        )


def rank_families(
    train: Statistics,
    source: HookPoint,
    target: HookPoint,
    weight: Float[Tensor, "d_in d_out"] | None = None,
    alpha: float = 0.0,
    floor: float = EIGENVALUE_FLOOR,
) -> RankFamilies:
    """All families from the pairs of source and target, (target, target) too; arguments as in `match_ranks`."""
    d_in, d_out = len(train.sums[source]), len(train.sums[target])
    if weight is not None and tuple(weight.shape) != (d_in, d_out):
        raise StrataError(
            f"an operator from {source} to {target} has a weight of {d_in} x {d_out}, not {tuple(weight.shape)}"
        )
    with exact_products():
        of_source, of_target = (Whitening.of(train, h, floor) for h in (source, target))
        canonical = correlate(train, source, target, of_source, of_target)
        sxy = train.scatter(source, target)
        # without a penalty the canonical directions are the factors: one decomposition less
        unpenalised: dict[Metric, RankFactors] = {
            "whitened": of_canonical(canonical, train, target),
            "raw": reduced_rank(of_source.into.T @ sxy, of_source.into, None),
        }
        factors: dict[Family, RankFactors] = {OPTIMAL[metric]: unpenalised[metric] for metric in METRICS}
        if alpha:
            root = source_root(train, source, alpha, floor)
            factors["reduced_rank_whitened"] = reduced_rank(root.T @ sxy, root, of_target)
            factors["reduced_rank_raw"] = reduced_rank(root.T @ sxy, root, None)
        if weight is not None:
            factors["truncated_svd"] = truncated_svd_factors(weight.to(sxy))
    return RankFamilies(source, target, train, canonical, of_target, factors, unpenalised, alpha)


def match_ranks(
    train: Statistics,
    held_out: Statistics,
    source: HookPoint,
    target: HookPoint,
    weight: Float[Tensor, "d_in d_out"] | None = None,
    alpha: float = 0.0,
    floor: float = EIGENVALUE_FLOOR,
) -> MatchedRank:
    """R2 of every rank on held-out rows, and its ceiling, from the pairs of source and target, (target, target) too.

    held_out: `train` itself gives everything in sample.
    weight: an operator to cut by its singular values (family `truncated_svd`, else absent).
    alpha: penalty of the reduced-rank regressions, as in `reduced_rank_factors`; canonical correlations have none.

    Raises StrataError if rows do not vary, or the weight is of another shape.
    """
    return rank_families(train, source, target, weight, alpha, floor).match(held_out)
