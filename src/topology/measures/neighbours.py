"""Nearest neighbours: how far they are, who is whose (hubs, orphans, mutual pairs)."""

from dataclasses import dataclass
from typing import Self

import numpy as np
from jaxtyping import Float, Int
from scipy.stats import skew

from src.topology.homology.distances import Distances

# Radovanovic, Nanopoulos and Ivanovic 2010 count the 10 nearest.
K = 10
QUANTILES = {"q05": 0.05, "median": 0.5, "q95": 0.95}


@dataclass(frozen=True)
class Neighbours:
    """Each point's nearest others, nearest first, ties by index.

    Attributes:
        distance: to each of the k.
        index: which points they are.
    """

    distance: Float[np.ndarray, "point k"]
    index: Int[np.ndarray, "point k"]

    @classmethod
    def of(cls, distances: Distances, k: int) -> Self:
        """The k nearest others of every point.

        Raises:
            StrataError: if there are no k others.
        """
        return cls(*distances.nearest(k))

    @property
    def n_points(self) -> int:
        """Number of points."""
        return self.distance.shape[0]

    @property
    def k(self) -> int:
        """Neighbours per point."""
        return self.distance.shape[1]

    def nearest(self, k: int) -> Self:
        """The k nearest of these."""
        return type(self)(self.distance[:, :k], self.index[:, :k])


def neighbour_distances(neighbours: Neighbours, scale: float) -> dict[str, float]:
    """Mean, standard deviation and quantiles of the distances to all k neighbours (n k numbers), by name.

    `knn_mean` and so on raw, `knn_mean_scaled` in units of `scale` (NaN where that is 0).
    """
    lengths = neighbours.distance.ravel()
    raw = {
        "knn_mean": float(lengths.mean()),
        "knn_sd": float(lengths.std()),
        **{f"knn_{name}": float(np.quantile(lengths, share)) for name, share in QUANTILES.items()},
    }
    return raw | {f"{name}_scaled": value / scale if scale > 0 else float("nan") for name, value in raw.items()}


def neighbour_graph(neighbours: Neighbours) -> dict[str, float]:
    """How neighbourhoods hang together. Pass distinct points: of copies, who is near to whom is an accident of order.

    hubness: skewness of the k-occurrence N, the number of points that count a point among their k nearest (Radovanovic
    et al. 2010, "Hubs in space"), NaN where all are equal; largest_hub: max N / k; orphan_share: share of points with
    N = 0 (anti-hubs); reciprocity: share of the n k arrows to a neighbour that are answered by one back.
    """
    n, k = neighbours.n_points, neighbours.k
    source, target = np.repeat(np.arange(n), k), neighbours.index.ravel()
    occurrences = np.bincount(target, minlength=n)
    return {
        "hubness": float(skew(occurrences)) if np.ptp(occurrences) else float("nan"),
        "largest_hub": float(occurrences.max() / k),
        "orphan_share": float((occurrences == 0).mean()),
        "reciprocity": float(np.isin(source * n + target, target * n + source).mean()),
    }


def overlap_variance(scores: Float[np.ndarray, "point"], index: Int[np.ndarray, "point k"]) -> float:
    """The variance of a sum over points whose neighbourhoods overlap, from scores that add up to about 0.

    sum_ij w_ij s_i s_j, where w_ij is the share of the k + 1 points of i's neighbourhood (i and its neighbours) that
    lie in j's too: 1 for i = j, 0 where neighbourhoods are disjoint. It is a square, sum_p (sum_{i: p in N_i} s_i)^2 /
    (k + 1), so never negative; a kernel estimate as of Newey and West 1987, with overlap in the place of the lag.
    """
    n, k = index.shape
    sums = scores + np.bincount(index.ravel(), np.repeat(scores, k), minlength=n)
    return float(sums @ sums / (k + 1))
