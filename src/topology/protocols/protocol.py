"""Protocols: every number that decides how a cloud is measured, under one name and one fingerprint.

The numbers of the published protocols live here and nowhere else. configs/protocol/NAME.yaml names one of them, and
may change single keys of it.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property
from typing import Any, Literal, Self, get_args

from src.config.schema import fingerprint
from src.errors import StrataError
from src.topology.homology.distances import Distances

Scale = Literal["diameter", "median", "quantile_99"]
Sampling = Literal["uniform", "multiscale", "adaptive", "farthest"]
Arithmetic = Literal["float64", "actopo", "todacomm"]


@dataclass(frozen=True)
class Protocol:
    """How a cloud is measured.

    Which tokens make up the cloud, on what device, from which seed points are drawn: the stage's affair, not here.

    Attributes:
        name: of the protocol that this is, or was changed from; not part of the fingerprint.
        metric: of the distances.
        scale: the length that fractions are of: the largest, the median or the 99th percentile distance of two points.
        betti_fraction: a bar counts for a Betti number if it is longer than this fraction of the scale.
        survival_fraction: a bar survives if it is longer than this fraction of the scale.
        max_dimension: the highest dimension of homology.
        n_scale_steps: thresholds of the survival and Betti curves.
        pca_components: principal components that the cloud is reduced to before anything else; None = off.
        max_points: a larger cloud is sampled down to this many points, after PCA; None = never.
        sampling: how those points are chosen (src/topology/protocols/sampling.py).
        arithmetic: float64 throughout, or the float32 steps, the rounding and the conventions of a package whose
            published numbers are to be met (src/topology/protocols/frozen_v5.py, todacomm.py).
    """

    name: str
    metric: Literal["euclidean", "cosine"] = "euclidean"
    scale: Scale = "median"
    betti_fraction: float = 0.06
    survival_fraction: float = 0.02
    max_dimension: int = 1
    n_scale_steps: int = 50
    pca_components: int | None = None
    max_points: int | None = None
    sampling: Sampling = "uniform"
    arithmetic: Arithmetic = "float64"

    def __post_init__(self) -> None:
        for key, known in {
            "metric": ("euclidean", "cosine"),
            "scale": get_args(Scale),
            "sampling": get_args(Sampling),
            "arithmetic": get_args(Arithmetic),
        }.items():
            if getattr(self, key) not in known:
                raise StrataError(f"protocol.{key}={getattr(self, key)} is not known: it is one of {', '.join(known)}")
        for key in ("betti_fraction", "survival_fraction"):
            if not 0 < getattr(self, key) < 1:
                raise StrataError(f"protocol.{key}={getattr(self, key)} is a fraction of the scale: between 0 and 1")
        for key, least in {"max_dimension": 0, "n_scale_steps": 2, "pca_components": 1, "max_points": 3}.items():
            value = getattr(self, key)
            if value is not None and value < least:
                raise StrataError(f"protocol.{key}={value} is too small: it is {least} or more")
        if self.sampling != "uniform" and self.max_points is None:
            raise StrataError(
                f"protocol.sampling={self.sampling} chooses protocol.max_points points: say how many, "
                "or leave protocol.sampling=uniform"
            )
        if self.arithmetic == "actopo" and self.scale != "diameter":
            raise StrataError(
                f"protocol={self.name} means the diameter of the cloud: protocol.scale={self.scale} goes with "
                "protocol=robust"
            )
        if self.arithmetic == "todacomm" and self.sampling == "farthest":
            raise StrataError(f"protocol={self.name} knows no farthest-point sampling: use protocol=robust for it")

    @cached_property
    def fingerprint(self) -> str:
        """12 hex digits of the sha256 over all that changes numbers: everything but the name."""
        return fingerprint({key: value for key, value in asdict(self).items() if key != "name"})[:12]

    @property
    def changes(self) -> dict[str, Any]:
        """What differs from the published protocol of this name."""
        published = PROTOCOLS[self.name]
        own = {field.name: getattr(self, field.name) for field in fields(self)}
        return {key: value for key, value in own.items() if value != getattr(published, key)}

    @property
    def title(self) -> str:
        """The name, and what was changed."""
        changed = ", ".join(f"{key}={'none' if value is None else value}" for key, value in self.changes.items())
        return f"{self.name} with {changed}" if changed else self.name

    def changed(self, changes: Mapping[str, Any]) -> Self:
        """This protocol with other values of some fields.

        Raises:
            StrataError: if a value is not possible.
        """
        return replace(self, **changes)

    def scale_of(self, distances: Distances) -> float:
        """The length that the fractions are of; 0 where all points coincide."""
        if self.scale == "diameter":
            return distances.diameter
        return distances.median if self.scale == "median" else distances.quantile(0.99)


# 0.06 and 0.02 of the median distance are 0.03 and 0.01 of a diameter of twice the median (2.3 and 1.7 times on the
# clouds of actopo), but a few outliers do not move them.
ROBUST = Protocol("robust")

# actopo 0.1.0, FROZEN_V5 (PyPI; specification 1.1)
FROZEN_V5 = Protocol("frozen_v5", scale="diameter", betti_fraction=0.03, survival_fraction=0.01, arithmetic="actopo")

# todacomm 0.1.0, what its pipeline passes to TDAConfig (PyPI; specification 2.1, 2.4). It has no thresholds: those of
# `robust` stand in for them.
TODACOMM = Protocol("todacomm", pca_components=50, max_points=500, arithmetic="todacomm")

PROTOCOLS = {protocol.name: protocol for protocol in (ROBUST, FROZEN_V5, TODACOMM)}


def published(name: str) -> Protocol:
    """The protocol of this name.

    Raises:
        StrataError: if there is none.
    """
    if name not in PROTOCOLS:
        raise StrataError(f"protocol={name} is not known: it is one of {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]
