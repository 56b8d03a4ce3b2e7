"""Corrections for several tests."""

import numpy as np
from jaxtyping import Float
from scipy.stats import norm


def holm(p: Float[np.ndarray, "test"]) -> Float[np.ndarray, "test"]:
    """Every p adjusted for the family (Holm 1979): taking all <= level makes any mistake with that probability at most.

    NaN stay NaN and do not count.
    """
    tested = np.flatnonzero(~np.isnan(p))
    order = tested[np.argsort(p[tested], kind="stable")]
    adjusted = np.full(len(p), np.nan)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(p[order] * np.arange(len(order), 0, -1)))
    return adjusted


def largest_by_chance(n: int) -> float:
    """The median of the largest of n independent standard normal numbers: beside a maximum of n of them."""
    return float(norm.ppf(0.5 ** (1 / n)))
