"""Figures of the matched-rank analysis: what maps of each rank reach, and how strongly layers are correlated.

A *record* is a mapping with `layer` (L) and `leap` (k); each pair has a panel of its own. With thousands of ranks, give
the records of `shown_ranks` alone.
"""

from collections.abc import Collection, Sequence
from itertools import cycle
from typing import Any

import altair as alt

from src.report.figures.theme import (
    CATEGORIES,
    FAINT_INK,
    GREY,
    GRID,
    INK,
    Record,
    bounded,
    data,
    finite,
    ordered,
    short_number,
    themed,
)

# how far below 0 curves are followed, as a share of the highest: truncated operators can fall to -7
DEPTH = 0.35
HIGHEST_EFFICIENCY = 1.25
_SHOWN = 72
_HUES = [hue for hue in CATEGORIES if hue != GREY]


def shown_ranks(d: int) -> list[int]:
    """Ranks of 1..d that are enough to draw a curve over a logarithmic axis: all the low ones, and both ends."""
    return sorted({max(1, min(d, round(d ** (i / (_SHOWN - 1))))) for i in range(_SHOWN)})


def rank_curves(
    records: Sequence[Record],
    title: str = "What maps of each rank explain",
    *,
    label: str = "R² on held-out rows",
    subtitle: str | None = None,
) -> alt.FacetChart:
    """R2 against the rank, one line per family of maps; ceilings are dashed.

    Args:
        records: one per pair, curve and rank: `rank`, `curve` (its name; order and colours follow the records), `r2`,
            if known `r2_low` and `r2_high` (a band), and `is_ceiling` (False if absent). All in one metric, which
            label or title should name.
        title: what the figure shows.
        label: the name of the score.
        subtitle: a second, fainter line.
    """
    highest = max([0.0, *finite(records, "r2")])
    domain = bounded(finite(records, "r2"), -DEPTH * highest if highest > 0 else -1.0)
    return _curves(records, "r2", label, domain, title, subtitle)


def efficiency_curves(
    records: Sequence[Record],
    title: str = "How much of the ceiling maps of each rank reach",
    *,
    label: str = "efficiency: R² / ceiling",
    subtitle: str | None = None,
) -> alt.FacetChart:
    """Efficiency against the rank, one line per family of maps; a gap where the ceiling is not above 0.

    Args:
        records: as in `rank_curves`, with `efficiency` for `r2`.
        title: what the figure shows.
        label: the name of the score.
        subtitle: a second, fainter line.
    """
    values = finite(records, "efficiency")
    low, high = bounded(values, -DEPTH)
    return _curves(records, "efficiency", label, [low, min(max(high, 1.05), HIGHEST_EFFICIENCY)], title, subtitle)


def _curves(
    records: Sequence[Record], value: str, label: str, domain: list[float], title: str, subtitle: str | None
) -> alt.FacetChart:
    curves = ordered(records, "curve")
    ceilings = {record["curve"] for record in records if record.get("is_ceiling")}
    ends = {"low": f"{value}_low", "high": f"{value}_high"}
    rows = [
        _row(record, rank=record["rank"], curve=record["curve"], score=record[value])
        | {name: record[field] for name, field in ends.items() if field in record}
        for record in records
    ]
    base = alt.Chart().encode(x=_rank_axis("rank", "rank r", records))
    scale = alt.Scale(domain=domain, clamp=True, nice=False)
    y = alt.Y("score:Q", title=label, scale=scale, axis=_axis("datum.value === 0"))
    legend = _legend(columns=2)
    dashes = alt.Scale(domain=curves, range=[[5, 4] if curve in ceilings else [1, 0] for curve in curves])
    # equal legends of one field are drawn as one
    line = base.encode(
        y=y,
        color=_colour("curve", curves, legend, faint=ceilings),
        strokeDash=alt.StrokeDash("curve:N", title=None, sort=curves, scale=dashes, legend=legend),
    )
    tooltip = [
        *_pair_tooltip(),
        alt.Tooltip("curve:N", title="curve"),
        alt.Tooltip("rank:Q", title="rank r"),
        alt.Tooltip("score:Q", title=label, format=".4f"),
    ]
    band = base.mark_area(opacity=0.18).encode(
        y=alt.Y("low:Q", title=label, scale=scale), y2="high:Q", color=_colour("curve", curves, legend, faint=ceilings)
    )
    layered = [
        *([band.transform_filter("isValid(datum.low)")] if finite(records, ends["low"]) else []),
        line.mark_line(strokeWidth=2.4).transform_filter(_is_one_of("curve", set(curves) - ceilings)),
        line.mark_line(strokeWidth=1.5).transform_filter(_is_one_of("curve", ceilings)),
        # wide unseen points, so that the tooltip is easy to hit
        base.mark_point(opacity=0, size=90, filled=True).encode(y=y, tooltip=tooltip),
    ]
    notes, values = [subtitle] if subtitle else [], finite(records, value)
    if any(score < domain[0] for score in values):
        notes.append(f"drawn at the lower edge: values below {short_number(domain[0], 2)}")
    if any(score > domain[1] for score in values):
        notes.append(f"drawn at the upper edge: values above {short_number(domain[1], 2)}")
    return _faceted(layered, rows, records, title, "; ".join(notes) or None)


