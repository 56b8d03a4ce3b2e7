"""Canonical correlations of two hook points from moments: in sample, on held-out rows, and cross-fitted over folds.

Hotelling (1936); by whitening and a singular value decomposition (Mardia, Kent, Bibby 1979, 10.2). Sample correlations
are too high, and those of d-dimensional noise are about sqrt(d / n), not 0. Cross-fitted ones are not: pairs of
directions come from some rows and their correlation from others, with its sign kept, so its mean is 0 where nothing is
shared.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from scipy.stats import t as student_t
from torch import Tensor

from src.activations.moments import Moments
from src.activations.products import exact_products
from src.activations.statistics import Statistics
from src.errors import StrataError
from src.hook_points import HookPoint
from src.transport.bootstrap import Estimate
from src.transport.metrics import constant_dimensions

# Directions whose share of the largest eigenvalue of the correlation matrix is smaller are left out.
EIGENVALUE_FLOOR = 1e-6
# Below this, eigenvalues of products taken in float32 are rounding.
_FLOAT32_FLOOR = 1e-5


@dataclass(frozen=True)
class Whitening:
    """Coordinates (x - mean) @ into, whose scatter over the rows they were made from is the identity.

    back: from those coordinates to x - mean, as far as `into` kept it: back @ into is the identity.
    """

    into: Float[Tensor, "d rank"]
    back: Float[Tensor, "rank d"]

    @property
    def rank(self) -> int:
        """Effective rank: how many directions stand above the floor."""
        return self.into.shape[1]

    @classmethod
    def of(cls, statistics: Statistics, hook_point: HookPoint, floor: float = EIGENVALUE_FLOOR) -> "Whitening":
        """By eigendecomposition of the correlation matrix, so that the floor does not depend on units of dimensions.

        Raises StrataError if no dimension varies, or the floor is not in [0, 1).
        """
        if not 0 <= floor < 1:
            raise StrataError(f"the eigenvalue floor is a share of the largest eigenvalue, in [0, 1); got {floor}")
        square_scatter = statistics.square_scatter(hook_point)
        varying = ~constant_dimensions(square_scatter, statistics.square_sums[hook_point])
        if not varying.any():
            raise StrataError(
                f"{hook_point} is the same in all {statistics.n} rows: check how it was collected, or leave it out"
            )
        scale = torch.where(varying, square_scatter.sqrt(), 0)
        inverse_scale = torch.where(varying, square_scatter.rsqrt(), 0)
        correlation = statistics.scatter(hook_point, hook_point) * inverse_scale * inverse_scale[:, None]
        values, vectors = torch.linalg.eigh(correlation)
        # no more directions than rows about their mean can span, whatever rounding leaves
        used = values > max(floor, len(values) * torch.finfo(values.dtype).eps) * values.max()
        root, vectors = values[used].sqrt(), vectors[:, used]
        return cls(inverse_scale[:, None] * vectors / root, root[:, None] * vectors.T * scale)


@dataclass(frozen=True)
class CanonicalCorrelations:
    """Pairs of directions, in falling order of their correlation over the rows they were found on.

    correlations: zeros follow where the effective ranks are below d = min(d_in, d_out). Directions are columns, for
    centred rows; over those rows source_directions' Sxx source_directions = I, and so for the target.
    """

    correlations: Float[Tensor, "d"]
    source_directions: Float[Tensor, "d_in pair"]
    target_directions: Float[Tensor, "d_out pair"]
    source_rank: int
    target_rank: int
    n_rows: int

    @property
    def ceiling(self) -> Float[Tensor, "d"]:
        """Best R2 in the whitened metric of maps of rank r = 1..d, same rows: sum_{i<=r} rho_i^2 / target_rank."""
        return self.correlations.square().cumsum(0) / self.target_rank


def canonical_correlations(
    statistics: Statistics, source: HookPoint, target: HookPoint, floor: float = EIGENVALUE_FLOOR
) -> CanonicalCorrelations:
    """Canonical correlations of the rows, which need the pairs (source, source), (source, target), (target, target)."""
    with exact_products():
        return correlate(
            statistics,
            source,
            target,
            Whitening.of(statistics, source, floor),
            Whitening.of(statistics, target, floor),
        )


def correlate(
    statistics: Statistics, source: HookPoint, target: HookPoint, of_source: Whitening, of_target: Whitening
) -> CanonicalCorrelations:
    """`canonical_correlations` where the whitenings of the same rows are known."""
    d = min(len(of_source.into), len(of_target.into))
    crossed = of_source.into.T @ statistics.scatter(source, target) @ of_target.into
    left, values, right = torch.linalg.svd(crossed, full_matrices=False)
    return CanonicalCorrelations(
        padded(values.clamp(max=1), d),
        of_source.into @ left,
        of_target.into @ right.T,
        of_source.rank,
        of_target.rank,
        statistics.n,
    )


def held_out_correlations(
    found: CanonicalCorrelations, train: Statistics, held_out: Statistics, source: HookPoint, target: HookPoint
) -> Float[Tensor, "d"]:
    """Correlation of each pair of directions over other rows, about the training means, with its sign."""
    with exact_products():
        return _correlation(
            held_out.scatter(source, source, about=train),
            held_out.scatter(source, target, about=train),
            held_out.scatter(target, target, about=train),
            found.source_directions,
            found.target_directions,
            len(found.correlations),
        )


def _correlation(
    sxx: Float[Tensor, "d_x d_x"],
    sxy: Float[Tensor, "d_x d_y"],
    syy: Float[Tensor, "d_y d_y"],
    a: Float[Tensor, "d_x pair"],
    b: Float[Tensor, "d_y pair"],
    d: int,
) -> Float[Tensor, "d"]:
    product = (a * (sxy @ b)).sum(0)
    square = (a * (sxx @ a)).sum(0).clamp(min=0) * (b * (syy @ b)).sum(0).clamp(min=0)
    # a direction that does not vary among these rows correlates with nothing
    return padded(torch.where(square > 0, product * square.rsqrt(), 0).clamp(-1, 1), d)


def padded(values: Float[Tensor, "*b k"], d: int) -> Float[Tensor, "*b d"]:
    """The values of the last axis, and zeros behind them."""
    return torch.nn.functional.pad(values, (0, d - values.shape[-1]))


class CrossFitting:
    """The whitened training rows of every split of the folds, made once for the true pairs and for shuffled ones."""

    def __init__(
        self,
        moments: Moments,
        source: HookPoint,
        target: HookPoint,
        folds: Sequence[int],
        floor: float = EIGENVALUE_FLOOR,
    ) -> None:
        """Each fold is held out in turn. moments need the pairs (source, source) and (target, target).

        Raises StrataError if there are fewer than 2 folds, or a fold has fewer than 2 rows.
        """
        if len(set(folds)) < 2:
            raise StrataError("cross-fitting needs at least 2 folds: set cv_folds to 2 or more")
        self.source, self.target, self.folds = source, target, sorted(set(folds))
        floor = floor_for(moments, floor)
        total = moments.subset(self.folds)
        if too_small := [fold for fold in self.folds if moments.count[fold] < 2]:
            raise StrataError(f"folds {too_small} hold fewer than 2 rows: use fewer folds, or more sequences")
        self._splits: list[tuple[Whitening, Whitening, Tensor, Tensor]] = []
        with exact_products():
            for fold in self.folds:
                held_out = moments.subset([fold])
                train = total - held_out
                whitenings = [Whitening.of(train, h, floor) for h in (source, target)]
                grams = [
                    whitening.into.T @ held_out.scatter(h, h, about=train) @ whitening.into
                    for whitening, h in zip(whitenings, (source, target), strict=True)
                ]
                self._splits.append((whitenings[0], whitenings[1], grams[0], grams[1]))

    def correlations(self, crossed: Moments) -> "CrossFit":
        """Cross-fitted correlations; of `crossed` only the pair (source, target) is used.

        crossed: the moments themselves, or those of the same rows of x and of y, paired anew within every fold.
        """
        total = crossed.subset(self.folds)
        by_fold = []
        with exact_products():
            for fold, (of_source, of_target, gram_source, gram_target) in zip(self.folds, self._splits, strict=True):
                held_out = crossed.subset([fold])
                train = total - held_out
                on_train = of_source.into.T @ train.scatter(self.source, self.target) @ of_target.into
                held_out_scatter = held_out.scatter(self.source, self.target, about=train)
                on_held_out = of_source.into.T @ held_out_scatter @ of_target.into
                left, _, right = torch.linalg.svd(on_train, full_matrices=False)
                d = min(len(of_source.into), len(of_target.into))
                by_fold.append(_correlation(gram_source, on_held_out, gram_target, left, right.T, d))
        return CrossFit(torch.stack(by_fold), min(of_target.rank for _, of_target, _, _ in self._splits))


@dataclass(frozen=True)
class CrossFit:
    """Correlations on each fold of pairs of directions found on the other folds, in the order of the latter.

    target_rank: the smallest effective rank of the target over the splits.
    """

    by_fold: Float[Tensor, "fold d"]
    target_rank: int

    @property
    def correlations(self) -> Float[Tensor, "d"]:
        """Mean over folds, signs kept."""
        return self.by_fold.mean(0)

    @property
    def squares(self) -> Float[Tensor, "d"]:
        """Rho |rho|: squares that keep the sign of the correlation, so that noise adds up to 0 and not to its size."""
        return self.correlations * self.correlations.abs()

    @property
    def ceiling(self) -> Float[Tensor, "d"]:
        """R2 in the whitened metric that r = 1..d pairs of directions reach on rows they were not found on."""
        return self.squares.cumsum(0) / self.target_rank

    @property
    def explained_dimensions(self) -> float:
        """Size of the linear transport subspace: sum of squared correlations, signs kept; 0 on average for noise."""
        return float(self.squares.sum())

    @property
    def participation_ratio(self) -> float:
        """Over how many directions those squares are spread: m for m equal correlations, however large.

        (sum_i s_i)^2 / sum_i mean_fold rho_i^4, s the signed squares of the means over folds; 0 if their sum is below
        0. The noise of single folds averages out above the line and stays below it, so that it does not count as
        directions: with F folds, independent data gives 0, or about chi^2_1 / F^2 where the sum is above 0.
        """
        total = max(self.explained_dimensions, 0.0)
        spread = float(self.by_fold.pow(4).mean(0).sum())
        return total**2 / spread if spread > 0 else 0.0

    def jackknife(self, measure: Callable[["CrossFit"], float]) -> Estimate:
        """A measure of all folds with a 95 % interval from leaving out one fold at a time.

        Delete-a-group jackknife (Kott 2001): Student's t with F - 1 degrees of freedom times the root of (F - 1) / F
        sum_f (measure without f - their mean)^2. It covers what other documents would give in the place of those that
        correlations were measured on, with directions of as many training rows; folds share training rows, which it
        takes no account of.
        """
        n_folds = len(self.by_fold)
        kept = ~torch.eye(n_folds, dtype=torch.bool)
        without = torch.tensor([measure(CrossFit(self.by_fold[rows], self.target_rank)) for rows in kept])
        error = math.sqrt(n_folds - 1) * float(without.std(correction=0))
        reach = float(student_t.ppf(0.975, n_folds - 1)) * error
        value = measure(self)
        return Estimate(value, value - reach, value + reach)


def cross_fitted_correlations(
    moments: Moments, source: HookPoint, target: HookPoint, folds: Sequence[int], floor: float = EIGENVALUE_FLOOR
) -> CrossFit:
    """Cross-fitted canonical correlations over the folds of train, from the three pairs of source and target."""
    return CrossFitting(moments, source, target, folds, floor).correlations(moments)


def floor_for(moments: Moments, floor: float) -> float:
    """The floor, raised to what the precision of the products can tell from rounding."""
    return max(floor, _FLOAT32_FLOOR) if moments.precision == "float32" else floor


def independent_edge(n_rows: int, source_rank: int, target_rank: int) -> float:
    """The largest sample canonical correlation to expect of independent Gaussian rows, in sample.

    The right edge of Wachter's distribution (1980; Johnstone 2008): sin(phi + gamma) with sin^2 of the two angles
    p / (n - 1) and q / (n - 1); 1 if p + q reaches n - 1. Tokens of a document depend on each other: theirs lies
    higher.
    """
    source_share, target_share = source_rank / (n_rows - 1), target_rank / (n_rows - 1)
    if source_share + target_share >= 1:
        return 1.0
    return math.sin(math.asin(math.sqrt(source_share)) + math.asin(math.sqrt(target_share)))
