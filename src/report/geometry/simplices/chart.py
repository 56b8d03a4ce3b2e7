"""The records behind the figure of simplices."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from scipy.special import polygamma
from torch import Tensor

from src.geometry.simplices.joint import JointStatistics
from src.geometry.simplices.nulls import NULLS
from src.geometry.simplices.profile import SimplexProfile
from src.report.artifact_report import NamedChart
from src.report.figures.simplices import DATA, OTHER, simplex_figure

_MOST_BINS = 60
_CELLS = 40
_SHORT = {
    "entry_std": "one spread",
    "dimension_std": "spread of dimensions",
    "covariance": "covariance",
    "covariance_and_norms": "covariance and norms",
}
_WITHOUT_STRUCTURE = "Gaussian of that dimension"


def simplex_chart(profiles: Mapping[str, SimplexProfile], joint: Mapping[str, JointStatistics]) -> NamedChart:
    """Volumes, spreads and norms of each space, and each pair of spaces."""
    first = next(iter(profiles))
    k = profiles[first].k
    spaces = [_space(name, profile) for name, profile in profiles.items()]
    pairs = [
        {
            "name": f"the same simplices in both: r {found.log_volumes.r.value:.3f}",
            "x_label": f"log volume, {first}",
            "y_label": f"log volume, {name}",
            "cells": _cells(found.log_pairs),
        }
        for name, found in joint.items()
        if len(found.log_pairs)
    ]
    title = f"Volumes of {k}-simplices beside clouds without structure"
    caption = (
        "Left: volumes of random simplices, and of four Gaussian clouds that share ever more with the data; structure "
        "is what the blue curve has beyond the orange one. Middle: coefficients of variation with 95 % intervals, and "
        "what formulas give for clouds without structure. Right: the norms, whose spread counts for much of it."
    )
    if pairs:
        caption += " Below: the same simplices in two spaces."
    return NamedChart("simplices", title, simplex_figure(spaces, pairs, title), caption)


def _space(name: str, profile: SimplexProfile) -> dict[str, Any]:
    order = {DATA: DATA} | {null: _SHORT[null] for null in reversed(list(NULLS))}
    reference = profile.volumes.log_mean
    clouds = {DATA: profile.log_volumes} | dict(profile.null_log_volumes)
    relative = {null: (clouds[null] - reference).exp() for null in order}
    spreads: list[dict[str, Any]] = [{"what": DATA, "colour": DATA} | _estimate(profile.cv)]
    spreads += [
        {"what": order[null], "colour": order[null]} | _estimate(profile.nulls[null].cv) for null in list(order)[1:]
    ]
    formulas = {"formula with norms": profile.predicted_cv, "formula, Gaussian": profile.gaussian_cv}
    spreads += [{"what": words, "colour": OTHER, "cv": value} for words, value in formulas.items()]
    return {
        "name": name,
        "order": list(order.values()),
        "densities": [
            {"series": order[null]} | record
            for null, record in _histograms({null: values[values.isfinite()] for null, values in relative.items()})
        ],
        "spreads": spreads,
        "norms": _norms(profile),
    }


def _estimate(estimate: Any) -> dict[str, float]:
    return {"cv": estimate.value, "low": estimate.low, "high": estimate.high}


def _norms(profile: SimplexProfile) -> list[dict[str, Any]]:
    norms = profile.norms[profile.norms > 0]
    if not len(norms):
        return []
    relative = norms / norms.mean()
    records = [{"series": DATA} | record for _, record in _histograms({DATA: relative})]
    if profile.effective_dimension == profile.effective_dimension:
        # log norms of a Gaussian are close to normal
        spread = math.sqrt(float(polygamma(1, profile.effective_dimension / 2)) / 4)
        for z in np.linspace(-3.5, 3.5, _MOST_BINS):
            x = math.exp(spread * z - spread**2 / 2)
            density = math.exp(-(z**2) / 2) / math.sqrt(2 * math.pi) / spread / x
            records.append({"series": _WITHOUT_STRUCTURE, "x": x, "density": density})
    return records


def _histograms(series: Mapping[str, Float[Tensor, " value"]]) -> list[tuple[str, dict[str, float]]]:
    """Densities of all series over the same bins, from the least to the greatest 0.1 %."""
    filled = {name: values.double() for name, values in series.items() if len(values)}
    if not filled:
        return []
    ends = [np.percentile(values.numpy(), [0.1, 99.9]) for values in filled.values()]
    low, high = float(min(end[0] for end in ends)), float(max(end[1] for end in ends))
    if not high > low:
        low, high = low - 0.5, high + 0.5
    bins = max(10, min(_MOST_BINS, int(min(map(len, filled.values())) ** 0.5)))
    width = (high - low) / bins
    records = []
    for name, values in filled.items():
        counts = torch.histc(values, bins=bins, min=low, max=high)
        for place, count in enumerate(counts.tolist()):
            x = low + (place + 0.5) * width
            records.append((name, {"x": x, "density": count / len(values) / width}))
    return records


def _cells(pairs: Float[Tensor, "simplex 2"]) -> list[dict[str, float]]:
    counts, x, y = np.histogram2d(*pairs.double().numpy().T, bins=_CELLS)
    return [
        {"x": float(x[i]), "x2": float(x[i + 1]), "y": float(y[j]), "y2": float(y[j + 1]), "count": float(counts[i, j])}
        for i, j in zip(*np.nonzero(counts), strict=True)
    ]
