"""Which heads read what earlier heads write: Q-, K- and V-composition, beside random rotations."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from src.geometry.circuits.composition import ComposedPair
from src.multiple_tests import largest_by_chance
from src.report.artifact_report import NamedChart
from src.report.figures.grid import grid
from src.report.finding import Finding
from src.report.tables import Cell, Table

_LISTED = 10


def composition_finding(pairs: Sequence[ComposedPair]) -> Finding:
    """The strongest pairs of heads, means of layers, and all scores as tensors."""
    records = [record for pair in pairs for record in _records(pair)]
    strongest = sorted(records, key=lambda record: -record["score"])
    best = strongest[0]
    ratio = float(np.mean([record["ratio"] for record in records]))
    several = len({pair.stack for pair in pairs}) > 1
    rows: list[list[Cell]] = [
        [
            record["kind"],
            _head(record, "reader", several),
            _head(record, "writer", several),
            record["score"],
            record["ratio"],
            record["z"],
            record["times_layers_mean"],
        ]
        for record in strongest[:_LISTED]
    ]
    text = (
        f"Of {len(records):,} pairs of heads, the strongest composition is {best['kind']}-composition of "
        f"{_head(best, 'reader', several)} with {_head(best, 'writer', several)} (layer.head): a score of "
        f"{best['score']:.2f}, {best['ratio']:.1f} times what a random rotation between the two heads gives "
        f"in energy (z = {best['z']:.1f}; the largest of as many random pairs has about "
        f"{largest_by_chance(len(records)):.1f}); over all pairs that ratio is {ratio:.2f} on average."
    )
    caption = (
        "score: |reader · writer| / (|reader| |writer|), Elhage et al. 2021. ratio: its square against its mean under "
        "random rotations between the two heads, z: in their standard deviations (exact). × layers: ratio over the "
        "mean of the same two layers: what all their heads share (dimensions that everything writes to) is not in it."
    )
    columns = ["kind", "reader", "writer", "score", "ratio", "z", "× layers"]
    summary = {
        "mean_ratio": ratio,
        "layers": [
            {
                **{name: getattr(pair, name) for name in ("kind", "stack", "reader", "writer")},
                "mean_ratio": float(pair.found.ratio.mean()),
            }
            for pair in pairs
        ],
    }
    return Finding(
        text,
        [Table("Strongest composition of heads", columns, rows, caption)],
        [_figure(pairs, several)],
        records={"composition": records},
        files={"composition.json": summary},
        tensors={"composition": _tensors(pairs)},
        metrics={"circuits/composition/mean_ratio": ratio},
    )


def _head(record: dict[str, Any], role: str, several: bool) -> str:
    place = f"{record[role + '_layer']}.{record[role + '_head']}"
    return f"{record['stack']} {place}" if several else place


def _records(pair: ComposedPair) -> list[dict[str, Any]]:
    found = pair.found
    mean = float(found.ratio.mean())
    n_readers, n_writers = found.score.shape
    score, ratio, z = (values.tolist() for values in (found.score, found.ratio, found.z))
    return [
        {
            "kind": pair.kind, "stack": pair.stack, "reader_layer": pair.reader, "reader_head": i,
            "writer_layer": pair.writer, "writer_head": j, "score": score[i][j], "ratio": ratio[i][j], "z": z[i][j],
            "times_layers_mean": ratio[i][j] / mean,
        }
        for i in range(n_readers)
        for j in range(n_writers)
    ]  # fmt: skip


def _tensors(pairs: Sequence[ComposedPair]) -> dict[str, Any]:
    return {
        f"{pair.kind}.{pair.stack}.{pair.reader}.{pair.writer}": pair.found.score.float().cpu().contiguous()
        for pair in pairs
    }


def _figure(pairs: Sequence[ComposedPair], several: bool) -> NamedChart:
    """Mean ratio of each pair of layers, the kinds below each other."""
    records = [
        {
            "reader": f"{pair.kind} {pair.stack + ' ' if several else ''}{pair.reader}",
            "writer": str(pair.writer),
            "value": float(pair.found.ratio.mean()),
        }
        for pair in sorted(pairs, key=lambda pair: ("QKV".index(pair.kind), pair.stack, pair.reader, pair.writer))
    ]
    title = "Composition of layers"
    chart = grid(
        records, title, row="reader", column="writer", label="energy / random rotation", numbers=len(records) <= 300,
        row_label="reader: side and layer", column_label="layer of the writer", step=(40, 20),
    )  # fmt: skip
    caption = (
        "Mean over pairs of heads of the composition score squared, against its mean under random rotations (1). Rows: "
        "the side that reads (queries, keys, values) and its layer; columns: the earlier layer that writes."
    )
    return NamedChart("composition", title, chart, caption)
