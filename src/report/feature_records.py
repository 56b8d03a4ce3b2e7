"""The files of feature_scores: everything of every feature as parquet, and the reference's JSON for each layer."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from torch import Tensor

from src.artifacts import disk_errors, write_json
from src.features.clustered import Estimate
from src.features.scores.layer_scores import ScoredLayer

Word = Callable[[int], str]


def write_features(folder: Path, layers: Sequence[ScoredLayer], word: Word) -> None:
    """Write `features.parquet`: one row for each layer and feature, layer after layer. word: the text of a token id."""
    path = folder / "features.parquet"
    writer = None
    with disk_errors(path):
        try:
            for scored in layers:
                table = pa.table(feature_columns(scored, word))
                writer = writer or pq.ParquetWriter(path, table.schema)
                writer.write_table(table)
        finally:
            if writer is not None:
                writer.close()


def feature_columns(scored: ScoredLayer, word: Word) -> dict[str, pa.Array]:
    """The columns of a layer's features, by name; a standard error is called `..._error`."""
    metrics, n = scored.metrics, len(scored.scores.score)
    candidate, selected = set(scored.candidates.tolist()), set(scored.scores.selected.tolist())
    columns: dict[str, Any] = {
        "layer": pa.array([scored.layer] * n, pa.int32()),
        "feature": pa.array(range(n), pa.int32()),
        "score": _column(scored.scores.score),
        "selected": pa.array([feature in selected for feature in range(n)]),
        "dead": _column(metrics.firing.is_dead),
        "tokens": _column(metrics.firing.n_active),
        "documents": _column(metrics.firing.n_documents),
        "effective_documents": _column(metrics.firing.effective_documents),
        **_estimate("rate", metrics.firing.rate),
        **_estimate("mean_activation", metrics.firing.mean_activation),
        **_estimate("mean_when_active", metrics.firing.mean_when_active),
        "max_activation": _column(metrics.firing.max_activation),
        **_estimate("coherence", metrics.coherence.coherence),
        **_estimate("token_entropy", metrics.coherence.entropy),
        "raw_token_entropy": _column(metrics.coherence.raw_entropy),
        "focus_peak": _column(metrics.focus.peak),
        "vocabulary_entropy": _column(metrics.focus.entropy),
        **_estimate("correlation", metrics.redundancy.correlation),
        "correlated_feature": _column(metrics.redundancy.partner),
        "decoder_cosine": _column(metrics.decoder_cosine),
        "decoder_neighbour": _column(metrics.decoder_partner),
    }
    for name, effects in (("attribution", metrics.attribution), (scored.measured_by, scored.measured)):
        if effects is not None:
            columns |= _estimate(f"{name}_per_token", effects.per_token)
            columns |= _estimate(f"{name}_per_firing", effects.per_firing)
    if scored.measured is not None:
        columns["candidate"] = pa.array([feature in candidate for feature in range(n)])
    columns |= {f"term_{name}": _column(term) for name, term in scored.scores.terms.items()}
    columns["top_tokens"] = _words(metrics.coherence.top_tokens, word)
    columns["top_shares"] = pa.array(
        [[share for share in row if share > 0] for row in metrics.coherence.top_shares.tolist()], pa.list_(pa.float64())
    )
    columns["promoted"], columns["suppressed"] = (
        _words(ids, word) for ids in (metrics.focus.promoted, metrics.focus.suppressed)
    )
    return columns


def reference_json(scored: ScoredLayer, meta: dict[str, Any]) -> dict[str, Any]:
    """What `feature_scores_{layer}.json` holds (spec 1.4), with null for what is unknown. meta: what the stage adds."""
    metrics, terms = scored.metrics, scored.scores.terms
    scores = {
        "final_score": scored.scores.score,
        "coherence_token_entropy_inv": terms["coherence"],
        "focus_vocab_peak": terms["focus"],
        "causal_effect_norm": terms["causal"],
        "redundancy_maxcorr": metrics.redundancy.correlation.value,
        "activation_rate": metrics.firing.rate.value,
        "mean_abs_activation": metrics.firing.mean_activation.value,
        "entropy_vocab": metrics.focus.entropy,
        "raw_token_entropy": metrics.coherence.raw_entropy,
    }
    return {
        "high_quality_feature_ids": scored.scores.selected.tolist(),
        "scores": {name: [_plain(value) for value in values.tolist()] for name, values in scores.items()},
        "meta": {
            "sae_path": scored.sae.source,
            "hook_layer": scored.layer,
            "hook_stream": str(scored.pairing.point),
            "eval_tokens": scored.n_tokens,
            "eval_sequences": scored.n_documents,
            "candidate_features": len(scored.candidates),
            **meta,
        },
    }


def write_reference_json(folder: Path, layers: Sequence[ScoredLayer], meta: dict[str, Any]) -> None:
    """Write `feature_scores_{layer}.json` of every layer."""
    for scored in layers:
        write_json(folder / f"feature_scores_{scored.layer}.json", reference_json(scored, meta))


def _column(values: Tensor) -> pa.Array:
    return pa.array(values.numpy())


def _estimate(name: str, estimate: Estimate) -> dict[str, pa.Array]:
    return {name: _column(estimate.value), f"{name}_error": _column(estimate.error)}


def _words(ids: Tensor, word: Word) -> pa.Array:
    return pa.array([[word(token) for token in row if token >= 0] for row in ids.tolist()], pa.list_(pa.string()))


def _plain(value: float) -> float | None:
    return value if math.isfinite(value) else None
