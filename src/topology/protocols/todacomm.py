"""The persistence summaries of todacomm 0.1.0 (PyPI), with its float32 steps and the order of its random draws.

They are here to compare with published numbers. What they miss is in docs/methods.md: the infinite bar of dimension 0
adds 1 whatever the scale is, and principal components change the number of loops. Its bootstrap is left out, because
a resample with copies has fewer bars than the cloud: src/topology/inference/resampling.py has valid bands.
"""

from typing import Any

import numpy as np
from jaxtyping import Float, Int

from src.errors import StrataError
from src.topology.homology.persistence import Persistence, persistence
from src.topology.protocols.float32 import float32_distances, float32_points
from src.topology.protocols.protocol import TODACOMM, Protocol

# todacomm's TDAConfig: the part of a multiscale sample that is uniform, and the neighbourhoods that the rest comes from
GLOBAL_SHARE, NEIGHBOURHOODS, NEIGHBOURS = 0.5, 10, 50
# adaptive sampling: density from so many nearest points (the point itself is one), or a tenth of the cloud
DENSITY_NEIGHBOURS = 20


def summary(points: Float[np.ndarray, "point d"], protocol: Protocol = TODACOMM, seed: int = 42) -> dict[str, float]:
    """Count, total and maximum of the lifetimes in each dimension, under todacomm's names (specification 2.4).

    Raises:
        StrataError: if the points are not a matrix of finite numbers, or the protocol is not one of todacomm's kind.
    """
    if protocol.arithmetic != "todacomm":
        raise StrataError(f"protocol={protocol.name} is not measured as todacomm does: use TODACOMM, or change that")
    cloud, _, _ = prepare(points, protocol, seed)
    distances, _ = float32_distances(cloud, protocol.metric)
    return summarise(persistence(distances, protocol.max_dimension))


def prepare(
    points: Float[np.ndarray, "point d"], protocol: Protocol = TODACOMM, seed: int = 42
) -> tuple[Float[np.ndarray, "row k"], Int[np.ndarray, "row"], dict[str, Any]]:
    """The cloud after PCA and sampling, in float32; which points those are; and what todacomm tells of the sampling."""
    scores = principal_scores(float32_points(points), protocol.pca_components)
    rows, told = sample(scores, protocol, seed)
    return scores[rows], rows, told


def principal_scores(points: Float[np.ndarray, "point d"], components: int | None) -> Float[np.ndarray, "point k"]:
    """Scores of the first principal components, by a full SVD in the precision of the points.

    Where the points have no more dimensions than that, they are returned as they are.
    """
    if components is None or points.shape[1] <= components:
        return points
    centred = points - points.mean(axis=0, keepdims=True)
    return (centred @ np.linalg.svd(centred, full_matrices=False)[2][:components].T).astype(np.float32)


def sample(
    points: Float[np.ndarray, "point d"], protocol: Protocol = TODACOMM, seed: int = 42
) -> tuple[Int[np.ndarray, "row"], dict[str, Any]]:
    """The points that todacomm keeps of a cloud larger than max_points, and what it tells of that (specification 2.4).

    multiscale keeps fewer than max_points, since it drops what it drew twice. adaptive prefers dense regions.
    """
    n_points, wanted = len(points), protocol.max_points
    rng = np.random.RandomState(seed)
    if protocol.sampling == "uniform":
        keep = wanted is None or n_points <= wanted
        rows = np.arange(n_points) if keep else rng.choice(n_points, size=wanted, replace=False)
        return rows, {"method": "uniform", "n_samples": len(rows)}
    if wanted is None or n_points <= wanted:
        return np.arange(n_points), {"method": "no_sampling", "n_samples": n_points}
    return (_multiscale if protocol.sampling == "multiscale" else _adaptive)(points, wanted, rng)


def summarise(found: Persistence) -> dict[str, float]:
    """Count, total and maximum of the lifetimes in each dimension (specification 2.4).

    A bar that never dies is given the death max(births) + 1.
    """
    summaries: dict[str, float] = {}
    for dimension, bars in enumerate(found.bars):
        ends = np.where(np.isinf(bars.death), bars.birth.max(initial=0.0) + 1.0, bars.death)
        lifetimes = ends - bars.birth
        summaries[f"H{dimension}_count"] = float(len(lifetimes))
        summaries[f"H{dimension}_total_persistence"] = float(lifetimes.sum())
        summaries[f"H{dimension}_max_lifetime"] = float(lifetimes.max(initial=0.0))
    return summaries


def _multiscale(
    points: Float[np.ndarray, "point d"], wanted: int, rng: np.random.RandomState
) -> tuple[Int[np.ndarray, "row"], dict[str, Any]]:
    from sklearn.neighbors import NearestNeighbors

    n_points, n_global = len(points), int(wanted * GLOBAL_SHARE)
    size = (wanted - n_global) // NEIGHBOURHOODS
    drawn = [rng.choice(n_points, size=n_global, replace=False)]
    centres = rng.choice(n_points, size=min(NEIGHBOURHOODS, n_points), replace=False)
    tree = NearestNeighbors(n_neighbors=min(NEIGHBOURS, n_points)).fit(points)
    for centre in centres:
        around = tree.kneighbors(points[centre : centre + 1], return_distance=False)[0]
        drawn.append(rng.choice(around, size=min(size, len(around)), replace=False))
    rows = np.concatenate(drawn)
    # equal points are dropped by value, and the rest sorted by value, not by row
    kept = rows[np.unique(points[rows], axis=0, return_index=True)[1]]
    return kept, {
        "method": "multiscale",
        "n_global": n_global,
        "n_local": len(rows) - n_global,
        "n_final": len(kept),
        "n_duplicates_removed": len(rows) - len(kept),
    }


def _adaptive(
    points: Float[np.ndarray, "point d"], wanted: int, rng: np.random.RandomState
) -> tuple[Int[np.ndarray, "row"], dict[str, Any]]:
    from sklearn.neighbors import NearestNeighbors

    tree = NearestNeighbors(n_neighbors=min(DENSITY_NEIGHBOURS, len(points) // 10)).fit(points)
    near, _ = tree.kneighbors(points)
    density = 1.0 / (near[:, 1:].mean(axis=1) + 1e-8)
    rows = rng.choice(len(points), size=wanted, replace=False, p=density / density.sum())
    told = {"min_density": density.min(), "max_density": density.max(), "mean_density": density.mean()}
    return rows, {
        "method": "adaptive",
        "n_samples": wanted,
        "density_stats": {name: float(value) for name, value in told.items()},
    }
