"""What actopo prints of two clouds that were measured under its protocol."""

import numpy as np

from src.errors import StrataError
from src.report.topology.published_pairs import PublishedPair
from src.report.topology.reading import Topology
from src.stage.topology.measuring import protocol_of
from src.topology.comparisons.overlap import union_counts
from src.topology.protocols import frozen_v5
from src.topology.protocols.protocol import Protocol


def published_pair(title: str, first: Topology, name: str, second: Topology, other: str) -> PublishedPair | None:
    """Actopo's union test, bottleneck and centre distances and PHI of the points that were analysed.

    None under another protocol, with PCA (whose axes are each cloud's own), and for clouds of different widths.
    """
    protocol = protocol_of(first.protocol)
    if protocol.arithmetic != "actopo" or protocol.pca_components is not None or protocol.max_dimension < 1:
        return None
    clouds = [
        topology.points(cloud)[topology.profile(cloud).rows] for topology, cloud in ((first, name), (second, other))
    ]
    if clouds[0].shape[1] != clouds[1].shape[1]:
        return None
    a, b = (frozen_v5.Cloud.from_points(points, protocol) for points in clouds)
    return PublishedPair(
        title,
        (
            frozen_v5.union_test(a, b, protocol, independent_eps=True),
            frozen_v5.union_test(a, b, protocol, independent_eps=False),
        ),
        frozen_v5.bottleneck_distance(a, b, protocol),
        (frozen_v5.center_distance(a, b), frozen_v5.center_distance(a, b, normalized=False)),
        frozen_v5.phi(a, b, protocol),
        _refused(a, b, protocol),
    )


def _refused(a: frozen_v5.Cloud, b: frozen_v5.Cloud, protocol: Protocol) -> str:
    union = frozen_v5.Cloud.from_points(np.concatenate([a.points, b.points]), protocol)
    first, second, both = ((each.persistence.bars[1], protocol.betti_fraction * each.eps_max) for each in (a, b, union))
    try:
        union_counts(first[0], second[0], both[0], (first[1], second[1], both[1]))
    except StrataError as error:
        return str(error)
    return ""
