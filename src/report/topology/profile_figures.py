"""Figures of clouds: diagrams, barcodes, curves over the scale, profiles over layers, sample sizes."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from src.report.artifact_report import NamedChart
from src.report.figures.persistence import barcodes, persistence_diagrams, scale_curves
from src.report.figures.topology_profile import layer_profile, sample_size_curves
from src.report.topology.profiles import PANELS, null_title
from src.topology.measures.catalogue import STATISTICS
from src.topology.profile import CloudProfile

# of the clouds of a run, the ones with a panel of their own in figures of diagrams
MOST_PANELS = 12
_FEWEST_FOR_CURVES = 20
# of lengths in figures
UNIT = "in units of the scale"


def topology_figures(profiles: Sequence[CloudProfile], level: float) -> list[NamedChart]:
    """Diagrams, barcodes, Betti and survival curves of the first clouds, and the profile over layers."""
    shown = profiles[:MOST_PANELS]
    left_out = f" The first {MOST_PANELS} of {len(profiles)} clouds." if len(profiles) > len(shown) else ""
    bars = [bar for profile in shown for bar in bar_records(profile, level)]
    drawn = profiles[0].statistics["h1_max"].nulls
    null = next((name for name in ("gaussian", "shuffled_scores") if name in drawn), None)
    bands = {}
    if null is not None:
        bands = {profile.name: profile.statistics["h1_max"].nulls[null].top / _unit(profile) for profile in shown}
    named = null_title(null or "")
    figures = [
        NamedChart(
            "diagrams",
            "Persistence diagrams",
            persistence_diagrams(bars, bands, null=named, scale=UNIT),
            f"Births and deaths in units of the cloud's scale.{left_out}",
        ),
        NamedChart(
            "barcodes",
            "Longest loops",
            barcodes(bars, bands, null=named, scale=UNIT),
            f"The longest bars of H1, in units of the cloud's scale.{left_out}",
        ),
    ]
    if max(profile.n_points for profile in shown) >= _FEWEST_FOR_CURVES:
        figures += [
            NamedChart(
                "betti_curves",
                "Betti curves",
                scale_curves(_curve(shown, "betti"), "Betti curves", label="bars alive", scale=f"distance ({UNIT})"),
                f"Components and loops that are there at each scale.{left_out}",
            ),
            NamedChart(
                "survival_curves",
                "Survival curves",
                scale_curves(
                    _curve(shown, "survival"), "Survival curves", label="bars longer", scale=f"lifetime ({UNIT})"
                ),
                f"Bars that are longer than each lifetime.{left_out}",
            ),
        ]
    layered = [profile for profile in profiles if profile.layer is not None]
    if len({profile.layer for profile in layered}) > 1:
        records = [record for profile in layered for record in _layer_records(profile, null)]
        chart = layer_profile(records, null=named)
        figures.insert(0, NamedChart("layers", "Topology over layers", chart, "Statistics without scale."))
    return figures


def bar_records(profile: CloudProfile, level: float) -> list[dict[str, Any]]:
    """The bars of a cloud for figures, in units of its scale."""
    records = []
    for bars in profile.persistence.bars:
        tests = profile.tests.get(bars.dimension)
        for place, (birth, death) in enumerate(bars.diagram.tolist()):
            record = {"cloud": profile.name, "dimension": bars.dimension}
            record |= {"birth": birth / _unit(profile), "death": death / _unit(profile)}
            if tests is not None:
                record |= {"p": float(tests.decisive[place]), "significant": bool(tests.decisive[place] <= level)}
            records.append(record)
    return records


def _unit(profile: CloudProfile) -> float:
    return profile.scale or 1.0


def _curve(profiles: Sequence[CloudProfile], which: str) -> list[dict[str, Any]]:
    return [
        {"cloud": profile.name, "series": f"H{dimension}", "scale": scale, "value": value}
        for profile in profiles
        for dimension, values in getattr(profile.curves, which).items()
        for scale, value in zip((profile.curves.scale / _unit(profile)).tolist(), values.tolist(), strict=True)
    ]


def _layer_records(profile: CloudProfile, null: str | None) -> list[dict[str, Any]]:
    records = []
    for name in PANELS:
        measure = profile.statistics.get(name)
        if measure is None:
            continue
        label = STATISTICS[name].label if name in STATISTICS else name
        record: dict[str, Any] = {"statistic": label, "layer": profile.layer, "value": measure.value}
        if math.isfinite(measure.low):
            record |= {"low": measure.low, "high": measure.high}
        if null in measure.nulls:
            record |= {"null_low": measure.nulls[null].low, "null_high": measure.nulls[null].high}
        records.append(record)
    return records


def ablation_figures(records: Sequence[Mapping[str, Any]]) -> list[NamedChart]:
    """Curves over sizes of subsamples, and over numbers of components."""
    figures = []
    titles = {
        "n_points": (
            "What the number of points does",
            "points in the subsample",
            "Numbers that change along a curve can't be compared between clouds of different sizes.",
        ),
        "pca_components": (
            "What PCA does",
            "principal components",
            "Numbers that change along a curve are those of the projection as much as of the cloud.",
        ),
    }
    for varied, (title, label, caption) in titles.items():
        rows = [
            {**record, "statistic": STATISTICS[record["statistic"]].label}
            for record in records
            if record["varied"] == varied and record["statistic"] in PANELS and record["size"] is not None
        ]
        if rows:
            chart = sample_size_curves(rows, title, size="size", label=label)
            figures.append(NamedChart(varied, title, chart, caption))
    return figures
