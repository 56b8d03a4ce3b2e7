"""How well maps of every rank 1..d predict a target, all at once from moments, and how near they come to a ceiling.

A map of rank r is sum_{i<=r} a_i b_i' of an ordered list of factors, so R2 of all ranks on any rows is one cumulative
sum over the list (docs/methods.md). All moments are about the training means, which the bias of every rank is refitted
to. Two metrics: *whitened*, errors in units of the training covariance of y, every direction alike (the metric of
canonical correlations); *raw*, errors as they are, so directions count by their variance.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
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

Metric = Literal["whitened", "raw"]
METRICS: tuple[Metric, ...] = ("whitened", "raw")
Family = Literal["reduced_rank_whitened", "reduced_rank_raw", "truncated_svd"]
"""Reduced-rank regression that is optimal in one metric, or a given operator whose singular values are cut."""
FAMILIES: tuple[Family, ...] = ("reduced_rank_whitened", "reduced_rank_raw", "truncated_svd")
OPTIMAL: Mapping[Metric, Family] = {"whitened": "reduced_rank_whitened", "raw": "reduced_rank_raw"}


@dataclass(frozen=True)
class RankFactors:
    """The map of rank r is y - mean_y = (x - mean_x) @ left[:, :r] @ right[:, :r].T, the means those of training."""

    left: Float[Tensor, "d_in factor"]
    right: Float[Tensor, "d_out factor"]

    def weight(self, rank: int) -> Float[Tensor, "d_in d_out"]:
        """The map of one rank as a matrix, for y = x @ weight + bias."""
        return self.left[:, :rank] @ self.right[:, :rank].T


def reduced_rank_factors(
    train: Statistics,
    source: HookPoint,
    target: HookPoint,
    metric: Metric,
    alpha: float = 0.0,
    floor: float = EIGENVALUE_FLOOR,
) -> RankFactors:
    """Reduced-rank regression of every rank: the least (penalised) squared error in a metric among maps of that rank.

    alpha: ridge penalty as scikit-learn counts it (added to the scatter matrix of x), in which the map of full rank is
        the ridge operator; 0 = least squares on directions of x above the floor.
    Izenman (1975) for alpha = 0, in the raw metric the principal components of the fitted values; Mukherjee and Zhu
    (2011) with a penalty.
    """
    (factors,) = ReducedRankRegression(train, source, metric, floor).factors(target, [alpha])
    return factors


class ReducedRankRegression:
    """`reduced_rank_factors` of one source, whose decomposition serves all its targets and penalties."""

    def __init__(self, train: Statistics, source: HookPoint, metric: Metric, floor: float = EIGENVALUE_FLOOR) -> None:
        self._train, self._source, self._metric, self._floor = train, source, metric, floor

    @cached_property
    def _spectrum(self) -> tuple[Float[Tensor, "d_in"], Float[Tensor, "d_in d_in"]]:
        return _spectrum(self._train, self._source)

    def factors(self, target: HookPoint, alphas: Sequence[float]) -> Iterator[RankFactors]:
        """The factors of a target for each penalty; whitened, they need the pair (target, target)."""
        with exact_products():
            whitening = Whitening.of(self._train, target, self._floor) if self._metric == "whitened" else None
            scatter = self._train.scatter(self._source, target)
        for alpha in alphas:
            with exact_products():
                spectrum = self._spectrum if alpha else None
                root = _source_root(self._train, self._source, alpha, self._floor, spectrum=spectrum)
                factors = _reduced_rank(root.T @ scatter, root, whitening)
            yield factors


def truncated_svd_factors(weight: Float[Tensor, "d_in d_out"]) -> RankFactors:
    """The operator with all but its largest singular values cut, as the literature does (blind to how x is spread)."""
    left, values, right = torch.linalg.svd(weight.double(), full_matrices=False)
    return RankFactors(left * values, right.T)


def _source_root(
    train: Statistics,
    source: HookPoint,
    alpha: float,
    floor: float,
    whitening: Whitening | None = None,
    spectrum: tuple[Tensor, Tensor] | None = None,
) -> Float[Tensor, "d_in k"]:
    """K with K K' = (Sxx + alpha I)^-1, or a generalised inverse of Sxx if alpha is 0."""
    if not (alpha >= 0 and math.isfinite(alpha)):
        raise StrataError(f"alpha must be a number of at least 0, got {alpha}")
    if alpha == 0:
        return (whitening or Whitening.of(train, source, floor)).into
    values, vectors = spectrum or _spectrum(train, source)
    return vectors * (values + alpha).rsqrt()


def _spectrum(train: Statistics, source: HookPoint) -> tuple[Float[Tensor, "d_in"], Float[Tensor, "d_in d_in"]]:
    values, vectors = torch.linalg.eigh(train.scatter(source, source))
    # a scatter matrix has no negative eigenvalues but by rounding
    return values.clamp(min=0), vectors


def _reduced_rank(
    crossed: Float[Tensor, "k d_out"], root: Float[Tensor, "d_in k"], whitening: Whitening | None
) -> RankFactors:
    left, values, right = torch.linalg.svd(crossed @ whitening.into if whitening else crossed, full_matrices=False)
    # an output that shares nothing with the source is predicted by its mean, not by rounding
    back = right @ whitening.back if whitening else right * (crossed != 0).any(0)
    return RankFactors(root @ left * values, back.T)


def _of_canonical(canonical: CanonicalCorrelations, train: Statistics, target: HookPoint) -> RankFactors:
    """The reduced-rank regression in the whitened metric without a penalty, sum_i rho_i a_i (Syy b_i)'."""
    directions = canonical.source_directions
    return RankFactors(
        directions * canonical.correlations[: directions.shape[1]],
        train.scatter(target, target) @ canonical.target_directions,
    )


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
            "whitened": _of_canonical(canonical, train, target),
            "raw": _reduced_rank(of_source.into.T @ sxy, of_source.into, None),
        }
        factors: dict[Family, RankFactors] = {OPTIMAL[metric]: unpenalised[metric] for metric in METRICS}
        if alpha:
            root = _source_root(train, source, alpha, floor)
            factors["reduced_rank_whitened"] = _reduced_rank(root.T @ sxy, root, of_target)
            factors["reduced_rank_raw"] = _reduced_rank(root.T @ sxy, root, None)
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
