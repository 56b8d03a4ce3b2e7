"""Do two clouds overlap? Tests of the union at one scale, with permutation p-values.

Friedman-Rafsky: Friedman & Rafsky, Annals of Statistics 7 (1979) 697. Energy distance: Szekely & Rizzo, InterStat 5
(2004) and J. Stat. Plan. Inference 143 (2013) 1249. MMD: Gretton et al., JMLR 13 (2012) 723.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from src.topology.homology.distances import Distances, centred
from src.topology.homology.spanning_tree import prim
from src.topology.inference.relabelling import relabellings

# relabellings in one matrix product
_BATCH = 128


@dataclass(frozen=True)
class FriedmanRafsky:
    """Edges of the union's minimum spanning tree that join the clouds: few where they lie apart.

    Attributes:
        cross_edges: how many of the `n_edges`.
        expected, deviation: mean and standard deviation under relabelling, conditional on the tree: closed form where
            points are exchanged freely, else those of the draws.
        p: of as few cross edges or fewer.
    """

    cross_edges: int
    n_edges: int
    expected: float
    deviation: float
    p: float

    @property
    def z(self) -> float:
        """Standard deviations from what is expected of clouds of one distribution; below 0 where they lie apart."""
        return (self.cross_edges - self.expected) / self.deviation if self.deviation else 0.0

    @property
    def ratio(self) -> float:
        """Cross edges to those expected: 0 apart, 1 mixed."""
        return self.cross_edges / self.expected


@dataclass(frozen=True)
class EnergyDistance:
    """2 E|X - Y| - E|X - X'| - E|Y - Y'|, in units of distance; p: of as much or more."""

    value: float
    coefficient: float
    """Divided by 2 E|X - Y|: 0 where the distributions are equal, 1 where each is a point; free of scale."""
    p: float


@dataclass(frozen=True)
class MeanDiscrepancy:
    """Squared maximum mean discrepancy of a Gaussian kernel, unbiased (it may be below 0); p: of as much or more."""

    squared: float
    bandwidth: float
    p: float


@dataclass(frozen=True)
class TwoSample:
    """The tests of one pair of clouds; all share the same relabellings."""

    friedman_rafsky: FriedmanRafsky
    energy: EnergyDistance
    mmd: MeanDiscrepancy
    draws: int


def two_sample_tests(
    union: Distances,
    n_first: int,
    draws: int = 999,
    seed: int = 0,
    units: Int[np.ndarray, " point"] | None = None,
    paired: bool = False,
) -> TwoSample:
    """Test whether two clouds come from one distribution.

    Args:
        union: distances of the first cloud's points followed by the second's. Energy distance and MMD tell all
            distributions apart under euclidean distances; under cosine distances the former compares means alone.
        n_first: points of the first cloud.
        draws: relabellings for p.
        seed: of the relabellings.
        units: what is exchanged as a whole, see `relabellings`.
        paired: whether the units are the same in both clouds, see `relabellings`.

    Raises:
        StrataError: if the units do not fit the design.
    """
    n_second = union.n_points - n_first
    labels = relabellings(n_first, n_second, draws, seed, units, paired)
    restricted = paired or (units is not None and len(np.unique(units)) < len(units))
    bandwidth = union.median or 1.0
    kernel = np.exp(-np.square(union.matrix / bandwidth) / 2)
    np.fill_diagonal(kernel, 0.0)
    return TwoSample(
        _friedman_rafsky(unordered_tree(union, seed), labels, closed_form=not restricted),
        _energy(union.matrix, labels),
        _discrepancy(kernel, labels, bandwidth),
        draws,
    )


def standardised(points: Float[np.ndarray, "point d"]) -> Float[np.ndarray, "point d"]:
    """The cloud about its centre at a root mean square radius of 1: its shape, without place and size."""
    about = centred(points)
    radius = np.sqrt(np.square(about).sum(axis=1).mean())
    return about / radius if radius else about


def centre_distance(
    first: Float[np.ndarray, "point d"], second: Float[np.ndarray, "other_point d"], scale: float
) -> tuple[float, float]:
    """The distance of the clouds' means: raw, and in units of `scale` (0 where scale is 0 and the means agree)."""
    raw = float(np.linalg.norm(first.mean(axis=0) - second.mean(axis=0)))
    return raw, raw / scale if scale else (np.inf if raw else 0.0)


