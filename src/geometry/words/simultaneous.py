"""How far intervals must reach to hold for many numbers at once, and so for one that was chosen among them."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64

_DRAWS = 4000


def simultaneous_reach(influences: Sequence[Float64[np.ndarray, "word"]], seed: int, share: float = 0.95) -> float:
    """Standard errors on either side of all estimates that hold all true values together with this probability.

    The largest of several estimates, with the interval of one that was fixed beforehand, is too large by selection.
    Words get random Gaussian weights (multiplier bootstrap, Chernozhukov, Chetverikov and Kato 2013); the result is the
    quantile of the largest standardised sum, so estimates that go together (layers) cost little.

    Args:
        influences: of each estimate, its jackknife values about their mean; 0 for words that are not in it.
        seed: of the weights.
        share: of the intervals together.
    """
    known = [each for each in influences if np.isfinite(each).all() and np.any(each)]
    if not known:
        return np.nan
    units = np.stack([each / np.linalg.norm(each) for each in known])
    weights = np.random.default_rng([seed, 4]).standard_normal((_DRAWS, units.shape[1]))
    return float(np.quantile(np.abs(weights @ units.T).max(1), share))
