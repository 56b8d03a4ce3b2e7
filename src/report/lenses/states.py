"""What single neurons do, how many directions states take up, where they go and settle."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from torch import Tensor

from src.report.artifact_report import NamedChart
from src.report.figures.run_analysis import layer_panels, neuron_lines, state_paths
from src.report.finding import Finding
from src.report.lenses.rows import item_names, sentence
from src.report.tables import Cell, Table, finite_or_none
from src.scenarios.lenses.cross_layer import SETTLED, Convergence
from src.scenarios.lenses.items import Items
from src.scenarios.lenses.principal_components import Trajectories
from src.scenarios.lenses.spectra import Spectrum

_NAMED = 25  # of more states in a panel only the first and the last have their names beside them
_MOST_PANELS, _MOST_PATHS = 9, 7
_SETS = {"steps": "step and the token it chose", "messages": "message"}


def neurons_finding(
    source: str,
    neurons: Sequence[tuple[int, int]],
    values: Sequence[tuple[Items, Float[Tensor, "neuron row"]]],
    chosen_here: bool,
) -> Finding:
    """Single neurons over steps and messages. chosen_here: they are the liveliest, not the user's."""
    records = [
        {
            "kind": items.kind,
            "number": number,
            "word": items.words[row],
            "source": source,
            "layer": layer,
            "neuron": neuron,
            "value": float(found[place, row]),
        }
        for items, found in values
        for place, (layer, neuron) in enumerate(neurons)
        for row, number in enumerate(items.numbers)
    ]
    lines = [
        {
            "over": _SETS[items.kind],
            "place": row,
            "name": name,
            "neuron": f"layer {layer}, {neuron}",
            "value": finite_or_none(float(found[place, row])),
        }
        for items, found in values
        for place, (layer, neuron) in enumerate(neurons)
        for row, name in enumerate(item_names(items))
    ]
    rows: list[list[Cell]] = []
    for place, (layer, neuron) in enumerate(neurons):
        ends: list[Cell] = []
        for _, found in values:
            row = found[place][found[place].isfinite()]
            ends += [float(row.min()), float(row.max())] if len(row) else [None, None]
        rows.append([str(layer), str(neuron), *ends])
    columns = [f"{end} over {items.kind}" for items, _ in values for end in ("least", "most")]
    why = (
        f"The {len(neurons)} that vary most over the steps: they were chosen by it, so that they vary is no finding."
        if chosen_here
        else ""
    )
    title = f"Single dimensions of {source}"
    chart = neuron_lines(lines, title, subtitle=sentence("chosen because they vary most" if chosen_here else ""))
    return Finding(
        "",
        [Table(f"Neurons ({source})", ["layer", "neuron", *columns], rows, why)],
        [NamedChart("neurons", title, chart, why)],
        records={"neurons": records},
    )


def spectrum_finding(source: str, layers: Sequence[int], found: Mapping[str, Sequence[Spectrum]]) -> Finding:
    """How many directions the rows take up at each layer."""
    records = [
        {
            "kind": kind,
            "source": source,
            "layer": layer,
            "effective_rank": each.effective_rank,
            "spectral_norm": each.spectral,
            "nuclear_norm": each.nuclear,
            "singular_values": each.values,
        }
        for kind, spectra in found.items()
        for layer, each in zip(layers, spectra, strict=True)
    ]
    names = {"effective_rank": "effective rank", "spectral_norm": "spectral norm", "nuclear_norm": "nuclear norm"}
    lines = [
        {"measure": name, "series": record["kind"], "layer": record["layer"], "value": record[key]}
        for key, name in names.items()
        for record in records
    ]
    rows: list[list[Cell]] = [
        [record["kind"], str(record["layer"]), *(record[key] for key in names)] for record in records
    ]
    title = f"{source}: how many directions the rows take up"
    caption = (
        "Of the rows about their mean. Effective rank: exp of the entropy of the singular values' shares, at most the "
        "number of rows less 1."
    )
    return Finding(
        "",
        [Table(f"Spectra ({source})", ["over", "layer", *names.values()], rows, caption)],
        [NamedChart("spectra", title, layer_panels(lines, title), caption)],
        records={"spectra": records},
    )


