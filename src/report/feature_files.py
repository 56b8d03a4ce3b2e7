"""The files of the feature part of eval.py: a parquet file with every number, JSON in the reference's shape."""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from src.artifacts import disk_errors, write_json
from src.features.predicting.assessments import assess, calibration_summary
from src.features.predicting.metrics import FEWEST_ROWS
from src.features.predicting.pair_scores import FeatureScores
from src.transport.metrics import ResidualMetrics
from src.transport.pairs import LayerPair

CALIBRATION = ("rms_ratio", "mean_abs_ratio", "mean_ratio", "rel_error_mean", "log_mse_ratio")
PROJECTIONS = (
    "r2_lat", "mse_lat", "r_pearson", "calibration", "rms_true", "rms_pred", "mad_ratio", *CALIBRATION,
)  # fmt: skip
_LATENTS = ("latent_r2", "latent_skill", "precision", "recall", "f1")

Scores = Mapping[LayerPair, FeatureScores]
Record = dict[str, Any]


def feature_records(
    scores: FeatureScores, tokens: str, residual: ResidualMetrics | None
) -> Iterator[tuple[int, Record]]:
    """Each feature of a pair as the reference tells it, with its latents beside; None for what there is none of.

    tokens: whose projections: "active" or "all". residual: of the pair's operator; it stands in every record.
    """
    of_pair = {} if residual is None else _residual_fields(residual)
    columns = {name: scores[f"{tokens}_{name}"].tolist() for name in PROJECTIONS}
    latents = {name: scores[name].tolist() for name in _LATENTS}
    counts, rates = scores["active_n"].tolist(), scores["activation_rate"].tolist()
    for place, feature in enumerate(scores.ids.tolist()):
        metrics = {name: _plain(values[place]) for name, values in columns.items()}
        if counts[place] < FEWEST_ROWS:  # over all tokens there are numbers, but nothing to tell of the feature
            metrics = dict.fromkeys(metrics)
        yield (
            feature,
            {
                **metrics,
                "feature_never_activated": counts[place] == 0,
                "activation_count": int(counts[place]),
                "total_samples": scores.n_rows,
                "activation_rate": rates[place],
                **{name: _plain(values[place]) for name, values in latents.items()},
                **of_pair,
                "calib_interpretation": assess(metrics),
            },
        )


def _residual_fields(metrics: ResidualMetrics) -> Record:
    return {
        "r2_res": metrics.r2_uniform.value,
        "mse_res": metrics.mse.value,
        "cos_res": metrics.cosine.value,
    }


def _plain(value: float) -> float | None:
    return value if math.isfinite(value) else None


def policy(pair: LayerPair) -> str:
    """The reference's name of which tokens a pair joins: that of the source is j, that of the target i."""
    return f"j==i{-pair.offset:+d}" if pair.offset else "j==i"


def write_features(folder: Path, scores: Scores, tokens: str, residual: Mapping[LayerPair, ResidualMetrics]) -> None:
    """Write `features.parquet` (a row per pair and feature) and `features.json`.

    Raises StrataError if the disk is full.
    """
    found: dict[LayerPair, dict[int, Record]] = {}
    path = folder / "features.parquet"
    writer: pq.ParquetWriter | None = None
    with disk_errors(path):
        for pair, of_pair in scores.items():
            found[pair] = dict(feature_records(of_pair, tokens, residual.get(pair)))
            table = _parquet_table(pair, of_pair)
            writer = writer or pq.ParquetWriter(path, table.schema)
            writer.write_table(table)
        if writer is not None:
            writer.close()
    everything = [record for of_pair in found.values() for record in of_pair.values()]
    summary = calibration_summary(everything)
    summary["projections_at"] = f"{tokens} tokens"
    content: Record = {"calibration_summary": summary}
    for pair, of_pair in found.items():
        layer = content.setdefault(f"layer_{pair.L}", {}).setdefault(f"k_{pair.k}", {})
        layer[policy(pair)] = {str(feature): record for feature, record in of_pair.items()}
    write_json(folder / "features.json", content)


def _parquet_table(pair: LayerPair, scores: FeatureScores) -> pa.Table:
    n = len(scores.ids)
    places = {"L": pair.L, "k": pair.k, "offset": pair.offset, "target_layer": pair.L + pair.k}
    columns = {name: pa.array([value] * n, pa.int32()) for name, value in places.items()}
    columns["feature"] = pa.array(scores.ids.numpy(), pa.int32())
    columns["n_rows"] = pa.array([scores.n_rows] * n, pa.int64())
    return pa.table(columns | {name: pa.array(values.numpy()) for name, values in scores.columns.items()})
