"""What the number of points, and PCA, do to the statistics of a cloud."""

from typing import Any

import numpy as np
from jaxtyping import Float, Int

from src.config.topology import AblationConfig
from src.topology.homology.distances import Distances
from src.topology.homology.persistence import Persistence
from src.topology.profiling import measure_cloud
from src.topology.protocols.ablation import over_components, over_sizes
from src.topology.protocols.preparation import prepare
from src.topology.protocols.protocol import Protocol


def ablation_records(
    name: str,
    points: Float[np.ndarray, "point d"],
    sequences: Int[np.ndarray, "point"] | None,
    protocol: Protocol,
    config: AblationConfig,
    seed: int,
    workers: int,
) -> list[dict[str, Any]]:
    """A record for each statistic and each size of subsamples (n_points) or number of components; none if not asked.

    components of a record: None for the cloud's own coordinates. Sizes beyond the cloud, and components beyond its
    rank, are left out.
    """

    def measured(distances: Distances, found: Persistence) -> dict[str, float]:
        return measure_cloud(distances, found, protocol)

    records: list[dict[str, Any]] = []
    dimension = protocol.max_dimension
    if config.n_points:
        cloud = prepare(points, protocol, seed)
        groups = None if sequences is None else sequences[cloud.rows]
        bands = over_sizes(cloud.distances, measured, config.n_points, config.repeats, seed, groups, dimension, workers)
        records += [
            {"cloud": name, "varied": "n_points", "size": size, "statistic": statistic, "value": band.mean}
            | {"low": band.low, "high": band.high}
            for size, of_size in bands.items()
            for statistic, band in of_size.items()
        ]
    if config.pca_components:
        found = over_components(points, measured, [*config.pca_components, None], protocol.metric, dimension)
        records += [
            {"cloud": name, "varied": "pca_components", "size": components, "statistic": statistic, "value": value}
            for components, of_components in found.items()
            for statistic, value in of_components.items()
        ]
    return records
