"""Activation Lab's four tables of runs, with its columns (specification 3.9) and its names of sources."""

from collections.abc import Iterator, Mapping, Sequence

import pyarrow as pa

from src.scenarios.comparing.pair_metrics import SUMMARY_COLUMNS, PairMetrics
from src.scenarios.comparing.runs import ComparedRun, RunComparisons, RunPair
from src.scenarios.source_names import lab_source

_DIGITS = 4
_TEXT = pa.string()
_SUMMARY = [(name, pa.int64() if name.endswith("layer") else pa.float64()) for name in SUMMARY_COLUMNS]
_BY_LAYER = [("source", _TEXT), ("layer", pa.int64())] + [(name, pa.float64()) for name in ("cosine", "MAE", "overlap")]
_PAIR = [(name, _TEXT) for name in ("state", "pair", "run_a", "run_b", "generated_a", "generated_b")]
SCHEMAS = {
    "comparison_report": pa.schema([*_PAIR, ("prompt_a", _TEXT), ("prompt_b", _TEXT), ("source", _TEXT), *_SUMMARY]),
    "comparison_cosines": pa.schema([*_PAIR, *_BY_LAYER]),
    "intra_run_report": pa.schema(
        [("run", _TEXT), ("generated", _TEXT), ("prompt", _TEXT), ("source", _TEXT), *_SUMMARY]
    ),
    "intra_run_cosines": pa.schema([("run", _TEXT), *_BY_LAYER]),
}


def run_tables(
    within: Sequence[tuple[ComparedRun, Mapping[str, PairMetrics]]], between: RunComparisons
) -> dict[str, pa.Table]:
    """The tables of SCHEMAS by name, which keep their columns when they have no rows.

    within: runs with what `within_run` says of them. between: what `between_runs` says. A row per run or pair (and
    state) and source, and in *_cosines per layer.
    """
    rows: dict[str, list[dict[str, object]]] = {name: [] for name in SCHEMAS}
    for run, by_source in within:
        about = {"run": run.name, "generated": run.generated, "prompt": run.prompt}
        for source, metrics in by_source.items():
            named = {"source": lab_source(source)}
            rows["intra_run_report"].append({**about, **named, **metrics.summary()})
            rows["intra_run_cosines"] += [{"run": run.name} | named | values for values in _by_layer(metrics)]
    for pair in between.pairs:
        about = _about(pair)
        prompts = {"prompt_a": pair.first.prompt, "prompt_b": pair.second.prompt}
        for source, metrics in pair.by_source.items():
            named = {"source": lab_source(source)}
            rows["comparison_report"].append({**about, **prompts, **named, **metrics.summary()})
            rows["comparison_cosines"] += [about | named | values for values in _by_layer(metrics)]
    return {name: pa.Table.from_pylist(rows[name], schema) for name, schema in SCHEMAS.items()}


def _about(pair: RunPair) -> dict[str, object]:
    return {
        "state": pair.state,
        "pair": pair.name,
        "run_a": pair.first.name,
        "run_b": pair.second.name,
        "generated_a": pair.first.generated,
        "generated_b": pair.second.generated,
    }


def _by_layer(metrics: PairMetrics) -> Iterator[dict[str, object]]:
    columns = (metrics.cosine.tolist(), metrics.mae.tolist(), metrics.overlap.tolist())
    for layer, *values in zip(metrics.layers, *columns, strict=True):
        cosine, mae, overlap = (round(value, _DIGITS) for value in values)
        yield {"layer": layer, "cosine": cosine, "MAE": mae, "overlap": overlap}
