"""Is what a topology artifact tells what its clouds give? Everything is computed again from the stored clouds."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from src.artifacts import Artifact
from src.errors import StrataError
from src.report.artifact_report import read_report
from src.report.tables import Table, cell_text
from src.report.topology.files import (
    CLOUDS,
    HEADERS,
    LOOPS,
    MEASURES,
    VECTORS,
    bar_table,
    header,
    loop_records,
    measure_records,
    vectors_of,
)
from src.report.topology.profiles import topology_metrics
from src.report.topology.reading import Topology, read_topology
from src.stage.topology.measuring import n_workers, one_blas_thread, profile_table, protocol_of, settings_of
from src.stage.topology.showing import report_tables
from src.topology.profile import CloudProfile, cloud_sha256
from src.topology.protocols.protocol import Protocol

# what another machine's arithmetic may change of a number
TOLERANCE = 1e-5
# of each file so many differences are told
_TOLD = 5
# a null of models with random weights, whose clouds are not kept
_NOT_KEPT = "random_init"
_KEPT = {"control_h0": None}


def differences(artifact: Artifact) -> list[str]:
    """One line for each number, protocol or input that is not what its clouds give.

    Tokens and texts of points, and statistics of models with random weights, can't be computed from the clouds: for
    these, the checksums stand alone.
    """
    identity = artifact.meta.identity
    try:
        protocol = protocol_of(identity["protocol"])
        stored = read_topology(artifact)
        clouds = {profile.name: stored.points(profile.name) for profile in stored.profiles}
    except StrataError as error:
        return [str(error)]
    except (KeyError, TypeError) as error:
        return [f"meta.json: its settings can't be read ({type(error).__name__}: {error})"]
    changed = [name for name, points in clouds.items() if cloud_sha256(points) != stored.profile(name).input_sha256]
    if changed:
        return [f"{CLOUDS}: {name} is not the cloud that was measured (sha256)" for name in changed]
    settings = settings_of(identity, [len(points) for points in clouds.values()], protocol)
    settings = replace(settings, workers=n_workers(None))
    problems = _of_report(artifact, stored, protocol, identity["level"])
    for profile in stored.profiles:
        table = stored.table(profile.name)
        with one_blas_thread():
            fresh = profile_table(clouds[profile.name], table, protocol, settings, identity["seed"], profile)
        problems += _of_cloud(profile, fresh, table) + _of_vectors(stored, fresh)
    return problems


def _of_cloud(stored: CloudProfile, fresh: CloudProfile, table: Any) -> list[str]:
    pairs = (
        (HEADERS, header(stored) | _KEPT, header(fresh) | _KEPT),
        (f"{MEASURES}.parquet", _measures(stored), _measures(fresh)),
        ("bars.parquet", bar_table(stored).to_pydict(), bar_table(fresh).to_pydict()),
        (LOOPS, loop_records(stored, table), loop_records(fresh, table)),
    )
    return [line for file, there, here in pairs for line in _told(f"{file}: {stored.name}", there, here)]


def _of_vectors(stored: Topology, fresh: CloudProfile) -> list[str]:
    there, here = stored.vectors(fresh.name), vectors_of(fresh)
    expected = {name.removeprefix(f"{fresh.name}/"): each for name, each in here.items()}
    return _told(
        f"{VECTORS}: {fresh.name}",
        {name: each.tolist() for name, each in there.items()},
        {name: each.tolist() for name, each in expected.items()},
    )


def _measures(profile: CloudProfile) -> dict[str, dict[str, Any]]:
    return {
        record["statistic"]: {key: value for key, value in record.items() if not key.startswith(_NOT_KEPT)}
        for record in measure_records(profile)
    }


def _of_report(artifact: Artifact, stored: Topology, protocol: Protocol, level: float) -> list[str]:
    """Whether the report's tables and the summary are of the numbers in the files."""
    there = read_report(artifact.path).tables
    of_points = {profile.name: stored.table(profile.name) for profile in stored.profiles}
    main, details = report_tables(stored.profiles, of_points, stored.ablation, level)
    here = [*main, *details]
    problems = _told("report.json", [_text(table) for table in there], [_text(table) for table in here])
    summary = artifact.meta.summary
    metrics = {name: value for name, value in topology_metrics(stored.profiles, level).items() if math.isfinite(value)}
    told = {key: summary.get(key) for key in ("protocol", "protocol_fingerprint")}
    problems += _told(
        "meta.json: summary", told, {"protocol": protocol.title, "protocol_fingerprint": protocol.fingerprint}
    )
    return problems + _told("meta.json: metrics", summary.get("metrics"), metrics)


def _text(table: Table) -> dict[str, Any]:
    rows = [[f"{cell_text(cell).text} {cell_text(cell).interval}".strip() for cell in row] for row in table.rows]
    return {"title": table.title, "columns": list(table.columns), "rows": rows}


def _told(where: str, there: Any, here: Any) -> list[str]:
    found = list(_differing(there, here, ""))
    lines = [
        f"{where}{place}: {_short(old)} is there, and {_short(new)} comes out" for place, old, new in found[:_TOLD]
    ]
    return lines + ([f"{where}: and {len(found) - _TOLD} more differences"] if len(found) > _TOLD else [])


def _differing(there: Any, here: Any, place: str) -> Iterator[tuple[str, Any, Any]]:
    """(place, stored, computed) of each leaf that differs by more than rounding."""
    if isinstance(there, Mapping) and isinstance(here, Mapping):
        for key in dict.fromkeys([*there, *here]):
            yield from _differing(there.get(key), here.get(key), f"{place} {key}")
    elif isinstance(there, Sequence) and isinstance(here, Sequence) and not isinstance(there, str):
        if len(there) != len(here):
            yield f"{place} length", len(there), len(here)
        elif place.endswith(" turns"):
            # a circle has no end: 0 and 1 are one place
            yield from ((place, a, b) for a, b in zip(there, here, strict=True) if not _same_turn(a, b))
        else:
            for index, (old, new) in enumerate(zip(there, here, strict=True)):
                yield from _differing(old, new, f"{place}[{index}]")
    elif not _same(there, here):
        yield place, there, here


def _same(there: Any, here: Any) -> bool:
    if isinstance(there, int | float) and isinstance(here, int | float):
        return bool(np.isclose(there, here, rtol=TOLERANCE, atol=1e-12, equal_nan=True))
    return there == here


def _same_turn(there: float | None, here: float | None) -> bool:
    if there is None or here is None:
        return there is here
    return abs((there - here + 0.5) % 1 - 0.5) < 10 * TOLERANCE


def _short(value: Any) -> str:
    text = f"{value:.6g}" if isinstance(value, float) else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
