"""The Mantel test: is the correlation of two matrices over the same words more than chance? Words are permuted."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float64, UInt8
from torch import Tensor

from src.geometry.words.pair_sums import bins_of, row_blocks

# values that are held at once: of all tests, and of a batch of permutations
_BLOCK_VALUES = 1 << 22
_DRAWS_AT_ONCE = 32
# a standard deviation of cosines that is rounding
_ALIKE = 1e-9


@dataclass(frozen=True, eq=False)
class MantelTests:
    """Pearson correlations of several sets of cosines with the same taxonomy.

    observed: of each test; NaN where its cosines are all alike (its p too). drawn: under permutations of the words, the
    same ones for all tests. p: of each test alone, two-sided about the mean of its draws. adjusted: the same over all
    tests, from the largest deviation of each draw (in units of each test's standard deviation; Westfall and Young 1993,
    maxT): the chance of one so large anywhere.
    """

    observed: Float64[np.ndarray, "test"]
    drawn: Float64[np.ndarray, "draw test"]

    @property
    def p(self) -> Float64[np.ndarray, "test"]:
        """(1 + draws at least as far out) / (1 + draws)."""
        observed, drawn = self._deviations()
        return np.where(np.isfinite(self.observed), (1 + (drawn >= observed).sum(0)) / (1 + len(drawn)), np.nan)

    @property
    def adjusted(self) -> Float64[np.ndarray, "test"]:
        """The p-values corrected for the number of tests."""
        observed, drawn = self._deviations()
        adjusted = (1 + (drawn.max(1)[:, None] >= observed).sum(0)) / (1 + len(drawn))
        return np.where(np.isfinite(self.observed), adjusted, np.nan)

    def band(self, share: float = 0.95) -> tuple[Float64[np.ndarray, "test"], Float64[np.ndarray, "test"]]:
        """Where this share of the draws of each test lies."""
        low, high = np.quantile(self.drawn, [(1 - share) / 2, (1 + share) / 2], axis=0)
        return low, high

    def _deviations(self) -> tuple[np.ndarray, np.ndarray]:
        mean, spread = self.drawn.mean(0), self.drawn.std(0)
        spread = np.where(spread > 0, spread, 1)
        # a permutation that moves words within equal places gives the same correlation, but for its last bits
        # where nothing varies there is no test, and no deviation to hide others
        known = np.isfinite(self.observed)
        return np.abs(self.observed - mean) / spread - 1e-9, np.where(known, np.abs(self.drawn - mean) / spread, 0.0)


@dataclass(frozen=True, eq=False)
class CosineTest:
    """One set of cosines: unit rows, and a value for each bin of cosines if it is not the cosine itself (its rank)."""

    units: Float[Tensor, "word d"]
    value_of_bin: Float[Tensor, "bin"] | None = None


def mantel_tests(
    tests: Sequence[CosineTest],
    distances: UInt8[Tensor, "word word"],
    scores: Mapping[int, float],
    draws: int,
    seed: int,
    advance: Callable[[int], None] = lambda _: None,
) -> MantelTests:
    """Correlate cosines with a score of the distance, and do it again with words at each other's places (Mantel 1967).

    Memory holds the scores of all pairs, and a block of rows of all tests and of some of the draws.

    Args:
        tests: rows for the same words, on one device.
        distances: of the words, on that device.
        scores: of each distance that takes part. Pairs at others are left out; which pairs those are moves with the
            words.
        draws: permutations.
        seed: of the permutations.
        advance: is told the number of rows done, of each test.
    """
    n, device = len(distances), distances.device
    table = torch.zeros(256, dtype=torch.float32, device=device)
    connected = torch.zeros_like(table)
    for distance, score in scores.items():
        table[distance], connected[distance] = score, 1
    mask, of_pairs = (torch.empty(n, n, dtype=torch.float32, device=device) for _ in range(2))
    for start, stop in row_blocks(n):
        level = distances[start:stop].long()
        mask[start:stop], of_pairs[start:stop] = connected[level], table[level]
    n_pairs = int((mask.fill_diagonal_(0) > 0).sum())
    # about the mean: sums in float32 stay exact enough
    of_pairs = of_pairs.mul_(mask).sub_(of_pairs.sum() / n_pairs).mul_(mask)
    everything = n_pairs == n * (n - 1)
    generator = torch.Generator().manual_seed(seed)
    orders = torch.stack([torch.arange(n), *(torch.randperm(n, generator=generator) for _ in range(draws))]).to(device)
    products, sums, squares = (torch.zeros(draws + 1, len(tests), dtype=torch.float64) for _ in range(3))
    offsets = [_mean_value(test) for test in tests]
    height = max(1, _BLOCK_VALUES // (n * max(2 * len(tests), _DRAWS_AT_ONCE)))
    for start in range(0, n, height):
        stop = min(start + height, n)
        values = torch.stack(
            [_values(test, offset, start, stop).flatten() for test, offset in zip(tests, offsets, strict=True)]
        )
        for first in range(0, draws + 1, _DRAWS_AT_ONCE):
            batch = orders[first : first + _DRAWS_AT_ONCE]
            into = slice(first, first + len(batch))
            products[into] += (_permuted(of_pairs, batch, start, stop) @ values.T).cpu().double()
            if not everything:
                moved = _permuted(mask, batch, start, stop)
                sums[into] += (moved @ values.T).cpu().double()
                squares[into] += (moved @ values.square().T).cpu().double()
        if everything:
            sums += values.sum(1).cpu().double()
            squares += values.square().sum(1).cpu().double()
        advance((stop - start) * len(tests))
    spread = (squares - sums.square() / n_pairs) * float(of_pairs.square().sum())
    correlations = (products / spread.clamp_min(1e-300).sqrt()).numpy()
    correlations[(squares <= n_pairs * _ALIKE**2).numpy()] = np.nan
    return MantelTests(correlations[0], correlations[1:])


def _mean_value(test: CosineTest) -> float:
    """About which sums in float32 stay exact, however much words share; ranks are about 0 already."""
    n = len(test.units)
    if test.value_of_bin is not None:
        return 0.0
    return float((test.units.sum(0).square().sum() - test.units.square().sum()) / (n * (n - 1)))


def _values(test: CosineTest, offset: float, start: int, stop: int) -> Float[Tensor, "row word"]:
    cosines = (test.units[start:stop] @ test.units.T).clamp_(-1, 1)
    values = cosines - offset if test.value_of_bin is None else test.value_of_bin[bins_of(cosines)]
    values[torch.arange(stop - start), torch.arange(start, stop)] = 0
    return values.float()


def _permuted(
    matrix: Float[Tensor, "word word"], orders: Tensor, start: int, stop: int
) -> Float[Tensor, "draw row_word"]:
    """Rows start to stop of the matrix with its words in each of the orders."""
    return torch.stack([matrix[order[start:stop]].index_select(1, order).flatten() for order in orders])
