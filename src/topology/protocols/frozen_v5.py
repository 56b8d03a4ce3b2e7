"""The measurements of actopo 0.1.0 (PyPI) under FROZEN_V5, equal to the last digit that it prints.

They are here to compare with published numbers. What they miss is in docs/methods.md: the diameter is set by one pair
of points, counts have no error bars, and the verdict of `union_test` follows from the scale. Each cloud gets one
distance matrix and one diagram, which all functions share when they are given a `Cloud`.
"""

import json
import warnings
from dataclasses import asdict, dataclass
from functools import cached_property
from hashlib import sha256
from typing import Any, Self

import numpy as np
from jaxtyping import Float

from src.errors import StrataError
from src.topology.homology.distances import Distances
from src.topology.homology.persistence import Persistence, persistence
from src.topology.protocols.float32 import float32_distances, float32_points
from src.topology.protocols.protocol import FROZEN_V5, Protocol

FEWEST_POINTS = 10
# union_verdict: above this part of both Betti numbers together, below this multiple of the larger
SEPARATE, SHARED = 0.8, 1.2
# The fields of actopo's ProtocolConfig that change no number here, at their defaults: its fingerprint covers them.
_ELSEWHERE = {
    "ph_backend": "ripser",
    "eps_max_scope": "all",
    "union_separate_frac": SEPARATE,
    "union_shared_frac": SHARED,
    "layer_frac": 0.5,
    "layer_index": None,
    "token_aggregation": "last",
    "token_index": -1,
    "use_chat_template": False,
    "max_length": 1024,
    "padding_side": "left",
    "n_prompts": 1319,
    "device": "auto",
    "dtype": "float16",
    "attn_implementation": "auto",
    "rocm_gfx_override": "11.0.0",
    "seed": 0,
    "deterministic": True,
    "cpu_workers": 4,
    "protocol_version": "v5",
}


@dataclass(frozen=True)
class Cloud:
    """A cloud in float32 with its distances. PCA and samples, which actopo does not know, come before it.

    Attributes:
        points: as they are measured.
        distances: with the values of float32.
        eps_max: the diameter.
        max_dimension: of the diagrams.
        known: the diagrams, if they are there already.
    """

    points: Float[np.ndarray, "point d"]
    distances: Distances
    eps_max: float
    max_dimension: int = 1
    known: Persistence | None = None

    @classmethod
    def from_points(cls, points: Float[np.ndarray, "point d"], protocol: Protocol = FROZEN_V5) -> Self:
        """The cloud of these points.

        Raises:
            StrataError: if they are not a matrix of finite numbers, or the protocol is not one of actopo's kind.
        """
        if protocol.arithmetic != "actopo":
            raise StrataError(f"protocol={protocol.name} is not measured as actopo does: use FROZEN_V5, or change that")
        points = float32_points(points)
        return cls(points, *float32_distances(points, protocol.metric), protocol.max_dimension)

    @cached_property
    def persistence(self) -> Persistence:
        """The diagrams of the cloud."""
        return self.known or persistence(self.distances, self.max_dimension)

    def diagram(self, dimension: int) -> Float[np.ndarray, "bar 2"]:
        """All bars of a dimension, none beyond max_dimension."""
        bars = self.persistence.bars
        return bars[dimension].diagram if dimension < len(bars) else np.empty((0, 2))

    def lifetimes(self, dimension: int) -> Float[np.ndarray, "finite_bar"]:
        """The lengths of the bars of a dimension that die, ascending."""
        diagram = self.diagram(dimension)
        found = diagram[:, 1] - diagram[:, 0]
        return np.sort(found[np.isfinite(found) & (found > 0)])

    def longer(self, threshold: float, dimension: int = 1) -> int:
        """How many bars that die are longer than a threshold."""
        return int((self.lifetimes(dimension) > threshold).sum())


@dataclass(frozen=True)
class Measurement:
    """What actopo's `measure` reports, under its names; lengths have 4 decimals, the rate (percent) has 1.

    beta1_raw counts all bars of the dimension, the infinite one of dimension 0 too; beta1 and survival_count those
    that die and are longer than eps_pred and survival_eps. config_fingerprint is actopo's own.
    """

    n_points: int
    dim: int
    eps_max: float
    eps_pred: float
    beta1_raw: int
    beta1: int
    survival_eps: float
    survival_count: int
    survival_rate: float
    config_fingerprint: str

    def to_dict(self) -> dict[str, Any]:
        """All of it, ready for JSON."""
        return asdict(self)


