"""Spearman's rank correlation of a few units, with exact permutation p-values."""

from dataclasses import dataclass
from itertools import permutations
from math import factorial

import numpy as np
from jaxtyping import Float
from scipy.stats import rankdata

# with fewer, even a perfect correlation is no evidence: of 4 units 1 order in 12 agrees or disagrees perfectly
FEWEST = 5
_ENUMERATED = 8
_DRAWS = 9999


@dataclass(frozen=True)
class RankCorrelation:
    """rho: Spearman's, ties at average ranks; NaN where a side does not vary. p: two-sided; None below 5 units."""

    rho: float
    p: float | None
    n: int


def rank_correlation(
    first: Float[np.ndarray, " unit"], second: Float[np.ndarray, " unit"], seed: int = 0
) -> RankCorrelation:
    """Correlate two properties of independent units, those where both are finite.

    p is exact, from all orders, up to 8 units; beyond, from 9999 random ones: (1 + count) / (1 + draws).
    """
    known = np.isfinite(first) & np.isfinite(second)
    ours, theirs = (_standard(rankdata(values[known])) for values in (first, second))
    n = int(known.sum())
    if n < 2 or not ours.any() or not theirs.any():
        return RankCorrelation(float("nan"), None, n)
    rho = round(float(ours @ theirs), 12)
    if n < FEWEST:
        return RankCorrelation(rho, None, n)
    extreme = abs(rho) - 1e-12
    if n <= _ENUMERATED:
        orders = np.array(list(permutations(range(n))))
        return RankCorrelation(rho, float((np.abs(ours[orders] @ theirs) >= extreme).sum() / factorial(n)), n)
    random = np.random.default_rng(seed)
    orders = random.permuted(np.tile(np.arange(n), (_DRAWS, 1)), axis=1)
    return RankCorrelation(rho, float((1 + (np.abs(ours[orders] @ theirs) >= extreme).sum()) / (1 + _DRAWS)), n)


def _standard(ranks: Float[np.ndarray, " unit"]) -> Float[np.ndarray, " unit"]:
    centred = ranks - ranks.mean() if len(ranks) else ranks
    norm = np.linalg.norm(centred)
    return centred / norm if norm else centred
