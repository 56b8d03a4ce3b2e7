"""What eval_modulator.py shows of the volumes of simplices of states, modulated and not."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from src.geometry.simplices.profile import SimplexProfile
from src.geometry.simplices.statistics import Estimate
from src.modulators.evaluation.effects import FROZEN
from src.modulators.evaluation.geometry.readings import MODULATED
from src.modulators.evaluation.geometry.volumes import CloudVolumes, VolumeChange
from src.report.artifact_report import NamedChart
from src.report.figures.modulator_geometry import volumes_chart
from src.report.finding import Finding
from src.report.geometry.simplices.records import profile_values
from src.report.tables import Cell, Table, cell_text, finite_or_none, interval_cell


def volumes_finding(found: Mapping[str, CloudVolumes], layer: int, unit: str) -> Finding:
    """By space: all dimensions of the residual stream, and those that the modulator changes.

    layer: after whose block states were read. unit: what points are of, one each: documents or synsets.
    """
    everything = next(iter(found.values()))
    k = everything.profiles[FROZEN].k
    return Finding(
        f"{_first(everything, k, layer, unit)}\n\n{_beside_controls(everything)}",
        [_null_table(found, k, unit), _change_table(found, unit)],
        [_figure(everything, k, layer, unit)],
        records={
            "state_volumes": [
                {"space": space, "states": name, "layer": layer, **_flat(change)}
                for space, volumes in found.items()
                for name, change in volumes.changes.items()
            ]
        },
        files={
            "state_simplices.json": {
                space: {name: profile_values(profile) for name, profile in volumes.profiles.items()}
                for space, volumes in found.items()
            }
        },
        metrics={
            **{f"volumes/cv_{name}": profile.cv.value for name, profile in everything.profiles.items()},
            "volumes/beyond_size": everything.changes[MODULATED].beyond_size.value,
        },
    )


def _figure(volumes: CloudVolumes, k: int, layer: int, unit: str) -> NamedChart:
    panels = {"cv": "CV", "log_volume": "log volume", "beyond_size": "log volume beyond size"}
    records = [
        {
            "panel": f"{words}, less frozen",
            "row": name,
            **{end: finite_or_none(value) for end, value in asdict(getattr(change, key)).items()},
        }
        for key, words in panels.items()
        for name, change in volumes.changes.items()
    ]
    title = f"Volumes of {k}-simplices of states after block {layer}, less those of the frozen model"
    caption = (
        "How the coefficient of variation of volumes, mean log volume, and mean log volume less what the states' size "
        f"makes of it, change with the modulator and with controls of equal strength. Intervals: 95 %, jackknife over "
        f"{unit}, paired. What controls do too is no work of the modulator's geometry."
    )
    return NamedChart("state_volumes", title, volumes_chart(records, title), caption)


def _first(volumes: CloudVolumes, k: int, layer: int, unit: str) -> str:
    frozen, modulated = volumes.profiles[FROZEN], volumes.profiles[MODULATED]
    of = f"{k}-simplices of states after block {layer} (one token of each of {frozen.n_points} test {unit})"
    if without := [name for name, profile in volumes.profiles.items() if not profile.volumes.n_valid]:
        return f"No simplex of {' and '.join(without)} {of} has a volume, so nothing is said of how volumes vary."
    return (
        f"Volumes of {of} vary by CV {_text(volumes.cv[MODULATED])} when modulated and {_text(volumes.cv[FROZEN])} in "
        f"the frozen model, a paired difference of {_text(volumes.changes[MODULATED].cv)}. Clouds of the same "
        f"covariance and norms without structure have {modulated.matched.cv.value:.3f} ({_test(modulated)}) and "
        f"{frozen.matched.cv.value:.3f} ({_test(frozen)})."
    )


def _test(profile: SimplexProfile) -> str:
    p = profile.matched.p
    return f"p = {p:.2g}" if math.isfinite(p) else "not tested"


def _beside_controls(volumes: CloudVolumes) -> str:
    change = volumes.changes[MODULATED]
    sentences = []
    if math.isfinite(change.log_volume.value):
        sentences.append(
            f"Mean log volume changes by {_text(change.log_volume)}, of which the states' size makes "
            f"{_text(change.log_size)}: beyond it {_text(change.beyond_size)}."
        )
    controls = {name: each for name, each in volumes.changes.items() if name != MODULATED}
    if controls:
        told = ", ".join(f"{name} {_text(each.cv)}" for name, each in controls.items())
        sentences.append(f"Controls of equal strength change the CV by: {told}.")
    sentences.append(
        "No value of the CV is right by itself: what counts is what lies beyond the null and the controls."
    )
    return " ".join(sentences)


def _null_table(found: Mapping[str, CloudVolumes], k: int, unit: str) -> Table:
    rows: list[Sequence[Cell]] = [
        [
            name,
            space,
            _cell(volumes.cv[name]),
            finite_or_none(profile.predicted_cv),
            finite_or_none(profile.matched.cv.value),
            finite_or_none(volumes.cv[name].value - profile.matched.cv.value),
            finite_or_none(profile.matched.p),
        ]
        for space, volumes in found.items()
        for name, profile in volumes.profiles.items()
    ]
    caption = (
        "CV: standard deviation by mean. formula: from effective dimension and spread of norms alone. null: Gaussian "
        "clouds of the same covariance and norms; excess: CV less theirs; p: its rank among theirs. Intervals: "
        f"jackknife over {unit}."
    )
    columns = ["states", "dimensions", "CV", "formula", "null CV", "excess", "p"]
    return Table(f"How much volumes of {k}-simplices of states vary", columns, rows, caption)


def _change_table(found: Mapping[str, CloudVolumes], unit: str) -> Table:
    rows: list[Sequence[Cell]] = [
        [name, space, change.n_joint, _cell(change.cv), _cell(change.log_volume), _cell(change.beyond_size)]
        for space, volumes in found.items()
        for name, change in volumes.changes.items()
    ]
    caption = (
        "The same simplices in both, those without a volume in either left out. log V: mean log volume; beyond size: "
        f"less what the change of the states' lengths makes of it. Intervals: jackknife over {unit}, paired."
    )
    columns = ["less frozen", "dimensions", "simplices", "CV", "log V", "beyond size"]
    return Table("Volumes less those of the frozen model", columns, rows, caption)


def _flat(change: VolumeChange) -> dict[str, Any]:
    flat: dict[str, Any] = {"n_simplices": change.n_simplices, "n_joint": change.n_joint}
    for name in ("cv", "log_volume", "log_size", "beyond_size"):
        for end, value in asdict(getattr(change, name)).items():
            flat[name if end == "value" else f"{name}_{end}"] = finite_or_none(value)
    return flat


def _cell(estimate: Estimate) -> Cell:
    return interval_cell(estimate.value, estimate.low, estimate.high)


def _text(estimate: Estimate) -> str:
    written = cell_text(_cell(estimate))
    return f"{written.text} {written.interval}".strip()
