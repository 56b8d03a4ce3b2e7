"""All estimates of one cloud's intrinsic dimension, with intervals."""

from dataclasses import dataclass

from src.topology.homology.distances import Distances
from src.topology.measures.dimension import (
    AtScale,
    Estimate,
    for_dimension,
    gride,
    gride_path,
    levina_bickel,
    no_estimate,
    two_nn,
)
from src.topology.measures.homology_dimension import FEWEST_POINTS, Growth, homology_dimension
from src.topology.measures.local_pca import LocalPCA, local_pca_dimension
from src.topology.measures.neighbours import K, Neighbours

# neighbours of GRIDE's one number, and the furthest of its path
_N1, _N2, _FURTHEST = 8, 16, 64
_LOCAL_PCA_K = 30


@dataclass(frozen=True)
class IntrinsicDimensions:
    """Estimates by the names of `catalogue.WITH_INTERVALS`, all of them over distinct points.

    Attributes:
        estimates: NaN where a cloud has too few points for one.
        path: GRIDE over scales.
        growth, local_pca: what two of the estimates come from; None where there are too few points, local_pca also for
            precomputed distances, which may have no coordinates.
        n_copies: points left out, as copies of others.
    """

    estimates: dict[str, Estimate]
    path: list[AtScale]
    growth: Growth | None
    local_pca: LocalPCA | None
    n_copies: int


def intrinsic_dimensions(distances: Distances, seed: int) -> IntrinsicDimensions:
    """TwoNN, Levina and Bickel's with 10 neighbours, GRIDE with 8 and 16, spanning trees' growth, local PCA with 30."""
    kept = for_dimension(distances)
    n = kept.n_points
    near = Neighbours.of(kept, min(_FURTHEST, n - 1)) if n > 2 else None
    k = near.k if near else 0
    growth = homology_dimension(kept, seed) if n >= FEWEST_POINTS else None
    enough = n // 2 > _LOCAL_PCA_K and kept.metric == "euclidean"
    local_pca = local_pca_dimension(kept, seed, _LOCAL_PCA_K) if enough else None
    none = no_estimate(n)
    return IntrinsicDimensions(
        estimates={
            "two_nn": two_nn(near) if near else none,
            "levina_bickel": levina_bickel(near, K) if near and k >= K else none,
            "gride": gride(near, _N1, _N2) if near and k >= _N2 else none,
            "homology_dimension": growth.estimate if growth else none,
            "local_pca_dimension": local_pca.estimate if local_pca else none,
        },
        path=gride_path(near, _FURTHEST) if near else [],
        growth=growth,
        local_pca=local_pca,
        n_copies=distances.n_points - n,
    )
