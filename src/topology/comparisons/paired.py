"""How alike are two representations of the same prompts: CKA, RSA and Procrustes, for clouds whose rows are pairs.

Linear CKA: Kornblith et al., ICML 2019; without the bias of many dimensions and few points: the unbiased HSIC of Song
et al., JMLR 13 (2012) 1393, eq. 5, as Murphy, Zylberberg & Fyshe (2024) propose. RSA: Kriegeskorte et al. (2008), with
Mantel's permutation test. Procrustes: the nuclear norm of the cross-covariance of normed clouds (Schoenemann 1966).
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy.stats import rankdata

from src.errors import StrataError
from src.topology.homology.distances import Distances, centred, checked_points
from src.topology.inference.relabelling import half_of_units, shuffled_rows

# the unbiased HSIC has n - 3 in a denominator; halves of the cloud need it too
_FEWEST = 8
_INTERVAL = (0.025, 0.975)


@dataclass(frozen=True)
class PairedMeasure:
    """A measure of paired clouds.

    Attributes:
        value: of all pairs.
        low, high: 95 % interval from random halves of the units, drawn without replacement: the spread of a half about
            the halves' mean estimates that of the whole about its own (Shao & Wu 1989, the delete-half jackknife).
        null: mean over shuffled pairs: what the measure is where rows don't correspond.
        p: of as much agreement or more among the shuffles.
    """

    value: float
    low: float
    high: float
    null: float
    p: float


@dataclass(frozen=True)
class PairedComparison:
    """Measures of two clouds whose rows are pairs.

    Attributes:
        cka: linear CKA; 1 = equal up to rotation and scale. With few points in many dimensions it is far above 0
            even for unrelated clouds: compare it with its null.
        debiased_cka: its expectation is 0 for unrelated clouds; may be below 0.
        rsa: Spearman's correlation of the distances between pairs of points.
        procrustes: distance after centring, scaling to norm 1 and the best rotation: 0 = equal, sqrt(2) = orthogonal.
        n_pairs, draws, halves: pairs of points, shuffles for p, and halves for intervals.
    """

    cka: PairedMeasure
    debiased_cka: PairedMeasure
    rsa: PairedMeasure
    procrustes: PairedMeasure
    n_pairs: int
    draws: int
    halves: int


def compare_paired(
    first: Float[np.ndarray, "pair d"],
    second: Float[np.ndarray, "pair e"],
    distances: tuple[Distances, Distances] | None = None,
    draws: int = 199,
    halves: int = 100,
    seed: int = 0,
    units: Int[np.ndarray, " pair"] | None = None,
) -> PairedComparison:
    """Compare two representations of the same prompts or tokens.

    Args:
        first: points of one cloud.
        second: row i is of the same prompt as row i of the first; its dimensions may be more or fewer.
        distances: of the clouds, for RSA; euclidean ones if None.
        draws: shuffles for p.
        halves: random halves for intervals.
        seed: of both.
        units: the sequence of each row, where several are from one: they are shuffled and drawn together.

    All is NaN where one of the clouds is a single point.

    Raises:
        StrataError: if the clouds have different numbers of rows, or fewer than 8.
    """
    clouds = checked_points(first), checked_points(second)
    _refuse_unpaired(len(clouds[0]), len(clouds[1]))
    n = len(clouds[0])
    of = distances or (Distances.from_points(clouds[0]), Distances.from_points(clouds[1]))
    reduced = _reduced(clouds[0]), _reduced(clouds[1])
    grams = reduced[0] @ reduced[0].T, reduced[1] @ reduced[1].T
    if not all(points.any() for points in reduced):
        nothing = PairedMeasure(*[np.nan] * 5)
        return PairedComparison(nothing, nothing, nothing, nothing, n_pairs=n, draws=draws, halves=halves)

    def measured(rows: Int[np.ndarray, " row"]) -> tuple[float, float, float, float]:
        cka = centred_alignment(*(gram[np.ix_(rows, rows)] for gram in grams))
        rsa = similarity_correlation(of[0].among(rows), of[1].among(rows))
        return *cka, rsa, procrustes_distance(reduced[0][rows], reduced[1][rows])

    random = np.random.default_rng(seed)
    found = measured(np.arange(n))
    shuffle = _Shuffle(grams, of, reduced)
    null = np.array([shuffle(shuffled_rows(units, n, random)) for _ in range(draws)]).reshape(draws, 4)
    parts = [half_of_units(units, n, random) for _ in range(halves)]
    of_halves = np.array([measured(rows) for rows in parts]).reshape(halves, 4)
    measures = [_measure(value, null[:, k], of_halves[:, k], low_is_alike=k == 3) for k, value in enumerate(found)]
    return PairedComparison(*measures, n_pairs=n, draws=draws, halves=halves)


def linear_cka(first: Float[np.ndarray, "pair d"], second: Float[np.ndarray, "pair e"]) -> tuple[float, float]:
    """Linear CKA of paired clouds, and the debiased one; NaN where a cloud has no spread."""
    _refuse_unpaired(len(first), len(second))
    return centred_alignment(*((points @ points.T) for points in (centred(first), centred(second))))


def centred_alignment(
    first: Float[np.ndarray, "pair pair"], second: Float[np.ndarray, "pair pair"]
) -> tuple[float, float]:
    """CKA of two Gram matrices (they need not be centred), and the debiased one from the unbiased HSIC."""
    plain = _doubly_centred(first), _doubly_centred(second)
    unbiased = _without_bias(plain[0]), _without_bias(plain[1])
    return _cosine(*plain), _cosine(*unbiased)


def similarity_correlation(first: Distances, second: Distances) -> float:
    """RSA: Spearman's correlation of two clouds' distances, each pair of points once; NaN where all are equal."""
    above = np.triu_indices(first.n_points, 1)
    return _correlation(rankdata(first.matrix[above]), rankdata(second.matrix[above]))


def procrustes_distance(first: Float[np.ndarray, "pair d"], second: Float[np.ndarray, "pair e"]) -> float:
    """sqrt(2 - 2 |X'Y|_*) of the centred clouds of norm 1: what is left after the best rotation; NaN without spread."""
    ours, theirs = _normed(first), _normed(second)
    if np.isnan(ours).any() or np.isnan(theirs).any():
        return np.nan
    return float(np.sqrt(max(0.0, 2 - 2 * np.linalg.svd(ours.T @ theirs, compute_uv=False).sum())))


def basis_agreement(first: Float[np.ndarray, "pair d"], second: Float[np.ndarray, "pair d"]) -> float:
    """Do paired clouds have the same axes? tr(X'Y) / |X'Y|_* of the centred clouds: 1 if no rotation fits better.

    About 0 for the same cloud in an unrelated basis; NaN where nothing is shared.

    Raises:
        StrataError: if the clouds are not of one shape.
    """
    if first.shape != second.shape:
        raise StrataError(f"axes are compared of clouds of one shape: these have {first.shape} and {second.shape}")
    nuclear = np.linalg.svd(_reduced(first).T @ _reduced(second), compute_uv=False).sum()
    return float(np.vdot(centred(first), centred(second)) / nuclear) if nuclear else np.nan


class _Shuffle:
    """All measures when the second cloud's rows trade places; what does not change is computed once."""

    def __init__(
        self,
        grams: tuple[np.ndarray, np.ndarray],
        distances: tuple[Distances, Distances],
        reduced: tuple[np.ndarray, np.ndarray],
    ) -> None:
        above = np.triu_indices(len(grams[0]), 1)
        self._centred = [_normed_matrix(_doubly_centred(gram)) for gram in grams]
        self._unbiased = [_normed_matrix(_without_bias(_doubly_centred(gram))) for gram in grams]
        self._ranks = []
        for each in distances:
            ranks = rankdata(each.matrix[above])
            square = np.zeros_like(each.matrix)
            square[above] = ranks - ranks.mean()
            self._ranks.append(_normed_matrix(square + square.T))
        self._reduced = [_normed(points) for points in reduced]

    def __call__(self, order: Int[np.ndarray, " pair"]) -> tuple[float, float, float, float]:
        products = [
            float(np.vdot(first, second[order][:, order]))
            for first, second in (self._centred, self._unbiased, self._ranks)
        ]
        nuclear = np.linalg.svd(self._reduced[0].T @ self._reduced[1][order], compute_uv=False).sum()
        return products[0], products[1], products[2], float(np.sqrt(max(0.0, 2 - 2 * nuclear)))


def _refuse_unpaired(n_first: int, n_second: int) -> None:
    if n_first != n_second:
        raise StrataError(f"clouds of {n_first} and {n_second} rows are not paired: each row needs its partner")
    if n_first < _FEWEST:
        raise StrataError(f"{n_first} pairs of points are too few to compare two clouds: take {_FEWEST} or more")


def _measure(
    value: float, null: Float[np.ndarray, " draw"], halves: Float[np.ndarray, " half"], low_is_alike: bool
) -> PairedMeasure:
    as_alike = null <= value if low_is_alike else null >= value
    p = (1 + int(as_alike.sum())) / (1 + len(null))
    low, high = value + np.quantile(halves - halves.mean(), _INTERVAL) if len(halves) else (np.nan, np.nan)
    return PairedMeasure(value, float(low), float(high), float(null.mean()) if len(null) else np.nan, p)


def _reduced(points: Float[np.ndarray, "pair d"]) -> Float[np.ndarray, "pair axis"]:
    """The centred cloud in no more dimensions than it has points: a rotation, which no measure here sees."""
    about = centred(points)
    return np.asarray(np.linalg.qr(about.T, mode="r")).T if about.shape[1] > about.shape[0] else about


def _normed(points: Float[np.ndarray, "pair d"]) -> Float[np.ndarray, "pair d"]:
    return _normed_matrix(centred(points))


def _normed_matrix(matrix: np.ndarray) -> np.ndarray:
    norm = np.linalg.norm(matrix)
    return matrix / norm if norm else np.full_like(matrix, np.nan)


def _doubly_centred(gram: Float[np.ndarray, "pair pair"]) -> Float[np.ndarray, "pair pair"]:
    rows = gram.mean(axis=1)
    return gram - rows[:, None] - rows[None] + rows.mean()


def _without_bias(gram: Float[np.ndarray, "pair pair"]) -> Float[np.ndarray, "pair pair"]:
    """U-centring (Szekely & Rizzo 2014): inner products of such matrices are n (n - 3) times the unbiased HSIC."""
    n = len(gram)
    bare = gram.copy()
    np.fill_diagonal(bare, 0.0)
    rows = bare.sum(axis=1)
    bare += rows.sum() / ((n - 1) * (n - 2)) - (rows[:, None] + rows[None]) / (n - 2)
    np.fill_diagonal(bare, 0.0)
    return bare


def _cosine(first: np.ndarray, second: np.ndarray) -> float:
    norms = np.linalg.norm(first) * np.linalg.norm(second)
    return float(np.vdot(first, second) / norms) if norms else np.nan


def _correlation(first: np.ndarray, second: np.ndarray) -> float:
    return _cosine(first - first.mean(), second - second.mean())
