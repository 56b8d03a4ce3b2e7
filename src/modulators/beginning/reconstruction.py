"""How well cosines of vectors follow similarities: over all pairs of words, with its error and its null."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from src.geometry.words.pair_sums import jackknife_error

_Z = 1.959964


@dataclass(frozen=True)
class Reconstruction:
    """Pearson's r of cosine and similarity over all pairs of words.

    error: of the jackknife over words (spec D12); null_high: the 95th percentile where the words of one side are
    permuted; p: (1 + draws of as much or more) / (1 + draws).
    """

    r: float
    error: float
    null_high: float
    p: float
    n_words: int

    @property
    def low(self) -> float:
        """Of the 95 % interval."""
        return self.r - _Z * self.error

    @property
    def high(self) -> float:
        """Of the 95 % interval."""
        return self.r + _Z * self.error


def reconstruction(
    vectors: Float64[np.ndarray, "word part"],
    similar: Float64[np.ndarray, "word word"],
    draws: int,
    seed: int,
    most: int = 1000,
) -> Reconstruction:
    """Over all pairs of these words, or of `most` that are drawn; NaN where cosines or similarities are all alike.

    Args:
        vectors: a row of length 0 has cosine 0 with all others.
        similar: symmetric; the diagonal does not take part.
        draws: permutations of the words (Mantel 1967).
        seed: of what is drawn.
        most: words that are enough.
    """
    random = np.random.default_rng([seed, 12])
    if len(vectors) > most:
        some = np.sort(random.choice(len(vectors), most, replace=False))
        vectors, similar = vectors[some], similar[np.ix_(some, some)]
    n = len(vectors)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    units = vectors / np.where(lengths > 0, lengths, 1)
    x, y = _off_diagonal(units @ units.T), _off_diagonal(similar)
    # each pair is in the rows of both its words: leaving a word out takes its row off twice the sums
    rows = np.stack([part.sum(1) for part in (x, y, x * x, y * y, x * y)])
    whole = rows.sum(1) / 2
    r = float(_pearson(whole, n * (n - 1) / 2))
    if not np.isfinite(r):
        return Reconstruction(np.nan, np.nan, np.nan, np.nan, n)
    error = jackknife_error(_pearson(whole[:, None] - rows, (n - 1) * (n - 2) / 2))
    drawn = np.empty(draws)
    for place in range(draws):
        order = random.permutation(n)
        moved = whole.copy()
        moved[4] = (x * y[np.ix_(order, order)]).sum() / 2
        drawn[place] = _pearson(moved, n * (n - 1) / 2)
    # a permutation within equal words gives the same value, but for its last bits
    p = (1 + int((drawn >= r - 1e-12).sum())) / (1 + draws)
    return Reconstruction(r, error, float(np.quantile(drawn, 0.95)) if draws else np.nan, p, n)


def _off_diagonal(matrix: Float64[np.ndarray, "word word"]) -> Float64[np.ndarray, "word word"]:
    """About the mean of all pairs, with zeros on the diagonal: sums of near equal numbers would cancel."""
    n = len(matrix)
    centred = matrix - (matrix.sum() - np.trace(matrix)) / (n * (n - 1))
    np.fill_diagonal(centred, 0)
    return centred


def _pearson(sums: Float64[np.ndarray, "five ..."], n: float) -> Float64[np.ndarray, "..."]:
    """From sums of x, y, x^2, y^2 and x y over n pairs."""
    x, y, xx, yy, xy = sums
    spread = (xx - x * x / n) * (yy - y * y / n)
    floor = 1e-26 * n * n
    return np.where(spread > floor, (xy - x * y / n) / np.sqrt(np.where(spread > floor, spread, 1)), np.nan)
