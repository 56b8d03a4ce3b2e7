"""The records of the panels of a model's weights."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from src.geometry.weights.entries import log_histogram_edges
from src.geometry.weights.profile import LayerComparison, WeightProfile
from src.report.artifact_report import NamedChart
from src.report.figures.weights import weight_panels
from src.report.geometry.weights.records import RoleSummary

Record = dict[str, Any]
_POINTS = 48  # of a curve
_OF_SPECTRA = ("q", "up", "down")
_OF_HEAT = ("q", "up", "v", "k")
_MOST_CURVES = 36
_PLACES = ("attention", "mlp", "attention_and_mlp", "after_attention", "after_mlp", "attention_output", "mlp_output")


def weight_figure(name: str, profile: WeightProfile, kinds: Sequence[RoleSummary]) -> NamedChart:
    """The multi-panel figure. Of a model with several stacks, panels show the first one that has layers."""
    layered = [kind for kind in kinds if kind.members[0].matrix.layer is not None]
    stack = layered[0].group[0] if layered else kinds[0].group[0]
    shown = [kind for kind in (layered or kinds) if kind.group[0] == stack and kind.group[2] != "cross"]
    compared = _chosen(profile, stack)
    chart = weight_panels(
        f"Weights of {name}" + (f" ({stack})" if len({kind.group[0] for kind in layered}) > 1 else ""),
        spectra=_spectra(profile, shown),
        ranks=_by_layer(shown, lambda each: each.spectrum.stable_rank
                        / profile.random_number(each.spectrum.shape, "stable_rank")),
        histograms=_histograms(shown),
        neurons=_neurons(profile, stack),
        entry_cosines=_heat(compared, "entries"),
        gram_cosines=_heat(compared, "grams"),
        norms=_norms(profile, stack),
        conditions=_by_layer(shown, lambda each: each.spectrum.condition),
        subtitle="grey dashes: what a random matrix gives",
    )  # fmt: skip
    of = f"; layers compared by their {compared.group[1]}" if compared is not None else ""
    caption = (
        "Singular values (a curve for each layer), stable rank, entries, neurons by the norms of their weights, "
        f"cosines of layers (colours clipped at 0.2), gains of norms, condition{of}. Entry by entry layers agree as "
        "chance has it; on the side of the residual stream they need not."
    )
    return NamedChart("weights", f"Weights of {name}", chart, caption)


def _chosen(profile: WeightProfile, stack: str) -> LayerComparison | None:
    for role in _OF_HEAT:
        for each in profile.comparisons:
            if each.group[:2] == (stack, role) and each.group[2] != "cross":
                return each
    return None


def _spectra(profile: WeightProfile, kinds: Sequence[RoleSummary]) -> list[Record]:
    records: list[Record] = []
    chosen = [kind for kind in kinds if kind.group[1] in _OF_SPECTRA] or list(kinds[:3])
    for kind in chosen:
        members = kind.members[:: -(-len(kind.members) // (_MOST_CURVES // 3))]
        for each in members:
            records += _curve(each.spectrum.values, kind.group[1], "model", each.matrix.name)
        shape = members[0].spectrum.shape
        values = np.mean([drawn.values for drawn in profile.random[shape]], axis=0)
        records += _curve(values, kind.group[1], "random", f"random {shape}")
    return records


def _curve(values: np.ndarray, role: str, kind: str, line: str) -> list[Record]:
    if not values.size or not values[0] > 0:
        return []
    places = np.unique(np.linspace(0, len(values) - 1, _POINTS).round().astype(int))
    return [
        {
            "role": role,
            "kind": kind,
            "line": line,
            "place": (place + 1) / len(values),
            "value": values[place] / values[0],
        }
        for place in places.tolist()
    ]


def _by_layer(kinds: Sequence[RoleSummary], value: Any) -> list[Record]:
    found: dict[tuple[str, int], list[float]] = {}
    for kind in kinds:
        for each in kind.members:
            if each.matrix.layer is not None and kind.group[1] in ("q", "k", "v", "o", "gate", "up", "down"):
                found.setdefault((kind.group[1], each.matrix.layer), []).append(value(each))
    return [{"role": role, "layer": layer, "value": float(np.mean(v))} for (role, layer), v in found.items()]


def _histograms(kinds: Sequence[RoleSummary]) -> list[Record]:
    edges = log_histogram_edges()
    middles, width = (edges[:-1] + edges[1:]) / 2, edges[1] - edges[0]
    records = []
    for kind in kinds:
        if kind.group[1] not in ("q", "k", "v", "o", "gate", "up", "down"):
            continue
        counts = np.sum([each.entries.histogram for each in kind.members], axis=0)
        density = counts / max(1, counts.sum()) / width
        # every other bin of those that show anything
        for place in np.flatnonzero(density > 5e-3)[::2].tolist():
            records.append({"role": kind.group[1], "power": middles[place], "value": density[place]})
    return records


def _neurons(profile: WeightProfile, stack: str) -> list[Record]:
    layers: dict[int, list[np.ndarray]] = {}
    for each in profile.neurons:
        if each.stack == stack:
            layers.setdefault(each.layer, []).append(each.neurons.relative)
    records = []
    for layer, found in layers.items():
        values = np.concatenate(found)
        low, middle, high = np.percentile(values, (5, 50, 95)).tolist()
        least = max(float(values.min()), 1e-4)
        records.append(
            {"layer": layer, "low": max(low, 1e-4), "value": max(middle, 1e-4), "high": high, "least": least}
        )
    return records


def _heat(comparison: LayerComparison | None, which: str) -> list[Record]:
    if comparison is None:
        return []
    values = getattr(comparison, which).values
    return [
        {"layer": layer, "other": other, "value": float(values[row, column])}
        for row, layer in enumerate(comparison.layers)
        for column, other in enumerate(comparison.layers)
        if row != column
    ]


def _norms(profile: WeightProfile, stack: str) -> list[Record]:
    records = []
    for matrix, gains in profile.norms:
        if matrix.stack == stack and matrix.layer is not None and matrix.place in _PLACES:
            low, middle, high = np.percentile(gains.values, (5, 50, 95)).tolist()
            place = matrix.place.replace("_", " ")
            records.append({"place": place, "layer": matrix.layer, "low": low, "value": middle, "high": high})
    return records
