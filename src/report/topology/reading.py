"""Topology artifacts, read: what one run of measure_topology.py found."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float

from src.artifacts import Artifact
from src.artifacts.tensors import load_tensors
from src.errors import StrataError
from src.report.topology.files import (
    ABLATION,
    BARS,
    CLOUDS,
    HEADER_FIELDS,
    HEADERS,
    LOOPS,
    MEASURES,
    POINTS,
    TESTS,
    VECTORS,
)
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

_REMEDY = "remake the artifact"


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

    def vectors(self, name: str) -> dict[str, Float[np.ndarray, "..."]]:
        """A cloud's landscapes (landscape, sample) and images (lifetime, birth), by `h1_landscapes`, `h1_image`, ..."""
        prefix = f"{self.profile(name).name}/"
        path = self.artifact.path / VECTORS
        found = load_tensors(path, _REMEDY) if path.exists() else {}
        return {key.removeprefix(prefix): each.numpy() for key, each in found.items() if key.startswith(prefix)}

    @cached_property
    def _tables(self) -> pa.Table:
        return _read_table(self.artifact.path / POINTS)

    def table(self, name: str) -> pa.Table:
        """What the rows of a cloud are; row i is that of point i."""
        cloud = self._tables.column("cloud").to_pylist()
        own = [row for row, of in enumerate(cloud) if of in (name, "")]
        return self._tables.take(own).drop_columns(["cloud"])


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
        **{name: values[name] for name in HEADER_FIELDS},
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
            tests[dimension] = BarTests(*(columns[name][of] for name in TESTS))
    return tuple(diagrams), tests


def _read_table(path: Path) -> pa.Table:
    try:
        return pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise StrataError(f"{path} can't be read ({str(error).splitlines()[0]}); {_REMEDY}") from None


def _number(value: float | str) -> float:
    return float(value)
