"""What heads make of distance alone: near, far, to one side; beside a head without any bias."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from src.geometry.circuits.distance_bias import DistanceBias
from src.geometry.circuits.distance_heads import DistanceHead, distance_heads, mass_by_distance, uniform_head
from src.report.artifact_report import NamedChart
from src.report.figures.circuits import mass_by_distance_lines
from src.report.finding import Finding
from src.report.tables import Cell, Table, finite_or_none

_MOST_PANELS = 12


def distance_finding(biases: Sequence[DistanceBias], notebook: Mapping[str, Sequence[Mapping[str, Any]]]) -> Finding:
    """Kinds of heads. notebook: its classes of the heads of a table, by place."""
    heads = [(bias, distance_heads(bias.values, bias.delta)) for bias in biases]
    kinds = Counter(head.kind for _, found in heads for head in found)
    n_heads = sum(kinds.values())
    sources = list(dict.fromkeys(bias.source for bias in biases))
    null = uniform_head(biases[0].delta)
    counted = ", ".join(f"{n} {kind}" for kind, n in kinds.most_common())
    text = (
        f"By what distance alone adds to logits ({' and '.join(sources)}), {n_heads} heads are: {counted}; a head "
        f"without bias has {null.near:.1%} of its mass within 2 tokens and {null.far:.1%} beyond 45 (flat)."
    )
    tables = [_table(heads)]
    if notebook:
        tables.append(_notebook_table(heads, notebook))
    records = [
        {"source": bias.source, "stack": bias.stack, "layer": bias.layer, "head": number, **vars(head)}
        for bias, found in heads
        for number, head in enumerate(found)
    ]
    summary = {
        "kinds": dict(kinds),
        "uniform": _plain(null),
        "sources": sources,
        "farthest": int(biases[0].delta.abs().max()),
    }
    files: dict[str, Any] = {"distance_bias.json": summary}
    if notebook:
        files["distance_bias_notebook.json"] = {place: list(found) for place, found in notebook.items()}
    tensors = {f"{bias.source}.{bias.label}".replace(" ", "_"): bias.values.float().contiguous() for bias in biases}
    return Finding(
        text,
        tables,
        [_figure(heads)],
        details=[_all_heads(heads)],
        records={"distance_bias_heads": records},
        files=files,
        tensors={"distance_bias": tensors},
        metrics={f"circuits/distance/{kind.replace(' ', '_')}": float(n) for kind, n in kinds.items()},
    )


def _plain(head: DistanceHead) -> dict[str, Any]:
    return {key: finite_or_none(value) if isinstance(value, float) else value for key, value in vars(head).items()}


def _table(heads: Sequence[tuple[DistanceBias, Sequence[DistanceHead]]]) -> Table:
    rows: list[list[Cell]] = []
    for bias, found in heads:
        kinds = Counter(head.kind for head in found)
        null = uniform_head(bias.delta)
        rows.append(
            [
                bias.label, bias.source, len(found), ", ".join(f"{n} {kind}" for kind, n in kinds.most_common()),
                _mean(found, "near"), null.near, _mean(found, "far"), null.far,
            ]
        )  # fmt: skip
    caption = (
        "Of the softmax of the bias over the distances looked at. near: share of the mass within 2 tokens, far: at 46 "
        "and more; none: the same of a head without bias. flat: within 10 % of no bias."
    )
    columns = ["place", "source", "heads", "kinds", "near", "none", "far", "none"]
    return Table("Heads by distance", columns, rows, caption)


def _mean(found: Sequence[DistanceHead], name: str) -> float:
    return float(np.mean([getattr(head, name) for head in found]))


def _all_heads(heads: Sequence[tuple[DistanceBias, Sequence[DistanceHead]]]) -> Table:
    rows: list[list[Cell]] = [
        [
            bias.label, number, head.kind, head.mean_distance, head.near, head.far, head.past, head.future,
            finite_or_none(head.decay), head.peak,
        ]
        for bias, found in heads
        for number, head in enumerate(found)
    ]  # fmt: skip
    columns = ["place", "head", "kind", "mean distance", "near", "far", "past", "future", "decay", "peak"]
    return Table("Distance, head by head", columns, rows, "decay: rank correlation of the bias with nearness.")


def _notebook_table(
    heads: Sequence[tuple[DistanceBias, Sequence[DistanceHead]]], notebook: Mapping[str, Sequence[Mapping[str, Any]]]
) -> Table:
    ours = {bias.label: [head.kind for head in found] for bias, found in heads if bias.table is not None}
    rows: list[list[Cell]] = [
        [
            place, number, head["kind"], head["peak_bucket"], head["range"], head["non_increasing"],
            head["bucket_correlation"], ours[place][number],
        ]
        for place, found in notebook.items()
        for number, head in enumerate(found)
    ]  # fmt: skip
    columns = ["place", "head", "its kind", "peak bucket", "range", "non-increasing", "r", "our kind"]
    caption = (
        "It takes bucket numbers for distances: of an encoder, buckets 13 to 15 are the far past, 17 and 18 the next "
        "tokens, both mixed for it, and bucket 16 is never used."
    )
    return Table("Position bias as the notebook computes it", columns, rows, caption)


def _figure(heads: Sequence[tuple[DistanceBias, Sequence[DistanceHead]]]) -> NamedChart:
    records = []
    for bias, found in heads[:_MOST_PANELS]:
        known = bias.values.isfinite().all(0)
        delta = bias.delta[known].tolist()
        for number, (row, head) in enumerate(zip(bias.values[:, known].numpy(), found, strict=True)):
            mass = mass_by_distance(row).tolist()
            place = f"{bias.label}: {bias.source}"
            records += [
                {"place": place, "head": number, "kind": head.kind, "delta": each, "value": value}
                for each, value in zip(delta, mass, strict=True)
            ]
    title = "What distance alone would make heads attend to"
    more = f" The first {_MOST_PANELS} of {len(heads)} places." if len(heads) > _MOST_PANELS else ""
    chart = mass_by_distance_lines(records, title, "softmax of each head's bias over key − query")
    return NamedChart(
        "distance_bias", title, chart, f"Negative: keys before the query. Lines: heads, by their kind.{more}"
    )
