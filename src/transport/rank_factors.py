"""Maps of every rank as ordered lists of factors: reduced-rank regression in a metric, or an operator that is cut.

All moments are about the training means, which the bias of every rank is refitted to.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from src.activations.products import exact_products
from src.activations.statistics import Statistics
from src.errors import StrataError
from src.hook_points import HookPoint
from src.transport.canonical import EIGENVALUE_FLOOR, CanonicalCorrelations, Whitening

Metric = Literal["whitened", "raw"]
METRICS: tuple[Metric, ...] = ("whitened", "raw")


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
                root = source_root(self._train, self._source, alpha, self._floor, spectrum=spectrum)
                factors = reduced_rank(root.T @ scatter, root, whitening)
            yield factors


def truncated_svd_factors(weight: Float[Tensor, "d_in d_out"]) -> RankFactors:
    """The operator with all but its largest singular values cut, as the literature does (blind to how x is spread)."""
    left, values, right = torch.linalg.svd(weight.double(), full_matrices=False)
    return RankFactors(left * values, right.T)


def source_root(
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


def reduced_rank(
    crossed: Float[Tensor, "k d_out"], root: Float[Tensor, "d_in k"], whitening: Whitening | None
) -> RankFactors:
    """Factors of the regression with the root K of `source_root`: by the decomposition of K'Sxy, whitened or raw.

    crossed: K'Sxy. whitening: of the target; None = the raw metric.
    """
    left, values, right = torch.linalg.svd(crossed @ whitening.into if whitening else crossed, full_matrices=False)
    # an output that shares nothing with the source is predicted by its mean, not by rounding
    back = right @ whitening.back if whitening else right * (crossed != 0).any(0)
    return RankFactors(root @ left * values, back.T)


def of_canonical(canonical: CanonicalCorrelations, train: Statistics, target: HookPoint) -> RankFactors:
    """The reduced-rank regression in the whitened metric without a penalty, sum_i rho_i a_i (Syy b_i)'."""
    directions = canonical.source_directions
    return RankFactors(
        directions * canonical.correlations[: directions.shape[1]],
        train.scatter(target, target) @ canonical.target_directions,
    )
