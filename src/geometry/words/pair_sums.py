"""Sums over all pairs of words, by distance and by word, for correlations and means; no pair is stored."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64, UInt8
from torch import Tensor

from src.geometry.lexicon.taxonomy import UNCONNECTED

BINS = 65_536
# cosines that are held at once
_BLOCK_PAIRS = 1 << 22


@dataclass(frozen=True, eq=False)
class PairSums:
    """Sums over pairs of words that a path connects, for each word and each distance.

    distances: those that occur, ascending; the columns of the rest. count, total, squares: of the pairs of a word with
    all others at a distance: their number, the sum of their values and of the squares. Each pair is counted in the rows
    of both its words. histogram: of the cosines of all pairs (each once), in equal bins over [-1, 1].
    """

    distances: Int64[np.ndarray, "distance"]
    count: Float64[np.ndarray, "word distance"]
    total: Float64[np.ndarray, "word distance"]
    squares: Float64[np.ndarray, "word distance"]
    histogram: Int64[np.ndarray, "distance bin"]

    def without(self, lowest: int) -> "PairSums":
        """The pairs at this distance and above."""
        kept = self.distances >= lowest
        return PairSums(
            self.distances[kept], self.count[:, kept], self.total[:, kept], self.squares[:, kept], self.histogram[kept]
        )


def pair_sums(
    units: Float[Tensor, "word d"],
    distances: UInt8[Tensor, "word word"],
    value_of_bin: Float[Tensor, "bin"] | None = None,
) -> PairSums:
    """Go through all pairs in blocks of rows (spec D10).

    Args:
        units: rows of length 1, on any device.
        distances: of the words, UNCONNECTED for pairs that are left out; on the same device. The diagonal is left out.
        value_of_bin: take this value for each cosine's bin (its rank, say), in place of the cosine.
    """
    n = len(units)
    levels, level_of = _levels(distances)
    count, total, squares = (torch.zeros(n, len(levels) + 1, dtype=units.dtype, device=units.device) for _ in range(3))
    everyone = torch.arange(n, device=units.device)
    histogram = torch.zeros((len(levels) + 1) * BINS, dtype=torch.int64, device=units.device)
    for start, stop in row_blocks(n):
        cosines = (units[start:stop] @ units.T).clamp_(-1, 1)
        level = level_of[distances[start:stop].long()]
        level[everyone[start:stop] - start, everyone[start:stop]] = len(levels)
        bins = bins_of(cosines)
        once = bins + BINS * torch.where(everyone > everyone[start:stop, None], level, len(levels))
        histogram += torch.bincount(once.flatten(), minlength=len(histogram))
        values = cosines if value_of_bin is None else value_of_bin[bins]
        count[start:stop].scatter_add_(1, level, torch.ones_like(values))
        total[start:stop].scatter_add_(1, level, values)
        squares[start:stop].scatter_add_(1, level, values.square())
    kept = slice(0, len(levels))
    return PairSums(
        levels.cpu().numpy(),
        count[:, kept].cpu().double().numpy(),
        total[:, kept].cpu().double().numpy(),
        squares[:, kept].cpu().double().numpy(),
        histogram.reshape(-1, BINS)[kept].cpu().numpy(),
    )


def row_blocks(n: int, values: int = 1) -> list[tuple[int, int]]:
    """First and last row of blocks of an n x n matrix that memory always holds, so many values for each pair."""
    height = max(1, _BLOCK_PAIRS // max(n * values, 1))
    return [(start, min(start + height, n)) for start in range(0, n, height)]


def bins_of(cosines: Float[Tensor, "*pairs"]) -> Int64[Tensor, "*pairs"]:
    """The bin of each cosine."""
    return ((cosines + 1) * (BINS / 2)).long().clamp_(0, BINS - 1)


def _levels(distances: UInt8[Tensor, "word word"]) -> tuple[Int64[Tensor, "distance"], Int64[Tensor, "256"]]:
    off_diagonal = torch.bincount(distances.flatten(), minlength=256)
    off_diagonal -= torch.bincount(distances.diagonal(), minlength=256)
    off_diagonal[UNCONNECTED] = 0
    levels = off_diagonal.nonzero().flatten()
    level_of = torch.full((256,), len(levels), dtype=torch.int64, device=distances.device)
    level_of[levels] = torch.arange(len(levels), device=distances.device)
    return levels, level_of


@dataclass(frozen=True, eq=False)
class JackknifeEstimate:
    """A number and its standard error from leaving each word out in turn; NaN where it is not defined.

    left: the values without each word.
    """

    value: float
    error: float
    left: Float64[np.ndarray, "word"] | None = None

    @property
    def low(self) -> float:
        """Of the 95 % interval."""
        return self.value - 1.959964 * self.error

    @property
    def high(self) -> float:
        """Of the 95 % interval."""
        return self.value + 1.959964 * self.error


Statistic = Callable[
    [Float64[np.ndarray, "... distance"], Float64[np.ndarray, "... distance"], Float64[np.ndarray, "... distance"]],
    Float64[np.ndarray, "..."],
]


def jackknife(sums: PairSums, statistic: Statistic) -> JackknifeEstimate:
    """A statistic of (count, total, squares) by distance over all pairs, and its delete-one-word jackknife error.

    Leaving a word out takes its row off the sums over all pairs; var = (n - 1) / n sum (theta_i - mean)^2 (spec D12).
    """
    whole = [part.sum(0) / 2 for part in (sums.count, sums.total, sums.squares)]
    with np.errstate(divide="ignore", invalid="ignore"):
        value = float(statistic(*whole))
        left = statistic(
            *(all_of - part for all_of, part in zip(whole, (sums.count, sums.total, sums.squares), strict=True))
        )
    return JackknifeEstimate(value, jackknife_error(left), left)


def jackknife_error(left: Float64[np.ndarray, "word"]) -> float:
    """The standard error from the values without each word; NaN if one of them is not defined."""
    n = len(left)
    if not np.isfinite(left).all():
        return np.nan
    return float(np.sqrt((n - 1) / n * np.square(left - left.mean()).sum()))


def correlation_with(score: Float64[np.ndarray, "distance"]) -> Statistic:
    """The Pearson correlation of the values with a score of the distance."""

    def correlation(count: np.ndarray, total: np.ndarray, squares: np.ndarray) -> np.ndarray:
        n = count.sum(-1)
        # about the mean score: sums of near equal numbers would cancel
        centred = score - ((count * score).sum(-1) / n)[..., None]
        mean = total.sum(-1) / n
        covariance = (total * centred).sum(-1)
        spread = (squares.sum(-1) - n * mean**2) * (count * centred**2).sum(-1)
        # a spread that is rounding alone has no correlation
        floor = 1e-13 * squares.sum(-1) * (count * score**2).sum(-1)
        return np.where(spread > floor, covariance / np.sqrt(np.where(spread > floor, spread, 1)), np.nan)

    return correlation


def mean_at(place: int) -> Statistic:
    """The mean value at one of the distances."""
    return lambda count, total, squares: total[..., place] / count[..., place]


def mean_gradient(sums: PairSums) -> Statistic:
    """Mean value at similarity >= 0.25 less that at similarity < 0.10, for similarity 1 / (1 + distance) (spec D6)."""
    near, far = sums.distances <= 3, sums.distances >= 10

    def gradient(count: np.ndarray, total: np.ndarray, squares: np.ndarray) -> np.ndarray:
        del squares
        means = [total[..., kept].sum(-1) / count[..., kept].sum(-1) for kept in (near, far)]
        return means[0] - means[1]

    return gradient


def midranks(counts: Int64[np.ndarray, "value"]) -> Float64[np.ndarray, "value"]:
    """The rank of each value that occurs so many times, from 1; equal ones share the mean of theirs."""
    return np.cumsum(counts) - (counts - 1) / 2