def config_fingerprint(protocol: Protocol = FROZEN_V5) -> str:
    """The fingerprint that actopo gives to this protocol on its default hardware settings."""
    known = {
        "betti_eps_frac": protocol.betti_fraction,
        "survival_eps_frac": protocol.survival_fraction,
        "maxdim": protocol.max_dimension,
        "metric": protocol.metric,
        "n_eps_steps": protocol.n_scale_steps,
    }
    return sha256(json.dumps(_ELSEWHERE | known, sort_keys=True).encode()).hexdigest()[:12]


def measure(
    points: Float[np.ndarray, "point d"] | Cloud, protocol: Protocol = FROZEN_V5, dimension: int = 1
) -> Measurement:
    """Betti number and survival rate of a cloud (specification 1.2).

    Raises:
        StrataError: fewer than 10 points, or what Cloud.from_points refuses.
    """
    cloud = _cloud(points, protocol)
    n_points = cloud.distances.n_points
    if n_points < FEWEST_POINTS:
        raise StrataError(f"frozen_v5 measures clouds of {FEWEST_POINTS} or more points: this one has {n_points}")
    predicted, surviving = protocol.betti_fraction * cloud.eps_max, protocol.survival_fraction * cloud.eps_max
    raw, survivors = len(cloud.diagram(dimension)), cloud.longer(surviving, dimension)
    return Measurement(
        n_points,
        dimension,
        round(cloud.eps_max, 4),
        round(predicted, 4),
        raw,
        cloud.longer(predicted, dimension),
        round(surviving, 4),
        survivors,
        round(survivors / raw * 100, 1) if raw else 0.0,
        config_fingerprint(protocol),
    )


def survival_curve(
    points: Float[np.ndarray, "point d"] | Cloud, protocol: Protocol = FROZEN_V5, dimension: int = 1
) -> dict[str, Any]:
    """How many bars are longer than each of `n_scale_steps` levels from 0 to the diameter (specification 1.2).

    beta1_raw counts here only the bars that die, unlike that of `measure`.
    """
    cloud = _cloud(points, protocol)
    lifetimes = cloud.lifetimes(dimension)
    levels = np.linspace(0, cloud.eps_max, protocol.n_scale_steps)
    return {
        "eps_max": round(cloud.eps_max, 4),
        "beta1_raw": len(lifetimes),
        "eps_levels": [round(float(level), 4) for level in levels],
        "survival": (len(lifetimes) - np.searchsorted(lifetimes, levels, side="right")).tolist(),
    }


def phi(
    reasoning: Float[np.ndarray, "point_a d"] | Cloud,
    control: Float[np.ndarray, "point_b d"] | Cloud,
    protocol: Protocol = FROZEN_V5,
) -> float | None:
    """Ratio of the (rounded) survival rates of two clouds, None where the second one's is 0 (specification 1.2)."""
    above, below = (measure(points, protocol).survival_rate for points in (reasoning, control))
    return round(above / below, 2) if below > 0 else None


def center_distance(
    a: Float[np.ndarray, "point_a d"] | Cloud, b: Float[np.ndarray, "point_b d"] | Cloud, normalized: bool = True
) -> float:
    """Distance of the means in float32, raw (6 decimals) or over the mean of their norms (4) (specification 1.3).

    Raises:
        StrataError: if the clouds have not the same number of dimensions, or are not finite.
    """
    ours, theirs = (np.asarray(points.points if isinstance(points, Cloud) else points) for points in (a, b))
    _same_dimensions(ours, theirs)
    # the memory layout of the user's array decides in which order float32 sums are taken
    first, second = (np.asarray(points, dtype=np.float32).mean(axis=0) for points in (ours, theirs))
    distance = float(np.linalg.norm(first - second))
    if not normalized:
        return round(distance, 6)
    norm = (np.linalg.norm(first) + np.linalg.norm(second)) / 2
    # rounded in float32, then taken for the decimal number that float32 prints
    return float(str(np.round(np.float32(distance) / norm, 4))) if norm > 0 else 0.0


