"""What a diagram says in curves and in few numbers: survival, Betti numbers, persistence summaries."""

import numpy as np
from jaxtyping import Float, Int

from src.topology.homology.persistence import Bars


def count_longer(bars: Bars, length: float) -> int:
    """Bars that are longer than `length` (strictly); one that never dies is longer than all."""
    return int((bars.lifetimes > length).sum())


def survival_rate(bars: Bars, length: float) -> float:
    """The share of the bars that are longer than `length`; NaN where there are no bars."""
    return count_longer(bars, length) / len(bars) if len(bars) else float("nan")


def survival_curve(bars: Bars, lengths: Float[np.ndarray, "length"]) -> Int[np.ndarray, "length"]:
    """The number of bars that are longer than each of `lengths`: of lifetimes, not a Betti curve."""
    return len(bars) - np.searchsorted(np.sort(bars.lifetimes), lengths, side="right")


def phi(survival_rate_of_one: float, survival_rate_of_other: float) -> float:
    """PHI of actopo, unrounded: the ratio of the survival rates of two clouds; NaN where the other's is not above 0."""
    return survival_rate_of_one / survival_rate_of_other if survival_rate_of_other > 0 else float("nan")


def betti_curve(bars: Bars, scales: Float[np.ndarray, "scale"]) -> Int[np.ndarray, "scale"]:
    """The Betti number at each scale: the number of bars with birth <= scale < death."""
    born = np.searchsorted(np.sort(bars.birth), scales, side="right")
    return born - np.searchsorted(np.sort(bars.death), scales, side="right")


def persistence_entropy(lifetimes: Float[np.ndarray, "bar"]) -> float:
    """-sum p ln p of the bars' shares p of the total length; NaN where there is no bar.

    Chintakunta et al. 2015, "An entropy-based persistence barcode". The lifetimes are finite and above 0.
    """
    if not len(lifetimes):
        return float("nan")
    shares = lifetimes / lifetimes.sum()
    return float(-(shares @ np.log(shares)))


def landscape_norm(lifetimes: Float[np.ndarray, "bar"], p: float = 2) -> float:
    """The L_p norm of all landscapes together, of a diagram with these lifetimes l: a closed form, with no grid.

    At each t landscapes are the bars' tents in another order, so (sum_k int |landscape_k|^p) = sum 2 (l / 2)^(p + 1) /
    (p + 1); with p infinite, half the longest bar.
    """
    halves = np.asarray(lifetimes) / 2
    if np.isinf(p):
        return float(halves.max(initial=0.0))
    return float((2 * halves ** (p + 1) / (p + 1)).sum() ** (1 / p))


def bar_statistics(bars: Bars, scale: float) -> dict[str, float]:
    """Summaries of the finite bars of one dimension k, by name (`h1_total`, ...); lengths also in units of `scale`.

    Bars that never die are counted apart (`h0_infinite`: 1) and are in no sum. Mean and entropy of no bars are NaN, as
    are lengths in units of a scale of 0, and the normalised entropy (entropy / ln count) of one bar.
    """
    of = f"h{bars.dimension}"
    lifetimes = bars.lifetimes[np.isfinite(bars.death)]
    count, entropy = len(lifetimes), persistence_entropy(lifetimes)
    total, longest = float(lifetimes.sum()), float(lifetimes.max(initial=0.0))
    lengths = {
        f"{of}_total": total,
        f"{of}_max": longest,
        f"{of}_mean": total / count if count else float("nan"),
    }
    in_units = {f"{name}_scaled": value / scale if scale > 0 else float("nan") for name, value in lengths.items()}
    return {
        f"{of}_count": float(count),
        f"{of}_infinite": float(len(bars) - count),
        **lengths,
        **in_units,
        f"{of}_entropy": entropy,
        f"{of}_entropy_normalised": float(entropy / np.log(count)) if count > 1 else float("nan"),
        f"{of}_landscape_norm_scaled": landscape_norm(lifetimes / scale) if scale > 0 else float("nan"),
    }


def largest_ratio(bars: Bars) -> float:
    """The largest death / birth of the finite bars, which no change of scale alters; NaN where there are none."""
    born_later = bars.finite[bars.finite[:, 0] > 0]  # of dimension 1, all but those of matrices that are no metric
    return float((born_later[:, 1] / born_later[:, 0]).max()) if len(born_later) else float("nan")
