"""The numbers of analysis=simplices as plain values: JSON and records."""

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from src.geometry.simplices.joint import Correlation, JointStatistics
from src.geometry.simplices.profile import SimplexProfile


def space_key(name: str) -> str:
    """How a space is called in JSON: input, output, layer_3."""
    return name.removesuffix(" embeddings").replace(" ", "_")


def profile_values(profile: SimplexProfile) -> dict[str, Any]:
    """Every scalar of one space."""
    scalars = ("n_points", "n_non_finite", "n_pool", "n_copies", "k", "effective_dimension", "log_norm_std")
    values: dict[str, Any] = {name: getattr(profile, name) for name in scalars}
    values |= {
        "cv": asdict(profile.cv),
        "gaussian_cv": profile.gaussian_cv,
        "predicted_cv": profile.predicted_cv,
        "excess_over_formula": asdict(profile.excess_over_formula),
        "volumes": asdict(profile.volumes),
        "nulls": {name: asdict(found) for name, found in profile.nulls.items()},
    }
    return finite(values)


def joint_values(found: JointStatistics) -> dict[str, Any]:
    """Every scalar of two spaces."""
    kinds: Mapping[str, Correlation] = {
        "volumes": found.volumes,
        "log_volumes": found.log_volumes,
        "beyond_norms": found.beyond_norms,
    }
    counts = {"n_simplices": found.n_simplices, "n_joint": found.n_joint, "n_pool": found.n_pool}
    return finite(counts | {name: asdict(correlation) for name, correlation in kinds.items()})


def null_records(name: str, profile: SimplexProfile) -> list[dict[str, Any]]:
    """One record for each null of a space."""
    records = []
    for null, found in profile.nulls.items():
        record: dict[str, Any] = {"space": space_key(name), "null": null, "draws": len(found.draws)}
        for field in ("cv", "ratio", "excess"):
            estimate = getattr(found, field)
            record |= {field: estimate.value, f"{field}_low": estimate.low, f"{field}_high": estimate.high}
        records.append(record | {"p": found.p})
    return records


def percentile_records(name: str, profile: SimplexProfile) -> list[dict[str, Any]]:
    """One record for each percentile of log volumes of a space."""
    return [
        {"space": space_key(name), "percentile": percent, "log_volume": value}
        for percent, value in profile.volumes.log_percentiles.items()
    ]


def finite(value: Any) -> Any:
    """Nested values for JSON, which has no NaN: null in its place; keys become words."""
    if isinstance(value, Mapping):
        return {str(key): finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
