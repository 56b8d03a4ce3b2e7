"""Corrections for several tests."""

import numpy as np
from jaxtyping import Float


def holm(p: Float[np.ndarray, "test"]) -> Float[np.ndarray, "test"]:
    """Every p adjusted for the family (Holm 1979): taking all <= level makes any mistake with that probability at most.

    NaN stay NaN and do not count.
    """
    tested = np.flatnonzero(~np.isnan(p))
    order = tested[np.argsort(p[tested], kind="stable")]
    adjusted = np.full(len(p), np.nan)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(p[order] * np.arange(len(order), 0, -1)))
    return adjusted
