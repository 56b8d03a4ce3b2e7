"""The files of a topology artifact: written by measure_topology.py, read by comparisons, figures and verification.

clouds.safetensors     the clouds as they came, one array (point, d) each
points.parquet         what each point is: cloud (empty: the same points in all clouds), row, and what is known of it
clouds.json            of each cloud: sizes, scale, curves, intrinsic dimensions, sensitivity to outliers
measures.parquet/json  cloud, statistic, value, band of subsamples, each null model
loops.json             of each cloud its significant loops: points in order, circular coordinates of all points
ablation.parquet/json  cloud, what was varied, its size, statistic, value, band; only if asked for
bars.parquet           cloud, dimension, birth, death, the edges as points (-1: none), p, q and p_null
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from jaxtyping import Float

from src.artifacts import Artifact, disk_errors, write_json
from src.artifacts.tensors import load_tensors, save_tensors
from src.errors import StrataError
from src.report.records import write_records
from src.topology.homology.persistence import Bars, Persistence
from src.topology.loops.loops import Loop
from src.topology.profile import (
    BarTests,
    CloudProfile,
    Curves,
    CycleSummary,
    Interval,
    Measure,
    NullMeasure,
    OutlierSensitivity,
)

CLOUDS = "clouds.safetensors"
POINTS = "points.parquet"
HEADERS = "clouds.json"
MEASURES = "measures"
BARS = "bars.parquet"
ABLATION = "ablation"
LOOPS = "loops.json"

_REMEDY = "remake the artifact"
_HEADER_FIELDS = (
    *("name", "hook", "layer", "n_available", "n_points", "n_dimensions", "n_ambient", "n_duplicates", "scale"),
    *("median_distance", "diameter", "n_subsample", "published", "input_sha256"),
)
_NULL_FIELDS = ("mean", "low", "high", "p", "top")
_TESTS = ("p", "q", "p_null")


@dataclass(frozen=True, eq=False)
class MeasuredCloud:
    """A cloud as it came, what each of its rows is (labels, tokens, texts: by name), and what was found.

    ablation: records of what sizes and PCA do, if asked for.
    """

    profile: CloudProfile
    points: Float[np.ndarray, "available d"]
    table: pa.Table
    ablation: Sequence[Mapping[str, Any]] = ()


@dataclass(frozen=True, eq=False)
class Topology:
    """What one run of measure_topology.py found."""

    artifact: Artifact
    profiles: list[CloudProfile]

    @property
    def protocol(self) -> dict[str, Any]:
        """The protocol of all clouds, with its fingerprint."""
        return self.artifact.meta.identity["protocol"]

    @property
    def model_name(self) -> str | None:
        """The label of the model, None for clouds from files."""
        return self.artifact.meta.summary.get("model")

    def profile(self, name: str) -> CloudProfile:
        """The profile of a cloud by name. Raises StrataError if there is none."""
        for profile in self.profiles:
            if profile.name == name:
                return profile
        known = ", ".join(profile.name for profile in self.profiles)
        raise StrataError(f"{self.artifact.path} has no cloud {name!r}: it has {known}")

    def points(self, name: str) -> Float[np.ndarray, "available d"]:
        """A cloud as it came; `profile.rows` are the points that were analysed. Read from the disk at each call."""
        return load_tensors(self.artifact.path / CLOUDS, _REMEDY, [self.profile(name).name])[name].numpy()

    @cached_property
    def ablation(self) -> list[dict[str, Any]]:
        """What sizes and PCA do; empty if it was not asked for."""
        path = self.artifact.path / f"{ABLATION}.parquet"
        return _read_table(path).to_pylist() if path.exists() else []

    @cached_property
    def _tables(self) -> pa.Table:
        return _read_table(self.artifact.path / POINTS)

    def table(self, name: str) -> pa.Table:
        """What the rows of a cloud are; row i is that of point i."""
        cloud = self._tables.column("cloud").to_pylist()
        own = [row for row, of in enumerate(cloud) if of in (name, "")]
        return self._tables.take(own).drop_columns(["cloud"])


def write_topology(folder: Path, clouds: Sequence[MeasuredCloud], shared_table: bool) -> None:
    """Write all files of the artifact but the report. shared_table: all clouds are of the same points."""
    profiles = [cloud.profile for cloud in clouds]
    with disk_errors(folder):
        save_tensors(folder / CLOUDS, {cloud.profile.name: torch.from_numpy(cloud.points) for cloud in clouds})
        tables = [("", clouds[0].table)] if shared_table else [(cloud.profile.name, cloud.table) for cloud in clouds]
        named = [table.add_column(0, "cloud", pa.array([name] * len(table), pa.string())) for name, table in tables]
        pq.write_table(pa.concat_tables(named, promote_options="default"), folder / POINTS)
        write_json(folder / HEADERS, [header(profile) for profile in profiles])
        write_records(folder / MEASURES, [record for profile in profiles for record in measure_records(profile)])
        pq.write_table(pa.concat_tables([bar_table(profile) for profile in profiles]), folder / BARS)
        if ablation := [dict(record) for cloud in clouds for record in cloud.ablation]:
            write_records(folder / ABLATION, ablation)
        write_json(folder / LOOPS, {cloud.profile.name: loop_records(cloud.profile, cloud.table) for cloud in clouds})


def read_topology(artifact: Artifact) -> Topology:
    """Read what was found for every cloud; the clouds themselves are read when asked for.

    Raises:
        StrataError: a file is missing or damaged.
    """
    folder = artifact.path
    try:
        headers = json.loads((folder / HEADERS).read_text(encoding="utf-8"))
        measures: dict[str, dict[str, Measure]] = {}
        for record in _read_table(folder / f"{MEASURES}.parquet").to_pylist():
            measures.setdefault(record["cloud"], {})[record["statistic"]] = _measure(record)
        bars = _read_table(folder / BARS)
        loops = json.loads((folder / LOOPS).read_text(encoding="utf-8"))
        profiles = [
            _profile(values, measures.get(values["name"], {}), bars, loops[values["name"]]) for values in headers
        ]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StrataError(f"{folder} can't be read ({type(error).__name__}: {error}); {_REMEDY}") from None
    return Topology(artifact, profiles)


def header(profile: CloudProfile) -> dict[str, Any]:
    """All of a profile but its measures and bars, as plain values."""
    curves = profile.curves
    return {
        **{name: getattr(profile, name) for name in _HEADER_FIELDS},
        "backend": profile.persistence.backend,
        "control_h0": [_plain(value) for value in profile.control_h0],
        "rows": None if len(profile.rows) == profile.n_available else profile.rows.tolist(),
        "intrinsic": {name: [_plain(end) for end in vars(found).values()] for name, found in profile.intrinsic.items()},
        "outliers": None if profile.outliers is None else _plain_tree(asdict(profile.outliers)),
        "curves": {
            "scale": curves.scale.tolist(),
            "betti": {str(k): values.tolist() for k, values in curves.betti.items()},
            "survival": {str(k): values.tolist() for k, values in curves.survival.items()},
        },
    }


def measure_records(profile: CloudProfile) -> list[dict[str, Any]]:
    """One record for each statistic: the columns of measures.parquet."""
    return [
        {
            "cloud": profile.name,
            "hook": profile.hook,
            "layer": profile.layer,
            "statistic": name,
            "value": measure.value,
            "low": measure.low,
            "high": measure.high,
            **{f"{null}.{key}": getattr(found, key) for null, found in measure.nulls.items() for key in _NULL_FIELDS},
        }
        for name, measure in profile.statistics.items()
    ]


def bar_table(profile: CloudProfile) -> pa.Table:
    """All bars of a cloud: the columns of bars.parquet. Points of edges are rows of the cloud as it came."""
    parts = []
    for bars in profile.persistence.bars:
        tests, n = profile.tests.get(bars.dimension), len(bars)
        ends = {}
        for name in ("birth_edge", "death_edge"):
            edges = getattr(bars, name)
            known = np.full((n, 2), -1) if edges is None else np.where(edges < 0, -1, profile.rows[edges])
            ends |= {f"{name}_{end}": pa.array(known[:, place], pa.int64()) for place, end in enumerate("ab")}
        unknown = np.full(n, np.nan)
        parts.append(
            pa.table(
                {
                    "cloud": pa.array([profile.name] * n, pa.string()),
                    "dimension": pa.array([bars.dimension] * n, pa.int32()),
                    "birth": pa.array(bars.birth, pa.float64()),
                    "death": pa.array(bars.death, pa.float64()),
                    **ends,
                    **{
                        name: pa.array(unknown if tests is None else getattr(tests, name), pa.float64())
                        for name in _TESTS
                    },
                }
            )
        )
    return pa.concat_tables(parts)


def loop_records(profile: CloudProfile, table: pa.Table) -> list[dict[str, Any]]:
    """The loops of a cloud with what their points are. Points count within the rows that were analysed."""
    if not profile.loops:
        return []
    points = table.take(profile.rows).to_pylist()
    cycles = profile.cycles or [None] * len(profile.loops)
    return [
        loop.as_json(points) | {"cycle": None if cycle is None else _plain_tree(asdict(cycle))}
        for loop, cycle in zip(profile.loops, cycles, strict=True)
    ]


def _measure(record: Mapping[str, Any]) -> Measure:
    nulls: dict[str, dict[str, float]] = {}
    for key, value in record.items():
        null, dot, part = key.partition(".")
        if dot and value is not None:
            nulls.setdefault(null, {})[part] = value
    found = {name: NullMeasure(**values) for name, values in nulls.items()}
    return Measure(*(math.nan if record[key] is None else record[key] for key in ("value", "low", "high")), nulls=found)


def _profile(
    values: dict[str, Any], statistics: dict[str, Measure], bars: pa.Table, loops: Sequence[Mapping[str, Any]]
) -> CloudProfile:
    rows = np.arange(values["n_available"]) if values["rows"] is None else np.array(values["rows"])
    own = bars.filter(pa.array(bars.column("cloud").to_numpy() == values["name"]))
    diagrams, tests = _diagrams(own, rows)
    curves, outliers = values["curves"], values["outliers"]
    return CloudProfile(
        **{name: values[name] for name in _HEADER_FIELDS},
        persistence=Persistence(values["n_points"], diagrams, values["backend"]),
        tests=tests,
        statistics=statistics,
        curves=Curves(
            np.array(curves["scale"]),
            {int(k): np.array(found) for k, found in curves["betti"].items()},
            {int(k): np.array(found) for k, found in curves["survival"].items()},
        ),
        intrinsic={name: Interval(*map(_number, ends)) for name, ends in values["intrinsic"].items()},
        outliers=None
        if outliers is None
        else OutlierSensitivity(
            outliers["n_left_out"],
            {name: (_number(whole), _number(rest)) for name, (whole, rest) in outliers["statistics"].items()},
        ),
        loops=tuple(Loop.from_json(loop) for loop in loops),
        cycles=tuple(_cycle(loop["cycle"]) for loop in loops) if any(loop["cycle"] for loop in loops) else (),
        control_h0=tuple(map(_number, values["control_h0"])),
        rows=rows,
    )


def _cycle(values: Mapping[str, Any] | None) -> CycleSummary | None:
    if values is None:
        return None
    numbers = {name: _number(values[name]) for name in ("p", "p_order", "correlation", "p_correlation")}
    return CycleSummary(in_order=values["in_order"], order=tuple(values["order"]), **numbers)


def _diagrams(table: pa.Table, rows: np.ndarray) -> tuple[tuple[Bars, ...], dict[int, BarTests]]:
    columns = {name: table.column(name).to_numpy() for name in table.column_names if name != "cloud"}
    place = np.full(int(rows.max(initial=0)) + 1, -1)
    place[rows] = np.arange(len(rows))
    diagrams, tests = [], {}
    for dimension in range(int(columns["dimension"].max(initial=-1)) + 1):
        of = columns["dimension"] == dimension
        edges = [np.stack([columns[f"{name}_edge_{end}"][of] for end in "ab"], 1) for name in ("birth", "death")]
        known = [None if (some < 0).all() else np.where(some < 0, -1, place[some]) for some in edges]
        diagrams.append(Bars(dimension, columns["birth"][of], columns["death"][of], *known))
        if dimension:
            tests[dimension] = BarTests(*(columns[name][of] for name in _TESTS))
    return tuple(diagrams), tests


def _read_table(path: Path) -> pa.Table:
    try:
        return pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise StrataError(f"{path} can't be read ({str(error).splitlines()[0]}); {_REMEDY}") from None


def _plain(value: float) -> float | str:
    return value if math.isfinite(value) else str(float(value))


def _plain_tree(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain_tree(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain_tree(item) for item in value]
    return _plain(value) if isinstance(value, float) else value


def _number(value: float | str) -> float:
    return float(value)
