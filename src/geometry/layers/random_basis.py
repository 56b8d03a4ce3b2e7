"""How large a share of the squared norm a dimension has by chance: in a random basis, for the same second moments."""

import math

import numpy as np
from jaxtyping import Float
from scipy.optimize import root_scalar
from scipy.stats import norm as normal


def share_survival(eigenvalues: Float[np.ndarray, "d"], share: float) -> float:
    """P(sum l_i z_i^2 / sum z_i^2 > share): how often a random direction has more than this share of the squared norm.

    eigenvalues: l, of the second moments, with sum 1. share: above 1 / d. The probability is that of the quadratic form
    sum (l_i - share) z_i^2 of standard normal z being positive, by the saddlepoint approximation of Lugannani and Rice
    (Kuonen 1999), whose relative error stays small far out in the tail.
    """
    weights = eigenvalues - share
    largest = float(weights.max())
    if largest <= 0:
        return 0.0

    def slope(place: float) -> float:
        return float((weights / (1 - 2 * place * weights)).sum())

    # the slope of the cumulant function rises from below 0 to infinity on this stretch
    saddle = float(root_scalar(slope, bracket=(0.0, 0.5 / largest * (1 - 1e-12))).root)
    cumulant = -0.5 * float(np.log1p(-2 * saddle * weights).sum())
    curvature = 2 * float(np.square(weights / (1 - 2 * saddle * weights)).sum())
    root = math.sqrt(max(-2 * cumulant, 0.0))
    if root < 1e-6:
        return 0.5
    return float(normal.sf(root + math.log(saddle * math.sqrt(curvature) / root) / root))


def random_basis_share(eigenvalues: Float[np.ndarray, "d"], level: float) -> float:
    """The share that the largest of the d dimensions of a random basis exceeds with a probability of `level` at most.

    eigenvalues: of the second moments, with sum 1. By the union bound over dimensions, so it holds whatever their
    dependence. Never below 1 / d, which some dimension always has.
    """
    d = len(eigenvalues)
    low, high = (1 + 1e-6) / d, float(eigenvalues.max())
    if high <= low:
        return low
    return float(root_scalar(lambda share: share_survival(eigenvalues, share) - level / d, bracket=(low, high)).root)