def pca_finding(
    source: str,
    layers: Sequence[int],
    together: Sequence[tuple[Items, Trajectories]],
    by_layer: Sequence[tuple[Items, Sequence[Trajectories]]],
) -> Finding:
    """Where states go: from layer to layer in one plane, and over the rows in a plane of each layer."""
    records: list[dict[str, Any]] = []
    figures = []
    for items, found in together:
        names = item_names(items)
        records += _coordinates(items, layers, found.coordinates, source, "all layers", found.explained.tolist())
        shown = _spread_out(len(names), _MOST_PATHS)
        paths = [
            {
                "panel": "all layers",
                "path": names[row],
                "order": layer,
                "name": str(layer) if row == 0 or place == len(layers) - 1 else "",
                "about": names[row],
                "x": float(found.coordinates[place, row, 0]),
                "y": _second(found.coordinates[place, row]),
            }
            for row in shown
            for place, layer in enumerate(layers)
        ]
        title = f"{source} from layer to layer, {items.kind}"
        kept = "" if len(shown) == len(names) else f"{len(shown)} of {len(names)} {items.kind}"
        note = sentence(_explained(found), "numbers: layers", kept)
        chart = state_paths(paths, title, along="layer", subtitle=note)
        figures.append(NamedChart(f"pca_layers_{items.kind}", title, chart, "One plane for all layers and rows."))
    for items, of_layers in by_layer:
        names = item_names(items)
        for layer, found in zip(layers, of_layers, strict=True):
            records += _coordinates(items, [layer], found.coordinates, source, "own layer", found.explained.tolist())
        chosen = _spread_out(len(layers), _MOST_PANELS)
        paths = [
            {
                "panel": f"layer {layers[place]} ({float(of_layers[place].explained.sum()):.0%})",
                "path": items.kind,
                "order": row,
                "name": str(items.numbers[row]) if len(names) <= _NAMED or row in (0, len(names) - 1) else "",
                "about": name,
                "x": float(of_layers[place].coordinates[0, row, 0]),
                "y": _second(of_layers[place].coordinates[0, row]),
            }
            for place in chosen
            for row, name in enumerate(names)
        ]
        title = f"{source} over {items.kind}, layer by layer"
        chart = state_paths(
            paths, title, along=items.kind, subtitle=f"numbers: {items.kind}; in brackets: share of the variance"
        )
        figures.append(NamedChart(f"pca_{items.kind}", title, chart, "A plane of its own for each layer."))
    return Finding("", figures=figures, records={"pca": records})


def convergence_finding(
    source: str, layers: Sequence[int], found: Sequence[tuple[Items, Convergence, Convergence | None]]
) -> Finding:
    """How states change between layers; raw, and without the rows' mean where there are enough rows."""
    records, depths, lines = [], [], []
    for items, *both in found:
        for how, each in zip(("raw", "mean removed"), both, strict=True):
            if each is None:
                continue
            for place, layer in enumerate(layers[1:]):
                records += [
                    {
                        "kind": items.kind,
                        "number": number,
                        "states": how,
                        "from_layer": layers[place],
                        "to_layer": layer,
                        "cosine": float(each.cosine[place, row]),
                        "relative_change": float(each.change[place, row]),
                    }
                    for row, number in enumerate(items.numbers)
                ]
                measures = {"cosine with the layer before": each.cosine, "|change| / |state before|": each.change}
                lines += [
                    {
                        "measure": measure,
                        "series": f"{items.kind}, {how}",
                        "layer": layer,
                        "value": finite_or_none(float(values[place].mean())),
                    }
                    for measure, values in measures.items()
                ]
            depths += [
                {"kind": items.kind, "number": number, "states": how, "depth": depth}
                for number, depth in zip(items.numbers, each.depth, strict=True)
            ]
    rows: list[list[Cell]] = []
    for kind, how in dict.fromkeys((record["kind"], record["states"]) for record in depths):
        of = sorted(record["depth"] for record in depths if (record["kind"], record["states"]) == (kind, how))
        never = sum(depth == layers[-1] for depth in of)
        rows.append([kind, how, len(of), float(np.median(of)), of[0], of[-1], never])
    columns = ["over", "states", "rows", "median depth", "first", "last", "never settle"]
    caption = f"depth: the first layer after which all cosines of adjacent layers are {SETTLED} or more."
    title = f"{source}: how much each layer changes"
    chart = layer_panels(lines, title, subtitle="means over rows")
    return Finding(
        "",
        [Table("Convergence", columns, rows, caption)],
        [NamedChart("convergence", title, chart, caption)],
        records={"convergence": records, "convergence_depth": depths},
    )


def _coordinates(
    items: Items, layers: Sequence[int], coordinates: Tensor, source: str, plane: str, explained: list[float]
) -> Iterator[dict[str, Any]]:
    for place, layer in enumerate(layers):
        for row, number in enumerate(items.numbers):
            yield {
                "kind": items.kind,
                "source": source,
                "plane_of": plane,
                "number": number,
                "layer": layer,
                "coordinates": coordinates[place, row].tolist(),
                "explained": explained,
            }


def _second(state: Tensor) -> float:
    return float(state[1]) if len(state) > 1 else 0.0


def _explained(found: Trajectories) -> str:
    return "explained: " + ", ".join(f"{share:.0%}" for share in found.explained.tolist())


def _spread_out(count: int, most: int) -> list[int]:
    """At most so many places, the first and the last among them."""
    return sorted({round(place) for place in np.linspace(0, count - 1, min(count, most))})
