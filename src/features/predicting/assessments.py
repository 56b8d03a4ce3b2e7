"""What the calibration metrics of a feature amount to in words, and the summary over features, as in the reference.

Where it differs (docs/methods.md): what was not measured is None and in no count or mean, "moderate" bias is a count of
its own, the score of the whole is over all five assessments, and medians stand beside means that one feature can carry
off.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

_RATIO_BOUNDS = (("excellent", 0.9, 1.1), ("good", 0.8, 1.25), ("fair", 0.6, 1.67))
_RELATIVE_BOUNDS = (("excellent", 0.2), ("good", 0.5), ("fair", 1.0))
_LOG_BOUNDS = (("excellent", 0.1), ("good", 0.5), ("fair", 1.0))
_BIAS_BOUNDS = (("minimal", 0.1), ("moderate", 0.3))
GRADES = ("excellent", "good", "fair", "poor")
_GRADE_OF_BIAS = {"minimal": "excellent", "moderate": "good", "significant": "poor"}
_WORTH = {"excellent": 1.0, "good": 0.7}
ASSESSMENTS = ("rms", "magnitude", "bias", "precision", "consistency")


def assess(metrics: Mapping[str, float | None]) -> dict[str, str]:
    """`rms_assessment`, `magnitude_assessment`, ... of one feature; what can't be told is left out."""
    rms, magnitude = _known(metrics, "rms_ratio"), _known(metrics, "mean_abs_ratio")
    mean, relative, log = (_known(metrics, name) for name in ("mean_ratio", "rel_error_mean", "log_mse_ratio"))
    found: dict[str, str] = {}
    for name, ratio in (("rms", rms), ("magnitude", magnitude)):
        if ratio is not None:
            fitting = (word for word, low, high in _RATIO_BOUNDS if low <= ratio <= high)
            found[f"{name}_assessment"] = next(fitting, "poor")
    if mean is not None:
        found["bias_assessment"] = next((word for word, end in _BIAS_BOUNDS if abs(mean - 1) < end), "significant")
        if found["bias_assessment"] == "significant":
            found["bias_direction"] = "overestimation" if mean > 1 else "underestimation"
    for name, error, bounds in (("precision", relative, _RELATIVE_BOUNDS), ("consistency", log, _LOG_BOUNDS)):
        if error is not None:
            found[f"{name}_assessment"] = next((word for word, end in bounds if error < end), "poor")
    return found


def _known(metrics: Mapping[str, float | None], name: str) -> float | None:
    value = metrics.get(name)
    return value if value is not None and math.isfinite(value) else None


def calibration_summary(records: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The summary over all features (of one pair or of several): the reference's keys, and a few more.

    records: of each feature its metrics, `feature_never_activated`, `activation_count`, `activation_rate`,
    `total_samples`, and the assessments as `calib_interpretation`. Those without metrics (never active, or once) are
    only counted.
    """
    records = list(records)
    scored = [record for record in records if _known(record, "rms_ratio") is not None]
    lists = {
        f"{name}s": [record[key] for record in scored]
        for name, key in (
            ("rms_ratio", "rms_ratio"), ("mean_abs_ratio", "mean_abs_ratio"), ("rel_error", "rel_error_mean"),
            ("log_mse_ratio", "log_mse_ratio"),
        )
    }  # fmt: skip
    words = [record["calib_interpretation"] for record in scored]
    by_kind = {kind: _count(words, f"{kind}_assessment") for kind in ASSESSMENTS}
    directions = [each.get("bias_direction", each.get("bias_assessment")) for each in words]
    of_bias = ("overestimation", "underestimation", "minimal", "moderate")
    summary: dict[str, Any] = {
        **lists,
        "assessments": {grade: by_kind["rms"].get(grade, 0) for grade in GRADES},
        "assessments_by_kind": by_kind,
        "bias_directions": {word: directions.count(word) for word in of_bias},
        "activation_summary": _activation_summary(records),
    }
    for name in ("rms_ratio", "mean_abs_ratio", "rel_error", "log_mse_ratio"):
        values = [value for value in lists[f"{name}s"] if value is not None and math.isfinite(value)]
        if values:
            summary[f"{name}_mean"], summary[f"{name}_std"] = float(np.mean(values)), float(np.std(values))
            summary[f"{name}_median"] = float(np.median(values))
    if scored:
        scores = {kind: quality(counts) for kind, counts in by_kind.items()}
        summary["overall_quality_score"] = float(np.mean(list(scores.values())))
        summary["overall_quality_score_rms"] = scores["rms"]
    return summary


def quality(counts: Mapping[str, int]) -> float:
    """Share of excellent (of bias: minimal) assessments and 0.7 of the share of good (moderate) ones; NaN of none."""
    total = sum(counts.values())
    return sum(_WORTH.get(_GRADE_OF_BIAS.get(word, word), 0.0) * n for word, n in counts.items()) / (total or math.nan)


def _count(words: Sequence[Mapping[str, str]], key: str) -> dict[str, int]:
    found = [each[key] for each in words if key in each]
    return {word: found.count(word) for word in dict.fromkeys(found)}


def _activation_summary(records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    rates = [record["activation_rate"] for record in records]
    never = sum(record["feature_never_activated"] for record in records)
    summary: dict[str, Any] = {
        "total_features": len(records),
        "never_activated_features": never,
        "activated_features": len(records) - never,
        "activation_rates": rates,
        "activation_counts": [record["activation_count"] for record in records],
        "total_samples": max((record["total_samples"] for record in records), default=0),
    }
    if rates:
        of = {"mean": np.mean, "std": np.std, "median": np.median, "min": np.min, "max": np.max}
        summary |= {f"{name}_activation_rate": float(function(rates)) for name, function in of.items()}
        summary |= {
            "activation_rate_units": "ratio",
            "always_active_features": sum(rate >= 0.99 for rate in rates),
            "often_active_features": sum(0.5 <= rate < 0.99 for rate in rates),
            "sometimes_active_features": sum(0.01 < rate < 0.5 for rate in rates),
            "rarely_active_features": sum(0 < rate <= 0.01 for rate in rates),
        }
    return summary