def permutation_variance(tree: Int[np.ndarray, "edge 2"], n_first: int, n_second: int) -> float:
    """Variance of the number of cross edges of a tree when labels are permuted (Friedman & Rafsky 1979, eq. 14)."""
    n, product = n_first + n_second, n_first * n_second
    degree = np.bincount(tree.ravel(), minlength=n)
    sharing = (degree * (degree - 1)).sum() / 2  # pairs of edges with a common point
    first = 2 * product / (n * (n - 1))
    second = (2 * product - n) / n
    third = (sharing - n + 2) / ((n - 2) * (n - 3)) * (n * (n - 1) - 4 * product + 2)
    return max(0.0, float(first * (second + third)))


def unordered_tree(distances: Distances, seed: int = 0) -> Int[np.ndarray, "edge 2"]:
    """Edges of a minimum spanning tree for which the order of points says nothing: among equal distances it is drawn.

    A tree that preferred the points that come first would join copies of one cloud's points to each other.
    """
    order = np.random.default_rng(seed).permutation(distances.n_points)
    return order[prim(distances.among(order).matrix)[1]]


def _friedman_rafsky(
    tree: Int[np.ndarray, "edge 2"], labels: Bool[np.ndarray, "draw point"], closed_form: bool
) -> FriedmanRafsky:
    crossing = np.array([(label[tree[:, 0]] != label[tree[:, 1]]).sum() for label in labels])
    n, n_first = labels.shape[1], int(labels[0].sum())
    if closed_form:
        expected = 2 * n_first * (n - n_first) / n
        deviation = np.sqrt(permutation_variance(tree, n_first, n - n_first))
    else:
        expected, deviation = crossing[1:].mean(), crossing[1:].std(ddof=1)
    p = (1 + (crossing[1:] <= crossing[0]).sum()) / len(crossing)
    return FriedmanRafsky(int(crossing[0]), len(tree), float(expected), float(deviation), float(p))


def _energy(matrix: Float[np.ndarray, "point point"], labels: Bool[np.ndarray, "draw point"]) -> EnergyDistance:
    first, cross, second, n_first, n_second = _block_sums(matrix, labels)
    between = 2 * cross / (n_first * n_second)
    value, p = _first_and_p(between - first / n_first**2 - second / n_second**2)
    return EnergyDistance(value, float(value / between[0]) if between[0] else 0.0, p)


def _discrepancy(
    kernel: Float[np.ndarray, "point point"], labels: Bool[np.ndarray, "draw point"], bandwidth: float
) -> MeanDiscrepancy:
    first, cross, second, n_first, n_second = _block_sums(kernel, labels)
    within = first / (n_first * (n_first - 1)) + second / (n_second * (n_second - 1))
    squared, p = _first_and_p(within - 2 * cross / (n_first * n_second))
    return MeanDiscrepancy(squared, bandwidth, p)


def _block_sums(
    matrix: Float[np.ndarray, "point point"], labels: Bool[np.ndarray, "draw point"]
) -> tuple[Float[np.ndarray, " draw"], ...]:
    """Sums over pairs within the first cloud, between the clouds, within the second; and the points of each."""
    sums, total = matrix.sum(axis=1), float(matrix.sum())
    within, rows = np.empty(len(labels)), np.empty(len(labels))
    for start in range(0, len(labels), _BATCH):
        batch = labels[start : start + _BATCH].astype(np.float64)
        within[start : start + _BATCH] = np.einsum("dp,dp->d", batch @ matrix, batch)
        rows[start : start + _BATCH] = batch @ sums
    n_first = labels.sum(axis=1).astype(np.float64)
    cross = rows - within
    return within, cross, total - within - 2 * cross, n_first, labels.shape[1] - n_first


def _first_and_p(values: Float[np.ndarray, " draw"]) -> tuple[float, float]:
    """The observed value, and the p of as much or more among the draws (equal up to rounding counts as equal)."""
    slack = 1e-12 * np.abs(values).max(initial=0.0)
    return float(values[0]), float((1 + (values[1:] >= values[0] - slack).sum()) / len(values))
