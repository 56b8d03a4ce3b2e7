"""Figures of embeddings."""

import math
from typing import Any

import numpy as np

from src.geometry.embedding.profile import EmbeddingProfile
from src.report.figures.embedding import (
    bias_heatmap,
    category_bars,
    cosine_heatmap,
    embedding_panels,
    histogram,
    offset_line,
    spectrum_lines,
)
from src.report.figures.theme import themed
from src.report.geometry.embeddings.words import LEVEL
from src.report.token_text import one_line

_SHOWN_DIMENSIONS = 200
_NORM_BINS = 60
_COSINE_BINS = 128
# heat maps of ordered sets: of more sets the first ones, by the strength of their order
_MOST_SETS = 4
_MOST_POINTS = 512
_LARGEST_SET = 40


def overview(profile: EmbeddingProfile) -> Any:
    """All panels on one page."""
    panels = [_norms(profile), _cosines(profile), *_spectra(profile), *_ordered(profile)]
    if profile.categories is not None:
        panels.append(_categories(profile))
    if profile.input_output is not None:
        values = profile.input_output.cosines
        null = [{"at": profile.input_output.unpaired, "text": "different tokens"}]
        records = _histogram_records("input and output", values)
        panels.append(histogram(records, "A token's input and output rows", "cosine", mark=null))
    if profile.positions is not None:
        panels.append(_positions(profile))
    for bias in profile.biases:
        records = [
            {"bucket": bucket, "head": head, "value": float(value)}
            for (bucket, head), value in np.ndenumerate(bias.table)
        ]
        panels.append(bias_heatmap(records, f"Relative position bias: {bias.name.split('.')[0]}"))
    return embedding_panels(panels, f"Embeddings of {profile.model}", f"{len(profile.ids):,} rows")


def category_figure(profile: EmbeddingProfile) -> Any:
    """Mean rows of categories against each other."""
    assert profile.categories is not None
    names = [each.name for each in profile.categories.statistics]
    chart = cosine_heatmap(_pairs(names, profile.categories.centroids.centred), "", diverging=True)
    size = max(240, 17 * len(names))
    return themed(
        chart.properties(width=size, height=size),
        "Categories against each other",
        "mean rows, less the mean of all rows",
    )


def _norms(profile: EmbeddingProfile) -> Any:
    records = [record for table in profile.tables for record in _histogram_records(table.name, table.norm_values)]
    return histogram(records, "Norms of rows", "norm")


def _histogram_records(name: str, values: np.ndarray) -> list[dict[str, Any]]:
    spread = float(np.ptp(values))
    if spread == 0:  # tied rows, or norms that are all 1
        middle, half = float(values[0]), max(abs(float(values[0])) * 0.01, 0.005)
        return [{"table": name, "low": middle - half, "high": middle + half, "share": 1.0}]
    counts, edges = np.histogram(values, bins=min(_NORM_BINS, max(10, math.isqrt(len(values)) * 2)))
    return [
        {"table": name, "low": float(low), "high": float(high), "share": float(count / len(values))}
        for count, low, high in zip(counts, edges[:-1], edges[1:], strict=True)
    ]


def _cosines(profile: EmbeddingProfile) -> Any:
    records = [
        {"table": table.name, "low": low, "high": high, "share": count / table.histogram.n_pairs}
        for table in profile.tables
        for low, high, count in table.histogram.coarse(_COSINE_BINS)
    ]
    first = profile.tables[0]
    at = np.linspace(-4, 4, 81) / math.sqrt(first.width)
    density = np.exp(-np.square(at) * first.width / 2) * math.sqrt(first.width / (2 * math.pi)) * 2 / _COSINE_BINS
    null = [{"at": float(place), "share": float(share)} for place, share in zip(at, density, strict=True)]
    mark = [{"at": first.cosine.mean, "text": f"mean {first.cosine.mean:.3f}"}]
    return histogram(records, "Cosines of all pairs", "cosine", mark=mark, null=null)


def _spectra(profile: EmbeddingProfile) -> list[Any]:
    values, shares = [], []
    for table in profile.tables:
        eigenvalues = table.spectrum.eigenvalues[:_SHOWN_DIMENSIONS]
        values += [
            {"table": table.name, "dimension": place + 1, "value": float(value)}
            for place, value in enumerate(eigenvalues)
            if value > 1e-12 * eigenvalues[0]
        ]
        shares += [
            {"table": table.name, "dimension": place + 1, "value": float(value)}
            for place, value in enumerate(table.spectrum.cumulative[:_SHOWN_DIMENSIONS])
        ]
    participation = profile.tables[0].spectrum.participation
    mark = [{"at": participation, "text": f"PR {participation:.1f}"}] if participation <= _SHOWN_DIMENSIONS else []
    return [
        spectrum_lines(values, "Variance of dimensions", "eigenvalue", log=True, mark=mark),
        spectrum_lines(shares, "Cumulative variance", "share of variance", log=False, mark=mark),
    ]


def _ordered(profile: EmbeddingProfile) -> list[Any]:
    fitting = [each for each in profile.ordered if len(each.found.words) <= _LARGEST_SET]
    # two sets of the same words look alike
    distinct = {each.found.tokens: each for each in sorted(fitting, key=lambda each: -_order(each.statistics.pearson))}
    strongest = sorted(distinct.values(), key=lambda each: _order(each.statistics.pearson))[:_MOST_SETS]
    panels = []
    for each in profile.ordered:
        if each in strongest:
            name = one_line(each.found.ordered.name, 30)
            title = f"{name} (r = {each.statistics.pearson:.2f}, p = {each.adjusted_p:.2g})"
            panels.append(cosine_heatmap(_pairs(each.found.words, each.cosines), title))
    return panels


def _order(pearson: float) -> float:
    return pearson if math.isfinite(pearson) else 1.0


def _pairs(names: Any, matrix: np.ndarray) -> list[dict[str, Any]]:
    shown = [one_line(name, 24) for name in names]
    return [
        {"row": shown[i], "column": shown[j], "value": None if i == j else float(matrix[i, j])}
        for i in range(len(shown))
        for j in range(len(shown))
    ]


def _categories(profile: EmbeddingProfile) -> Any:
    assert profile.categories is not None
    found = profile.categories
    pairs = sorted(zip(found.statistics, found.adjusted_p, strict=True), key=lambda pair: -pair[0].cosine)
    records = [
        {
            "category": one_line(each.name, 24),
            "value": each.cosine,
            "null": each.matched,
            "null_low": each.matched_low,
            "null_high": each.matched_high,
            "beyond": "beyond chance" if p <= LEVEL else "not",
        }
        for each, p in pairs
    ]
    return category_bars(records, "Categories")


def _positions(profile: EmbeddingProfile) -> Any:
    assert profile.positions is not None
    found = profile.positions
    n = found.n_positions
    # the farthest offsets are means of a few pairs
    offsets = np.unique(np.linspace(1, max(n - max(n // 20, 1), 1), min(n - 1, _MOST_POINTS)).astype(int))
    records = [
        {"series": name, "offset": int(offset), "value": float(values[offset])}
        for name, values in (("rows", found.cosine_by_offset), ("less their mean", found.centred_cosine_by_offset))
        for offset in offsets
    ]
    return offset_line(records, f"Learned positions (r = {found.pearson:.2f}, p = {found.p:.2g})")
