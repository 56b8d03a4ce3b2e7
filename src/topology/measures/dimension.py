"""Intrinsic dimension from ratios of distances to neighbours: TwoNN, GRIDE, Levina and Bickel's maximum likelihood.

All three assume that density is constant over the neighbourhood: then ln(r_j / r_i) of one point is distributed as in a
Poisson process, and depends on the dimension alone. Neighbours come from `for_dimension`: copies of a point have no
ratio, and are left out, never moved apart.

Intervals. The likelihoods take neighbourhoods for independent, which they are not: 95 % intervals from the Fisher
information cover the estimator's mean in 77 to 94 % of clouds (docs/methods.md). So scores are summed with their
overlap (`overlap_variance`), I^-1 V I^-1 on the logarithm of the dimension. An interval tells of the draw of points,
not of bias: of a ball of dimension 10, 500 points give 8 to 9 whatever the interval, as edges and far neighbours lower
it. Compare clouds of like n, and look at `gride_path`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import numpy as np
from jaxtyping import Float
from scipy.optimize import brentq
from scipy.stats import norm

from src.errors import StrataError
from src.topology.homology.copies import distinct
from src.topology.homology.distances import Distances
from src.topology.measures.neighbours import Neighbours, overlap_variance


@dataclass(frozen=True)
class Estimate:
    """An estimate and its 95 % interval, over a number of points; all NaN where it has none."""

    value: float
    low: float
    high: float
    n_points: int


@dataclass(frozen=True)
class AtScale:
    """An estimate from neighbours n1 and n2, whose mean distances from their points are r1 and r2."""

    n1: int
    n2: int
    r1: float
    r2: float
    estimate: Estimate


def for_dimension(distances: Distances) -> Distances:
    """The distances that dimensions are estimated from: among distinct points, and of cosine the chords.

    Cosine distance is half the square of the chord between unit vectors: taken as it is it would halve each dimension.
    """
    distances = distinct(distances)
    return Distances(np.sqrt(2 * distances.matrix), "euclidean") if distances.metric == "cosine" else distances


def two_nn(neighbours: Neighbours) -> Estimate:
    """TwoNN (Facco, d'Errico, Rodriguez and Laio 2017): (n - 1) / sum ln(r_2 / r_1).

    The maximum likelihood of the Pareto law of r_2 / r_1, free of bias (Denti et al. 2022, eq. 5); not the line through
    the empirical distribution with the top tenth left out. It is the most local of the three, and the least precise.

    Raises:
        StrataError: if there are copies of points, or fewer than 2 neighbours.
    """
    ratios = _log_ratios(neighbours, 1, 2)
    if not ratios.any():
        return no_estimate(neighbours.n_points)
    return _interval((neighbours.n_points - 1) / ratios.sum(), ratios, neighbours.nearest(2), 1, 2)


def gride(neighbours: Neighbours, n1: int, n2: int) -> Estimate:
    """GRIDE (Denti, Doimo, Laio and Mira 2022, Sci. Rep. 12, 20005): maximum likelihood from r_n2 / r_n1.

    With u = ln(r_n2 / r_n1) the score is n / d + (n2 - n1 - 1) sum u / (1 - exp(-d u)) - (n2 - 1) sum u: it falls with
    d, so its root is the only one. Where neighbours tie (u = 0), u / (1 - exp(-d u)) is its limit, 1 / d.

    Raises:
        StrataError: if there are copies of points, or n1 and n2 are not 1 <= n1 < n2 <= k.
    """
    ratios = _log_ratios(neighbours, n1, n2)
    mean = ratios.mean()
    if mean == 0:
        return no_estimate(neighbours.n_points)
    # 1 / d <= u / (1 - exp(-d u)) <= u + 1 / d: the root lies between these
    lowest, highest = (n2 - n1) / (n2 - 1) / mean, (n2 - n1) / n1 / mean
    root = brentq(lambda d: _score(ratios, d, n1, n2).sum(), lowest * (1 - 1e-9), highest * (1 + 1e-9), xtol=1e-12)
    return _interval(cast(float, root), ratios, neighbours.nearest(n2), n1, n2)


def gride_path(neighbours: Neighbours, largest: int = 64) -> list[AtScale]:
    """GRIDE at n1 = 1, 2, 4, ... and n2 = 2 n1 up to `largest` or the neighbours there are: dimension over scales.

    A dimension is one of the data only where the path is level: noise lifts its beginning, curvature and edges its end.
    """
    means = neighbours.distance.mean(axis=0)
    n1s = [2**power for power in range(20) if 2 ** (power + 1) <= min(largest, neighbours.k)]
    return [
        AtScale(n1, 2 * n1, float(means[n1 - 1]), float(means[2 * n1 - 1]), gride(neighbours, n1, 2 * n1)) for n1 in n1s
    ]


def levina_bickel(neighbours: Neighbours, k: int) -> Estimate:
    """The maximum likelihood of Levina and Bickel 2004 from the k nearest, averaged as MacKay and Ghahramani 2005 do.

    Per point the inverse dimension is mean_{j < k} ln(r_k / r_j); the dimension is the inverse of its mean over points
    (the mean of the inverses is biased upwards, and infinite in the limit).

    Raises:
        StrataError: if there are copies of points, or k is not 2 <= k <= neighbours.k.
    """
    _check(neighbours, 1, k)
    logarithms = np.log(neighbours.distance[:, :k])
    inverse = (logarithms[:, -1:] - logarithms[:, :-1]).mean(axis=1)
    if inverse.mean() == 0:
        return no_estimate(neighbours.n_points)
    value = 1 / inverse.mean()
    variance = overlap_variance(1 - value * inverse, neighbours.index[:, :k]) / neighbours.n_points**2
    return around(value, variance, neighbours.n_points)


def around(value: float, variance_of_log: float, n_points: int) -> Estimate:
    """The 95 % interval of a number above 0 whose logarithm is near to normal."""
    factor = float(np.exp(norm.ppf(0.975) * np.sqrt(variance_of_log)))
    return Estimate(float(value), float(value / factor), float(value * factor), n_points)


def from_halves(
    value: float,
    distances: Distances,
    estimator: Callable[[Distances, np.random.Generator], float],
    halves: int,
    random: np.random.Generator,
) -> Estimate:
    """A 95 % interval from the same estimate on random halves of the points, drawn without replacement.

    Halves vary about the whole as the whole does about the law that it was drawn from (subsampling, Politis and Romano
    1994, at m = n / 2), so the standard deviation of their logarithms is that of the estimate.
    """
    n = distances.n_points
    values = np.array([estimator(distances.among(random.permutation(n)[: n // 2]), random) for _ in range(halves)])
    return around(value, float(np.log(values).var(ddof=1)), n)


def no_estimate(n_points: int) -> Estimate:
    """Where all neighbours tie, as on a lattice: a dimension without end."""
    return Estimate(float("nan"), float("nan"), float("nan"), n_points)


def _score(ratios: Float[np.ndarray, "point"], d: float, n1: int, n2: int) -> Float[np.ndarray, "point"]:
    """The derivative of each point's log-likelihood."""
    return 1 / d + (n2 - n1 - 1) * _weighted(ratios, d) - (n2 - 1) * ratios


def _weighted(ratios: Float[np.ndarray, "point"], d: float) -> Float[np.ndarray, "point"]:
    """The ratios u over 1 - exp(-d u), and the limit at u = 0."""
    return np.divide(ratios, -np.expm1(-d * ratios), out=np.full_like(ratios, 1 / d), where=ratios > 0)


def _interval(value: float, ratios: Float[np.ndarray, "point"], used: Neighbours, n1: int, n2: int) -> Estimate:
    # information, of the logarithm of d: d^2 times minus the second derivative of the log-likelihood
    n = used.n_points
    weighted = _weighted(ratios, value)
    information = n + value**2 * (n2 - n1 - 1) * (weighted * (weighted - ratios)).sum()
    scores = value * _score(ratios, value, n1, n2)
    return around(value, overlap_variance(scores - scores.mean(), used.index) / information**2, n)


def _log_ratios(neighbours: Neighbours, n1: int, n2: int) -> Float[np.ndarray, "point"]:
    _check(neighbours, n1, n2)
    return np.log(neighbours.distance[:, n2 - 1]) - np.log(neighbours.distance[:, n1 - 1])


def _check(neighbours: Neighbours, n1: int, n2: int) -> None:
    if not 1 <= n1 < n2 <= neighbours.k:
        raise StrataError(f"neighbours {n1} and {n2} were asked for: 1 <= n1 < n2 <= {neighbours.k} is needed")
    copies = int((neighbours.distance[:, 0] == 0).sum())
    if copies:
        raise StrataError(
            f"{copies} points have a copy, and no ratio of distances to neighbours: pass for_dimension(distances)"
        )
