"""From the points of a cloud to what a protocol measures: principal components, a sample, distances, the scale."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from src.topology.homology.distances import Distances, checked_points
from src.topology.protocols import todacomm
from src.topology.protocols.float32 import float32_distances, float32_points
from src.topology.protocols.protocol import Protocol
from src.topology.protocols.sampling import principal_scores, sample


@dataclass(frozen=True, eq=False)
class Prepared:
    """A cloud as a protocol measures it.

    Attributes:
        rows: which of the points that were given.
        points: their coordinates, or principal scores; float32 where the protocol is a package's.
        distances: between them.
        scale: the length that the protocol's fractions are of.
    """

    rows: Int[np.ndarray, "row"]
    points: Float[np.ndarray, "row k"]
    distances: Distances
    scale: float


def prepare(points: Float[np.ndarray, "point d"], protocol: Protocol, seed: int = 0) -> Prepared:
    """Principal components first, then the sample, then distances: in this order, as todacomm does.

    Raises:
        StrataError: if the points are not a matrix of 3 or more finite rows, or one is 0 and the metric cosine.
    """
    points = checked_points(points)
    if protocol.arithmetic == "todacomm":
        kept, rows, _ = todacomm.prepare(points, protocol, seed)
    else:
        scores = points if protocol.pca_components is None else principal_scores(points, protocol.pca_components)
        rows = np.arange(len(points))
        if protocol.max_points is not None and len(points) > protocol.max_points:
            rows = sample(scores, protocol.max_points, protocol.sampling, seed)
        kept = scores[rows]
    if protocol.arithmetic == "float64":
        distances = Distances.from_points(kept, protocol.metric)
    else:
        kept = float32_points(kept)
        distances, _ = float32_distances(kept, protocol.metric)
    return Prepared(rows, kept, distances, protocol.scale_of(distances))
