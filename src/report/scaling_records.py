"""The files of a `scaling` artifact: every number of a scaling study, as CSV, parquet and JSON."""

import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from src.report.records import write_csv, write_records
from src.transport.closed_form import ClosedFormScore
from src.transport.jackknife import JackknifeScore, jackknife_estimate
from src.transport.scaling import HeldOut, ScalingPoint
from src.transport.scaling_summary import Growth, OverSubsets


def save_scaling(folder: Path, growths: Sequence[Growth], documents: Sequence[int], hook: str, method: str) -> None:
    """Write scaling_curves.* and scaling_summary.*, each as csv, parquet and json, into an existing folder."""
    curves, summary = curve_records(growths, documents, hook, method), growth_records(growths, documents)
    for stem, records in (("scaling_curves", curves), ("scaling_summary", summary)):
        write_records(folder / stem, records)
        write_csv(folder / f"{stem}.csv", records)


def n_documents(point: ScalingPoint, documents: Sequence[int]) -> int:
    """Number of training documents of a point. documents: of each block."""
    return int(sum(documents[block] for block in point.subset.blocks))


def curve_records(growths: Sequence[Growth], documents: Sequence[int], hook: str, method: str) -> list[dict[str, Any]]:
    """One flat record per pair, fraction and subset: what scaling_curves.* hold.

    documents: number of training documents in each block. hook, method: of all fits.
    """
    return [
        {
            **asdict(growth.pair),
            "hook": hook,
            "method": method,
            "fraction": at.fraction,
            "subset": point.subset.draw,
            "blocks": len(point.subset.blocks),
            "documents": n_documents(point, documents),
            "rows": point.n_rows,
            "folds": point.n_folds,
            "alpha": point.alpha,
            "relative_alpha": point.relative_alpha,
            "l1_ratio": point.l1_ratio,
            "at_edge": point.at_edge,
            "unconverged": point.unconverged,
            "cv_r2": point.cv_score,
            **_val_fields("val_", point.operator.val),
            **_test_fields("test_", point.operator.test),
            **_baseline_fields("identity", point.identity),
            **_baseline_fields("identity_shift", point.shift),
        }
        for growth in growths
        for at in growth.curve
        for point in at.points
    ]


def _val_fields(prefix: str, score: ClosedFormScore) -> dict[str, float]:
    return {**{f"{prefix}{name}": value for name, value in asdict(score).items()}, f"{prefix}rmse": score.mse**0.5}


def _test_fields(prefix: str, score: JackknifeScore) -> dict[str, float]:
    fields = {}
    for name in ("r2_uniform", "r2_variance_weighted", "mse"):
        estimate = jackknife_estimate(getattr(score, name))
        fields |= {f"{prefix}{name}": estimate.value}
        fields |= {f"{prefix}{name}_low": estimate.low, f"{prefix}{name}_high": estimate.high}
    return fields | {f"{prefix}rmse": math.sqrt(fields[f"{prefix}mse"])}


def _baseline_fields(name: str, scores: HeldOut) -> dict[str, float]:
    test = {key: float(getattr(scores.test, key)[0]) for key in ("r2_uniform", "r2_variance_weighted", "mse")}
    return {
        **{f"val_{name}_{key}": value for key, value in asdict(scores.val).items()},
        **{f"test_{name}_{key}": value for key, value in test.items()},
    }


def growth_records(growths: Sequence[Growth], documents: Sequence[int]) -> list[dict[str, Any]]:
    """One flat record per pair: what scaling_summary.* hold. R2 is the uniform mean over dimensions."""
    return [
        {
            **asdict(growth.pair),
            "data_points": len(growth.curve),
            "documents": n_documents(growth.curve[-1].points[0], documents),
            "rows": growth.curve[-1].n_rows,
            "final_val_r2": growth.curve[-1].val_r2,
            **_over_fields("final_test_r2", growth.curve[-1].test_r2),
            "val_improvement": growth.val_improvement,
            **_over_fields("test_improvement", growth.improvement),
            "val_slope": growth.val_slope,
            **_over_fields("test_slope", growth.slope),
            "plateau": growth.plateau,
        }
        for growth in growths
    ]


def _over_fields(name: str, over: OverSubsets) -> dict[str, float]:
    estimate = over.estimate
    return {
        name: estimate.value,
        f"{name}_low": estimate.low,
        f"{name}_high": estimate.high,
        f"{name}_lowest_subset": over.lowest,
        f"{name}_highest_subset": over.highest,
    }
