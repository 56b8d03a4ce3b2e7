"""measure_topology.py from a config to numbers: clouds, protocol and settings; the profile of every cloud."""

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from src.artifacts import Parent, label
from src.config.topology import TopologyConfig
from src.errors import StrataError
from src.report.topology_files import MeasuredCloud
from src.stage.context import Stage
from src.stage.topology.cloud import Cloud, CloudSource
from src.stage.topology.sources import find_source
from src.topology.profiling import ProfileSettings, profile_cloud
from src.topology.protocol import Protocol, published

# a cloud of fewer points than this says little of loops
FEW_POINTS = 50


@dataclass(frozen=True, eq=False)
class TopologyWork:
    """All that measuring needs."""

    config: TopologyConfig
    source: CloudSource
    protocol: Protocol

    @property
    def label(self) -> str:
        """Of the artifact."""
        return label(*self.source.words, *([] if self.protocol.name == "robust" else [self.protocol.name]))

    @property
    def parents(self) -> list[Parent]:
        """The artifacts that the clouds come from."""
        return self.source.parents

    def identity(self) -> dict[str, Any]:
        """What decides the numbers beside the parents, for the fingerprint."""
        config = self.config
        settings = config.model_dump(
            mode="json", include={"subsamples", "nulls", "ablation", "backend", "level", "seed"}
        )
        if not config.random_init_control:
            settings["nulls"].pop("random_models")
        return {
            "source": self.source.identity(),
            "protocol": protocol_values(self.protocol),
            "random_init_control": config.random_init_control,
            **settings,
        }

    def summary(self) -> dict[str, Any]:
        """What readers of the artifact should know without opening it."""
        return {
            "model": self.source.model_name,
            "source": self.source.describe(),
            "shares_points": self.source.shares_points,
            "protocol": self.protocol.title,
            "protocol_fingerprint": self.protocol.fingerprint,
        }


def protocol_values(protocol: Protocol) -> dict[str, Any]:
    """A protocol and its fingerprint as plain values."""
    return {**asdict(protocol), "fingerprint": protocol.fingerprint}


def protocol_of(values: dict[str, Any]) -> Protocol:
    """The inverse of `protocol_values`. Raises StrataError if the fingerprint is another one's."""
    fields = {name: value for name, value in values.items() if name != "fingerprint"}
    try:
        protocol = Protocol(**fields)
    except TypeError as error:
        raise StrataError(f"the protocol can't be read: {error}") from None
    if protocol.fingerprint != values.get("fingerprint"):
        raise StrataError(f"the protocol's fingerprint is {protocol.fingerprint}, not {values.get('fingerprint')}")
    return protocol


def prepare(config: TopologyConfig, stage: Stage) -> TopologyWork:
    """Find the source of clouds and the protocol; nothing is computed yet.

    Raises:
        StrataError: what is not there or does not fit, a protocol that is not possible.
    """
    protocol = published(config.protocol.name).changed(config.protocol.changes())
    return TopologyWork(config, find_source(config, stage), protocol)


def settings_of(config: TopologyConfig, clouds: Sequence[Cloud], protocol: Protocol) -> ProfileSettings:
    """How clouds of a run are measured: bands are of as many points for all of them."""
    smallest = min(len(cloud.points) for cloud in clouds)
    if protocol.max_points is not None:
        smallest = min(smallest, protocol.max_points)
    return ProfileSettings(
        backend=config.backend,
        check=config.check,
        memory_limit=None if config.memory_gb is None else int(config.memory_gb * 2**30),
        n_subsample=max(3, round(config.subsamples.share * smallest)) if config.subsamples.draws else None,
        subsample_draws=config.subsamples.draws,
        nulls=tuple(config.nulls.models),
        null_draws=config.nulls.draws,
        workers=config.threads or min(os.cpu_count() or 1, 8),
    )


def measure(work: TopologyWork, stage: Stage) -> list[MeasuredCloud]:
    """Read the clouds and measure each of them.

    Raises:
        StrataError: a cloud with values that are not finite, of fewer than 3 points, or too large for the memory.
    """
    clouds = work.source.read(stage)
    for cloud in clouds:
        if len(cloud.points) < 3:
            raise StrataError(
                f"{cloud.name} has {len(cloud.points)} points, and a cloud needs 3 or more: take other tokens"
            )
    fewest = min(len(cloud.points) for cloud in clouds)
    if fewest < FEW_POINTS:
        stage.warn(f"only {fewest} points: counts of loops of so small a cloud are mostly chance; look at the bands")
    settings = settings_of(work.config, clouds, work.protocol)
    found = []
    with stage.progress("measuring", len(clouds), "clouds") as advance:
        for cloud in clouds:
            profile = profile_cloud(
                cloud.points,
                work.protocol,
                settings,
                work.config.seed,
                name=cloud.name,
                hook=cloud.hook,
                layer=cloud.layer,
                groups=cloud.groups,
                sequences=cloud.sequences,
                random=cloud.random,
            )
            found.append(MeasuredCloud(profile, cloud.points, cloud.table))
            advance(1)
    return found
