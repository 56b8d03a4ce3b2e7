"""The files of a topology artifact: as measure_topology.py writes them (reading.py reads them).

clouds.safetensors     the clouds as they came, one array (point, d) each
points.parquet         what each point is: cloud (empty: the same points in all clouds), row, and what is known of it
clouds.json            of each cloud: sizes, scale, curves, intrinsic dimensions, sensitivity to outliers
measures.parquet/json  cloud, statistic, value, band of subsamples, each null model
loops.json             of each cloud its significant loops: points in order, circular coordinates of all points
ablation.parquet/json  cloud, what was varied, its size, statistic, value, band; only if asked for
bars.parquet           cloud, dimension, birth, death, the edges as points (-1: none), p, q and p_null
vectors.safetensors    landscapes and persistence images of each cloud, on one grid in units of the scale
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from jaxtyping import Float

from src.artifacts import disk_errors, write_json
from src.artifacts.tensors import save_tensors
from src.report.records import write_records
from src.topology.measures.vectorised import vectorised
from src.topology.profile import (
    CloudProfile,
)

CLOUDS = "clouds.safetensors"
POINTS = "points.parquet"
HEADERS = "clouds.json"
MEASURES = "measures"
BARS = "bars.parquet"
ABLATION = "ablation"
LOOPS = "loops.json"
VECTORS = "vectors.safetensors"

HEADER_FIELDS = (
    *("name", "hook", "layer", "n_available", "n_points", "n_dimensions", "n_ambient", "n_duplicates", "scale"),
    *("median_distance", "diameter", "n_subsample", "published", "input_sha256"),
)
_NULL_FIELDS = ("mean", "low", "high", "p", "top")
TESTS = ("p", "q", "p_null")


@dataclass(frozen=True, eq=False)
class MeasuredCloud:
    """A cloud as it came, what each of its rows is (labels, tokens, texts: by name), and what was found.

    ablation: records of what sizes and PCA do, if asked for.
    """

    profile: CloudProfile
    points: Float[np.ndarray, "available d"]
    table: pa.Table
    ablation: Sequence[Mapping[str, Any]] = ()


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
        if vectors := {name: found for profile in profiles for name, found in vectors_of(profile).items()}:
            save_tensors(folder / VECTORS, {name: torch.from_numpy(found) for name, found in vectors.items()})


def header(profile: CloudProfile) -> dict[str, Any]:
    """All of a profile but its measures and bars, as plain values."""
    curves = profile.curves
    return {
        **{name: getattr(profile, name) for name in HEADER_FIELDS},
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
                        for name in TESTS
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


def vectors_of(profile: CloudProfile) -> dict[str, Float[np.ndarray, "..."]]:
    """Landscapes and images of a cloud's diagrams, by name; none where the scale is 0, which has no unit of length."""
    if not profile.scale > 0:
        return {}
    found: dict[str, Float[np.ndarray, ...]] = {}
    for each in vectorised(profile.persistence, profile.scale):
        found[f"{profile.name}/h{each.dimension}_landscapes"] = np.ascontiguousarray(each.landscapes)
        if each.image is not None:
            found[f"{profile.name}/h{each.dimension}_image"] = np.ascontiguousarray(each.image)
    return found


def _plain(value: float) -> float | str:
    return value if math.isfinite(value) else str(float(value))


def _plain_tree(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain_tree(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain_tree(item) for item in value]
    return _plain(value) if isinstance(value, float) else value