def bottleneck_distance(
    a: Float[np.ndarray, "point_a d"] | Cloud, b: Float[np.ndarray, "point_b e"] | Cloud, protocol: Protocol = FROZEN_V5
) -> dict[str, float]:
    """Bottleneck distances of H1 (specification 1.3).

    Raw of all bars, filtered of those longer than their cloud's eps_pred, normalized = filtered over the larger
    eps_pred.
    """
    from gudhi.hera import bottleneck_distance as hera

    clouds = _cloud(a, protocol), _cloud(b, protocol)
    predicted = [protocol.betti_fraction * cloud.eps_max for cloud in clouds]
    bars = [cloud.diagram(1) for cloud in clouds]
    long = [some[some[:, 1] - some[:, 0] > least] for some, least in zip(bars, predicted, strict=True)]
    raw, filtered = (float(hera(first, second, delta=0.0)) for first, second in (bars, long))
    largest = max(predicted)
    return {
        "bottleneck_raw": round(raw, 6),
        "bottleneck_filtered": round(filtered, 6),
        "bottleneck_normalized": round(filtered / largest, 4) if largest > 0 else filtered,
        "eps_pred_a": round(predicted[0], 4),
        "eps_pred_b": round(predicted[1], 4),
    }


def union_test(
    a: Float[np.ndarray, "point_a d"] | Cloud,
    b: Float[np.ndarray, "point_b d"] | Cloud,
    protocol: Protocol = FROZEN_V5,
    independent_eps: bool = False,
    same_basis: bool = True,
) -> dict[str, Any]:
    """Betti numbers of two clouds and their union, and what actopo concludes from them (specification 1.3).

    independent_eps: each cloud is measured by its own diameter, else all by that of `a`. The verdict is no test: see
    docs/methods.md, and src/topology/comparisons/two_sample.py for tests.

    Raises:
        StrataError: if the clouds have not the same number of dimensions, or are not finite.
    """
    first, second = _cloud(a, protocol), _cloud(b, protocol)
    _same_dimensions(first.points, second.points)
    if not same_basis and not independent_eps:
        warnings.warn(
            "clouds of different models have scales of their own: with that of the first for both, the verdict can be "
            "a false SHARED (independent_eps=True measures each by its own)",
            stacklevel=2,
        )
    union = Cloud.from_points(np.concatenate([first.points, second.points]), protocol)
    reference = protocol.betti_fraction * first.eps_max
    of_a, of_b, of_union = (
        cloud.longer(protocol.betti_fraction * cloud.eps_max if independent_eps else reference)
        for cloud in (first, second, union)
    )
    largest = max(of_a, of_b)
    return {
        "beta1_a": of_a,
        "beta1_b": of_b,
        "beta1_union": of_union,
        "verdict": union_verdict(of_a, of_b, of_union),
        "overlap_pct": round((of_a + of_b - of_union) / largest * 100, 1) if largest else 0.0,
        "eps_mode": "independent" if independent_eps else f"shared({round(reference, 4)})",
    }


def union_verdict(of_a: int, of_b: int, of_union: int, separate: float = SEPARATE, shared: float = SHARED) -> str:
    """What actopo calls two clouds, by Betti numbers (specification 1.3).

    SEPARATE where the union has `separate` times both numbers or more, else SHARED where it has `shared` times the
    larger or less, else MIXED.
    """
    if of_union >= separate * (of_a + of_b):
        return "SEPARATE"
    return "SHARED" if of_union <= shared * max(of_a, of_b) else "MIXED"


def _cloud(points: Float[np.ndarray, "point d"] | Cloud, protocol: Protocol) -> Cloud:
    if not isinstance(points, Cloud):
        return Cloud.from_points(points, protocol)
    if (points.distances.metric, points.max_dimension) != (protocol.metric, protocol.max_dimension):
        raise StrataError(
            f"this cloud was prepared with metric={points.distances.metric} and max_dimension={points.max_dimension}, "
            f"the protocol has {protocol.metric} and {protocol.max_dimension}: pass its points"
        )
    return points


def _same_dimensions(a: Float[np.ndarray, "point_a d"], b: Float[np.ndarray, "point_b e"]) -> None:
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1]:
        raise StrataError(
            f"clouds of the shapes {a.shape} and {b.shape} have no common coordinates: compare their diagrams "
            "(bottleneck_distance)"
        )
