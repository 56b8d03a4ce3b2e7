"""Gains of norms: their effective scale, and dimensions that stand out in most layers."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy.stats import median_abs_deviation

# robust standard deviations from the median
OUTLIER = 6.0
# share of the norms that must agree on an outlier dimension
SHARED = 0.8
# the standard deviation of a normal law over its median absolute deviation
_NORMAL = 1.4826


@dataclass(frozen=True, eq=False)
class Gains:
    """The effective gains of one norm (1 + w where they are stored so)."""

    values: Float[np.ndarray, "dim"]

    @property
    def outliers(self) -> Bool[np.ndarray, "dim"]:
        """Dimensions further from the median than OUTLIER robust standard deviations (median absolute deviation)."""
        spread = _NORMAL * float(median_abs_deviation(self.values))
        distance = np.abs(self.values - np.median(self.values))
        # gains that are almost all the same have no spread: float noise is no outlier
        return distance > max(OUTLIER * spread, 1e-3 * float(np.abs(np.median(self.values))), 1e-9)

    def numbers(self) -> dict[str, float]:
        """Scale, and the notebook's counts, by name."""
        median = float(np.median(self.values))
        relative = np.abs(self.values / median) if median else np.full_like(self.values, np.nan)
        return {
            "mean": float(self.values.mean()),
            "std": float(self.values.std()),
            "median": median,
            "min": float(self.values.min()),
            "max": float(self.values.max()),
            "above_1.5": int((self.values > 1.5).sum()),
            "below_0.5": int((self.values < 0.5).sum()),
            "within_0.8_1.2": int(((self.values > 0.8) & (self.values < 1.2)).sum()),
            "above_1.5_medians": int((relative > 1.5).sum()),
            "below_0.5_medians": int((relative < 0.5).sum()),
            "outliers": int(self.outliers.sum()),
        }


@dataclass(frozen=True)
class SharedOutliers:
    """Dimensions that are outliers in at least SHARED of several norms. expected: by chance alone."""

    dims: tuple[int, ...]
    shares: tuple[float, ...]
    expected: float


def shared_outliers(norms: Sequence[Gains]) -> SharedOutliers:
    """Outlier dimensions that norms of one width share.

    By chance (each norm's outliers anywhere) a dimension is one in K norms with a Poisson binomial law.
    """
    hits = np.stack([norm.outliers for norm in norms])
    shares = hits.mean(0)
    needed = int(np.ceil(SHARED * len(norms) - 1e-9))
    chance = np.array([1.0])
    for rate in hits.mean(1):
        chance = np.convolve(chance, [1 - rate, rate])
    dims = np.flatnonzero(hits.sum(0) >= needed)
    order = dims[np.argsort(-shares[dims], kind="stable")]
    return SharedOutliers(
        tuple(order.tolist()), tuple(shares[order].tolist()), float(hits.shape[1] * chance[needed:].sum())
    )
