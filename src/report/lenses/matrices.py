"""How alike are layers: cosines of a row with itself at other layers, and CKA over all rows."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from torch import Tensor

from src.report.artifact_report import NamedChart
from src.report.figures.topology_comparison import all_layers
from src.report.finding import Finding
from src.report.tables import finite_or_none


def cross_layer_finding(
    source: str,
    layers: Sequence[int],
    means: Mapping[str, Sequence[Float[Tensor, "layer layer"]]],
) -> Finding:
    """Cosines of all layers with all others, mean over rows.

    means: by kind of rows: raw, and about the rows' mean, if there are enough rows.
    """
    maps = {
        f"{kind}, {how}": matrix
        for kind, both in means.items()
        for how, matrix in zip(("raw", "mean over rows removed"), both, strict=False)
    }
    chart, records = _matrices(maps, layers)
    title = f"{source}: cosines of layers"
    caption = (
        "Mean over rows of the cosine of a row's states at two layers. Raw cosines hold what all rows share; without "
        "their mean at each layer that is gone."
    )
    return Finding(
        "",
        figures=[
            NamedChart("cross_layer_cosine", title, all_layers(chart, title, rows="layer", columns="layer"), caption)
        ],
        records={"cross_layer_cosine": [{"source": source, **record} for record in records]},
    )


def cka_finding(
    states: Sequence[tuple[str, int]],
    found: Mapping[str, tuple[int, Float[np.ndarray, "state state"], Float[np.ndarray, "state state"]]],
) -> Finding:
    """CKA of all states (source, layer) with all others. found: by kind of items: how many, biased and debiased."""
    records: list[dict[str, Any]] = []
    figures = []
    sources = list(dict.fromkeys(source for source, _ in states))
    for kind, (n_items, biased, debiased) in found.items():
        records += [
            {
                "items": kind,
                "n_items": n_items,
                "first_source": states[i][0],
                "first_layer": states[i][1],
                "second_source": states[j][0],
                "second_layer": states[j][1],
                "cka": float(biased[i, j]),
                "debiased_cka": float(debiased[i, j]),
            }
            for i in range(len(states))
            for j in range(len(states))
        ]
        maps = []
        for source in sources:
            places = [place for place, (name, _) in enumerate(states) if name == source]
            maps.append(
                _map(f"{source}, debiased", [states[p][1] for p in places], debiased[np.ix_(places, places)], 1.0)
            )
        title = f"CKA of layers over {n_items} {kind}"
        caption = (
            "1 = alike up to rotation and scale, 0 = what unrelated states give on average (it may be below). With few "
            "items it scatters widely, and those of one conversation are no independent sample. Between "
            "sources: cka.parquet."
        )
        chart = all_layers(maps, title, rows="layer", columns="layer")
        figures.append(NamedChart(f"cka_{kind}", title, chart, caption))
    return Finding("", figures=figures, records={"cka": records})


def _matrices(
    maps: Mapping[str, Any], layers: Sequence[int]
) -> tuple[list[list[dict[str, Any]]], list[dict[str, Any]]]:
    charts = [_map(name, layers, matrix, 1.0) for name, matrix in maps.items()]
    records = [
        {
            "kind": name.partition(", ")[0],
            "states": name.partition(", ")[2],
            "first_layer": layers[i],
            "second_layer": layers[j],
            "cosine": float(matrix[i, j]),
        }
        for name, matrix in maps.items()
        for i in range(len(layers))
        for j in range(len(layers))
    ]
    return charts, records


def _map(measure: str, layers: Sequence[int], matrix: Any, largest: float) -> list[dict[str, Any]]:
    return [
        {
            "measure": measure,
            "largest": largest,
            "row": str(layers[i]),
            "column": str(layers[j]),
            "value": finite_or_none(float(matrix[i, j])),
        }
        for i in range(len(layers))
        for j in range(len(layers))
    ]