def correlation_spectrum(
    records: Sequence[Record],
    null: Sequence[Record] = (),
    edges: Sequence[Record] = (),
    title: str = "Canonical correlations between layers",
    *,
    subtitle: str | None = None,
) -> alt.FacetChart:
    """Canonical correlations in falling order of those of the training rows: in sample, and on rows not seen.

    Args:
        records: one per pair, kind and place: `place` (1..d), `kind` (in sample, cross-fitted, ...) and `correlation`.
        null: one per pair and place: `place`, `low` and `high`: where cross-fitted correlations of shuffled documents
            lie. A grey band.
        edges: one per pair: `edge`, the largest in-sample correlation of independent rows. A dashed line.
        title: what the figure shows.
        subtitle: a second, fainter line.
    """
    kinds = ordered(records, "kind")
    rows = [_row(record, place=record["place"], kind=record["kind"], rho=record["correlation"]) for record in records]
    rows += [_row(record, place=record["place"], low=record["low"], high=record["high"]) for record in null]
    rows += [_row(record, edge=record["edge"]) for record in edges]
    lowest = min([0.0, *finite(records, "correlation"), *finite(null, "low")])
    scale = alt.Scale(domain=[lowest, 1.0], nice=False)
    y = alt.Y("rho:Q", title="correlation", scale=scale, axis=_axis("datum.value === 0"))
    base = alt.Chart().encode(x=_rank_axis("place", "place i", [*records, *null]))
    lines = base.transform_filter("isValid(datum.rho)").encode(y=y, color=_colour("kind", kinds, _legend(columns=3)))
    tooltip = [
        *_pair_tooltip(),
        alt.Tooltip("kind:N", title="rows"),
        alt.Tooltip("place:Q", title="place i"),
        alt.Tooltip("rho:Q", title="correlation", format=".4f"),
    ]
    layered: list[alt.Chart] = []
    notes = [subtitle] if subtitle else []
    if null:
        band = base.mark_area(color=GREY, opacity=0.35).transform_filter("isValid(datum.low)")
        layered.append(band.encode(y=alt.Y("low:Q", title="correlation", scale=scale), y2="high:Q"))
        notes.append("grey: shuffled documents")
    if edges:
        edge = alt.Chart().mark_rule(color=FAINT_INK, strokeDash=[2, 3]).transform_filter("isValid(datum.edge)")
        layered.append(edge.encode(y=alt.Y("edge:Q", title="correlation", scale=scale)))
        notes.append("dotted: largest in-sample correlation of independent rows")
    layered += [
        lines.mark_line(strokeWidth=1.8),
        lines.mark_point(opacity=0, size=90, filled=True).encode(tooltip=tooltip),
    ]
    return _faceted(layered, rows, records, title, "; ".join(notes) or None)


def _row(record: Record, **fields: Any) -> dict[str, Any]:
    layer, leap = record["layer"], record["leap"]
    return {"layer": layer, "target": layer + leap, "pair": _pair(record), **fields}


def _pair(record: Record) -> str:
    return f"L = {record['layer']}, k = {record['leap']}"


def _pair_tooltip() -> list[alt.Tooltip]:
    return [alt.Tooltip("layer:Q", title="source layer L"), alt.Tooltip("target:Q", title="target layer L + k")]


def _rank_axis(field: str, title: str, records: Sequence[Record]) -> alt.X:
    last = max([2.0, *finite(records, field)])
    # both ends, and no other label so near to the last that they touch
    ticks = [*(2**i for i in range(0, 20, 1 if last <= 32 else 2) if 2**i * 1.8 <= last), last]
    return alt.X(
        f"{field}:Q",
        title=title,
        scale=alt.Scale(type="log", domain=[1, last], nice=False),
        axis=alt.Axis(values=ticks, format="d", grid=False),
    )


def _colour(field: str, names: list[str], legend: alt.Legend, faint: Collection[str] = ()) -> alt.Color:
    """Hues in the order of the names; those in `faint` are black and grey, in turn."""
    hues, inks = cycle(_HUES), cycle([INK, GREY])
    colours = [next(inks if name in faint else hues) for name in names]
    scale = alt.Scale(domain=names, range=colours)
    return alt.Color(f"{field}:N", title=None, sort=names, scale=scale, legend=legend)


def _legend(columns: int) -> alt.Legend:
    return alt.Legend(
        orient="top", symbolType="stroke", symbolStrokeWidth=2.2, symbolSize=350, symbolOpacity=1, columns=columns
    )


def _is_one_of(field: str, names: Collection[str]) -> alt.FieldOneOfPredicate:
    return alt.FieldOneOfPredicate(field=field, oneOf=sorted(names))


def _axis(strong: str) -> alt.Axis:
    """The grid line where `strong` holds stands out."""
    colour = alt.when(strong).then(alt.value(FAINT_INK)).otherwise(alt.value(GRID))
    return alt.Axis(tickCount=6, gridColor=colour)  # type: ignore[arg-type]


def _faceted(
    layered: Sequence[alt.Chart],
    rows: list[dict[str, Any]],
    records: Sequence[Record],
    title: str,
    subtitle: str | None,
) -> alt.FacetChart:
    pairs = [_pair(record) for record in sorted(records, key=lambda record: (record["layer"], record["leap"]))]
    pairs = list(dict.fromkeys(pairs))
    width, height = (420, 260) if len(pairs) == 1 else (250, 180)
    chart = (
        alt.layer(*layered, data=data(rows))
        .properties(width=width, height=height)
        .facet(
            facet=alt.Facet("pair:N", sort=pairs, title=None, header=alt.Header(title=None)),
            columns=min(3, len(pairs)),
            spacing=22,
        )
    )
    return themed(chart, title, subtitle)
