"""measure_topology.py from a config to numbers: clouds, protocol and settings; the profile of every cloud."""

import os
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Float, Int
from threadpoolctl import threadpool_limits

from src.artifacts import Parent, label
from src.config.topology import TopologyConfig
from src.errors import StrataError
from src.report.topology.files import MeasuredCloud
from src.stage.context import Stage
from src.stage.topology.ablating import ablation_records
from src.stage.topology.cloud import Cloud, CloudSource
from src.stage.topology.sources import find_source
from src.topology.profile import CloudProfile
from src.topology.profiling import ProfileSettings, profile_cloud
from src.topology.protocols.protocol import Protocol, published

FEWEST_POINTS = 3
FEWEST_LABELS = 4  # of a cycle: any order of three is in order
# a cloud of fewer points than this says little of loops
FEW_POINTS = 50
_MOST_WORKERS = 8


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
            mode="json", include={"subsamples", "nulls", "ablation", "backend", "level", "seed", "cyclic_labels"}
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


def settings_of(identity: Mapping[str, Any], sizes: Sequence[int], protocol: Protocol) -> ProfileSettings:
    """How the clouds of a run are measured: bands are of as many points for all of them.

    identity: the keys of the config that decide it. sizes: numbers of points of the clouds as they came.
    """
    smallest = min(sizes) if protocol.max_points is None else min(*sizes, protocol.max_points)
    subsamples, nulls = identity["subsamples"], identity["nulls"]
    return ProfileSettings(
        backend=identity["backend"],
        n_subsample=max(3, round(subsamples["share"] * smallest)) if subsamples["draws"] else None,
        subsample_draws=subsamples["draws"],
        nulls=tuple(nulls["models"]),
        null_draws=nulls["draws"],
        level=identity["level"],
        cyclic=identity["cyclic_labels"],
    )


def groups_of(table: pa.Table) -> tuple[Int[np.ndarray, "point"] | None, Int[np.ndarray, "point"] | None]:
    """The label of each point, and the text that it is of where several points are of one text; None where unknown."""
    labels = sequences = None
    if "label_index" in table.column_names:
        index = table.column("label_index").to_numpy()
        labels = index if len(np.unique(index)) > 1 else None
        sequence = table.column("sequence").to_numpy()
        is_single = bool((table.column("n_tokens").to_numpy() == 1).all())
        sequences = sequence if is_single and len(np.unique(sequence)) < len(sequence) else None
    return labels, sequences


def measure(work: TopologyWork, stage: Stage) -> list[MeasuredCloud]:
    """Read the clouds and measure each of them.

    Raises:
        StrataError: a cloud with values that are not finite, of fewer than 3 points, or too large for the memory.
    """
    clouds = work.source.read(stage)
    for cloud in clouds:
        if len(cloud.points) < FEWEST_POINTS:
            raise StrataError(
                f"{cloud.name} has {len(cloud.points)} points, and a cloud needs {FEWEST_POINTS}: take other tokens"
            )
    config, sizes = work.config, [len(cloud.points) for cloud in clouds]
    if min(sizes) < FEW_POINTS and config.contexts != "all":
        stage.warn(f"only {min(sizes)} points: loops of so small a cloud are mostly chance; look at bands and nulls")
    if config.cyclic_labels:
        _refuse_short_cycle(clouds[0].table)
    settings = replace(
        settings_of(work.identity(), sizes, work.protocol),
        check=config.check,
        memory_limit=None if config.memory_gb is None else int(config.memory_gb * 2**30),
        workers=n_workers(config.threads),
    )
    found = []
    with one_blas_thread(), stage.progress("measuring", len(clouds), "clouds") as advance:
        for cloud in clouds:
            profile = profile_table(cloud.points, cloud.table, work.protocol, settings, config.seed, cloud)
            sequences = groups_of(cloud.table)[1]
            ablation = ablation_records(
                cloud.name, cloud.points, sequences, work.protocol, config.ablation, config.seed, settings.workers
            )
            found.append(MeasuredCloud(profile, cloud.points, cloud.table, ablation))
            advance(1)
    return found


def _refuse_short_cycle(table: pa.Table) -> None:
    labels = groups_of(table)[0]
    n_labels = 0 if labels is None else len(np.unique(labels))
    if n_labels < FEWEST_LABELS:
        raise StrataError(
            f"cyclic_labels=true: there are {n_labels} labels, and any order of fewer than {FEWEST_LABELS} is in order"
        )


def one_blas_thread() -> AbstractContextManager[Any]:
    """Draws are spread over threads, each with a BLAS of one: matrices are small, and bits don't depend on cores."""
    return threadpool_limits(1, user_api="blas")


def n_workers(threads: int | None) -> int:
    """Threads that draw null models and subsamples."""
    return min(threads or os.cpu_count() or 1, _MOST_WORKERS)


def profile_table(
    points: Float[np.ndarray, "point d"],
    table: pa.Table,
    protocol: Protocol,
    settings: ProfileSettings,
    seed: int,
    place: Cloud | CloudProfile,
) -> CloudProfile:
    """The profile of a cloud whose rows a table tells of; `place` has its name, hook and layer.

    Raises:
        StrataError: as `profile_cloud`, with the cloud's name.
    """
    groups, sequences = groups_of(table)
    try:
        return profile_cloud(
            points,
            protocol,
            settings,
            seed,
            name=place.name,
            hook=place.hook,
            layer=place.layer,
            groups=groups,
            sequences=sequences,
            random=place.random if isinstance(place, Cloud) else (),
        )
    except StrataError as error:
        raise StrataError(f"{place.name}: {error}") from None
