"""The geometry of a cloud as todacomm 0.1.0 (PyPI) characterises it, with its estimators as they are.

For comparison with published numbers; src/topology/measures/dimension.py has the estimators to use. Here the
dimensions are averages of 1 / estimate over points (biased upwards), slopes of the correlation integral between the
5th and 95th percentile distance (biased downwards), and components of neighbourhoods of 50 points (49 at most).
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from src.errors import StrataError
from src.topology.protocols.float32 import float32_points

# todacomm's GeometryConfig
KNN_NEIGHBOURS, MLE_NEIGHBOURS, LOCAL_NEIGHBOURS, LOCAL_CENTRES = 20, 10, 50, 100
CORRELATION_SCALES, VARIANCE_SHARE, COMPONENTS = 10, 0.95, 50
MOST_POINTS, MOST_CORRELATION_POINTS, MOST_CORRELATED_DIMENSIONS = 5000, 2000, 100
ZERO = 1e-6


def geometry(points: Float[np.ndarray, "point d"], seed: int = 42) -> dict[str, Any]:
    """All scalars of todacomm's characterize_geometry, under its names (specification 2.5).

    Neighbours are euclidean. total_variance is over all entries (the means' spread included), sparsity the share of
    entries below 1e-6. pca_dim_for_95_var: the components computed (50) where they do not reach 95 %. pca_cumvar_50:
    the share of the variance that those explain.

    Raises:
        StrataError: if the points are not a matrix of 3 or more finite rows.
    """
    from scipy.stats import skew
    from sklearn.neighbors import NearestNeighbors

    points = float32_points(points)
    n_points, n_dims = points.shape
    if n_points < 3:
        raise StrataError(f"the geometry of {n_points} points has no meaning: give 3 or more")
    whole = points
    if n_points > MOST_POINTS:
        points = points[np.random.RandomState(seed).choice(n_points, MOST_POINTS, replace=False)]
    neighbours = NearestNeighbors(n_neighbors=min(LOCAL_NEIGHBOURS, len(points) - 1)).fit(points)
    near, index = neighbours.kneighbors(points)  # the point itself comes first, unless it has copies
    cumulative = _explained(points, n_dims, seed)
    short = cumulative[-1] < VARIANCE_SHARE  # not so for NaN, of a cloud without variance
    around, hubs = near[:, 1 : KNN_NEIGHBOURS + 1], index[:, 1 : KNN_NEIGHBOURS + 1]
    return {
        "n_samples": n_points,
        "n_dims": n_dims,
        "total_variance": float(np.var(whole)),
        "sparsity": float(np.mean(np.abs(whole) < ZERO)),
        "mle_intrinsic_dim": _mle(near, n_dims),
        "correlation_dim": _correlation_dimension(points, seed),
        "local_pca_intrinsic_dim": _local_dimension(points, index, seed),
        "pca_dim_for_95_var": len(cumulative) if short else int(np.argmax(cumulative >= VARIANCE_SHARE)) + 1,
        "pca_cumvar_50": float(cumulative[-1]),
        "hubness_score": float(skew(np.bincount(hubs.ravel(), minlength=len(points)))),
        "distance_distribution": {
            "mean": float(around.mean()),
            "std": float(around.std()),
            "median": float(np.median(around)),
            "iqr": float(np.percentile(around, 75) - np.percentile(around, 25)),
            "min": float(around.min()),
            "max": float(around.max()),
        },
    }


def recommend_pca_components(found: Sequence[dict[str, Any]]) -> int:
    """Twice the mean MLE dimension, the largest dimension for 95 % of the variance, or 20: what is largest."""
    twice = int(2 * np.mean([one["mle_intrinsic_dim"] for one in found]))
    return max(twice, *(one["pca_dim_for_95_var"] for one in found), 20)


def _mle(near: Float[np.ndarray, "point k"], n_dims: int) -> float:
    """Levina and Bickel 2004, averaged over points without MacKay and Ghahramani's correction."""
    if len(near) < MLE_NEIGHBOURS + 1:
        return float(n_dims)
    others = np.maximum(near[:, 1 : MLE_NEIGHBOURS + 1], 1e-10)
    sums = np.log(others[:, -1:] / others[:, :-1]).sum(axis=1)
    known = sums > 0
    return float(np.mean((MLE_NEIGHBOURS - 1) / sums[known])) if known.any() else float(n_dims)


def _correlation_dimension(points: Float[np.ndarray, "point d"], seed: int) -> float:
    """The slope of ln C(r) on ln r (Grassberger and Procaccia 1983) at 10 scales, NaN where there are too few."""
    from scipy.spatial.distance import pdist

    if len(points) < 10:
        return math.nan
    if len(points) > MOST_CORRELATION_POINTS:
        points = points[np.random.RandomState(seed).choice(len(points), MOST_CORRELATION_POINTS, replace=False)]
    pairs = np.sort(pdist(points))
    least, most = np.percentile(pairs, [5, 95])
    if least <= 0 or most <= least:
        return math.nan
    scales = np.logspace(np.log10(least), np.log10(most), CORRELATION_SCALES)
    share = np.searchsorted(pairs, scales, side="left") / len(pairs)
    known = share > 0
    if known.sum() < 3:
        return math.nan
    return float(np.polyfit(np.log(scales[known]), np.log(share[known]), 1)[0])


def _local_dimension(points: Float[np.ndarray, "point d"], index: np.ndarray, seed: int) -> float:
    """Mean number of components that hold 95 % of the variance of 50 nearest points (the point is one of them)."""
    n_points, n_dims = points.shape
    if n_points < LOCAL_NEIGHBOURS + 1:
        return float(n_dims)
    centres = np.random.RandomState(seed).choice(n_points, min(LOCAL_CENTRES, n_points), replace=False)
    found = []
    for centre in centres:
        local = points[index[centre]]
        variance = np.square(np.linalg.svd(local - local.mean(axis=0), compute_uv=False))
        if variance[0] > 0:
            found.append(int(np.argmax(np.cumsum(variance / variance.sum()) >= VARIANCE_SHARE)) + 1)
        else:  # copies of one point: no share reaches 95 %
            found.append(1)
    return float(np.mean(found))


def _explained(points: Float[np.ndarray, "point d"], n_dims: int, seed: int) -> Float[np.ndarray, "component"]:
    """Cumulative shares of the variance of up to 50 components.

    scikit-learn finds those of a large matrix with random projections. In todacomm they come from numpy's global
    state, which it seeds with 42 before it draws dimensions for a correlation matrix and points for the correlation
    dimension: those draws are repeated here.
    """
    from sklearn.decomposition import PCA

    rng = np.random.RandomState(seed)
    if n_dims > MOST_CORRELATED_DIMENSIONS:
        rng = np.random.RandomState(42)
        rng.choice(n_dims, MOST_CORRELATED_DIMENSIONS, replace=False)
    if len(points) > MOST_CORRELATION_POINTS:
        rng = np.random.RandomState(seed)
        rng.choice(len(points), MOST_CORRELATION_POINTS, replace=False)
    components = min(COMPONENTS, len(points) - 1, n_dims)
    with np.errstate(invalid="ignore"):
        return np.cumsum(PCA(components, random_state=rng).fit(points).explained_variance_ratio_)
