"""Figures of persistent homology: diagrams, barcodes, Betti and survival curves, one panel per cloud.

A *bar record* has `cloud` (what a panel is called), `dimension`, `birth`, `death` (None or infinite: it never dies)
and, where they are known, `p` and `significant`.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt

from src.report.figures.theme import (
    BLUE,
    FAINT_INK,
    GREY,
    ORANGE,
    SHADE,
    VERMILION,
    Record,
    ordered,
    panels,
    themed,
)

# of each cloud and dimension so many bars are drawn, the longest: more are one dark line beside the diagonal
MOST_DRAWN = 250
MOST_IN_BARCODE = 40
SIGNIFICANT = "significant loop"


def persistence_diagrams(
    bars: Sequence[Record],
    null_bands: Mapping[str, float] | None = None,
    title: str = "Persistence diagrams",
    *,
    null: str = "null model",
    scale: str = "distance",
) -> alt.FacetChart:
    """Birth against death of every bar; a bar that never dies stands on the upper edge.

    Args:
        bars: bar records.
        null_bands: for each cloud the lifetime that the longest loop of the null model reaches in 5 % of its draws:
            loops inside of the shaded band are no longer than that.
        title: what the figure shows.
        null: name of the null model.
        scale: unit of the axes.
    """
    bands = null_bands or {}
    rows: list[dict[str, Any]] = []
    for cloud in ordered(bars, "cloud"):
        mine = [bar for bar in bars if bar["cloud"] == cloud]
        top = 1.06 * max([float(bar["death"]) for bar in mine if _dies(bar)] or [1.0])
        for dimension in ordered(mine, "dimension"):
            longest = sorted((bar for bar in mine if bar["dimension"] == dimension), key=_length, reverse=True)
            rows += [_dot(cloud, bar, top) for bar in longest[:MOST_DRAWN]]
        ends = (0.0, top)
        rows += [{"cloud": cloud, "part": "diagonal", "birth": end, "death": end} for end in ends]
        if cloud in bands:
            rows += [
                {"cloud": cloud, "part": "band", "birth": end, "death": end, "upper": min(end + bands[cloud], top)}
                for end in (0.0, max(top - bands[cloud], 0.0), top)
            ]
    x = alt.X("birth:Q", title=f"birth ({scale})", scale=alt.Scale(nice=False, zero=True), axis=alt.Axis(tickCount=5))
    y = alt.Y("death:Q", title=f"death ({scale})", scale=alt.Scale(nice=False, zero=True))
    kinds = [kind for kind in (*_kinds(bars), SIGNIFICANT) if any(row.get("kind") == kind for row in rows)]
    layered = [
        _part("band").mark_area(color=SHADE, opacity=0.55).encode(x=x, y=y, y2="upper:Q"),
        _part("diagonal").mark_line(color=GREY, strokeDash=[4, 3], strokeWidth=1).encode(x=x, y=y),
        _part("bar")
        .mark_point(filled=True, opacity=0.75)
        .encode(
            x=x,
            y=y,
            color=_colour(kinds),
            shape=alt.Shape(
                "kind:N",
                title=None,
                scale=alt.Scale(domain=kinds, range=["diamond" if kind == SIGNIFICANT else "circle" for kind in kinds]),
            ),
            size=alt.Size("size:Q", scale=None),
            tooltip=[
                alt.Tooltip("kind:N", title="bar"),
                alt.Tooltip("birth:Q", format=".4g"),
                alt.Tooltip("end:N", title="death"),
                alt.Tooltip("length:Q", title="lifetime", format=".4g"),
                alt.Tooltip("p:Q", format=".2g"),
            ],
        ),
    ]
    chart = panels(layered, rows, "cloud:N", "", columns=3, width=230, height=230).resolve_scale(
        x="independent", y="independent"
    )
    notes = [f"shaded: as long as the longest loop in 95 % of the {null}'s draws" if bands else "", _cut_note(bars)]
    return themed(chart, title, "; ".join(note for note in notes if note) or None)


def barcodes(
    bars: Sequence[Record],
    null_bands: Mapping[str, float] | None = None,
    title: str = "Longest loops",
    *,
    dimension: int = 1,
    null: str = "null model",
    scale: str = "distance",
) -> alt.FacetChart:
    """The longest bars of one dimension as lines from birth to death, longest on top.

    Args:
        bars: bar records.
        null_bands: as of `persistence_diagrams`: from a bar's birth on, a thin line reaches as far as the null's would.
        title: what the figure shows.
        dimension: of the bars that are drawn.
        null: name of the null model.
        scale: unit of the axis.
    """
    bands = null_bands or {}
    rows: list[dict[str, Any]] = []
    for cloud in ordered(bars, "cloud"):
        mine = [bar for bar in bars if bar["cloud"] == cloud and bar["dimension"] == dimension and _dies(bar)]
        for place, bar in enumerate(sorted(mine, key=_length, reverse=True)[:MOST_IN_BARCODE]):
            row = _dot(cloud, bar, math.inf) | {"place": place + 1}
            if cloud in bands:
                row["null_end"] = bar["birth"] + bands[cloud]
            rows.append(row)
    if not rows:
        rows = [{"cloud": cloud, "part": "none", "place": 1} for cloud in ordered(bars, "cloud")]
    kinds = [kind for kind in (_name(dimension), SIGNIFICANT) if any(row.get("kind") == kind for row in rows)]
    y = alt.Y("place:O", title="bars, longest first", axis=alt.Axis(labels=False, ticks=False))
    x = alt.X("birth:Q", title=scale, scale=alt.Scale(zero=False), axis=alt.Axis(tickCount=5, labelOverlap=True))
    layered = [
        alt.Chart().mark_bar(height=2, color=SHADE).encode(x=x, x2="null_end:Q", y=y),
        alt.Chart()
        .mark_bar(height=4)
        .encode(
            x=x,
            x2="death:Q",
            y=y,
            color=_colour(kinds),
            tooltip=[
                alt.Tooltip("place:O", title="place"),
                alt.Tooltip("birth:Q", format=".4g"),
                alt.Tooltip("death:Q", format=".4g"),
                alt.Tooltip("length:Q", title="lifetime", format=".4g"),
                alt.Tooltip("p:Q", format=".2g"),
            ],
        ),
    ]
    chart = panels(layered, rows, "cloud:N", "", columns=3, width=230, height=200).resolve_scale(x="independent")
    note = f"grey: a bar this long would be the {null}'s longest in 5 % of its draws" if bands else None
    return themed(chart, title, note)


def scale_curves(
    points: Sequence[Record],
    title: str,
    *,
    label: str,
    scale: str = "scale (of the diameter)",
    null: str = "null model",
) -> alt.FacetChart:
    """A curve over the scale for each cloud, with the null model's band: Betti curves and survival curves.

    Args:
        points: `cloud`, `scale`, `value`, and where they are known `null_low` and `null_high` (the middle 95 % of the
            null model's curves at this scale) and `series` (several lines in a panel, as dimensions).
        title: what the figure shows.
        label: of the vertical axis.
        scale: of the horizontal axis.
        null: name of the null model.
    """
    rows = [{"series": "", **point} for point in points]
    series = ordered(rows, "series")
    has_null = any(row.get("null_high") is not None for row in rows)
    x = alt.X("scale:Q", title=scale, scale=alt.Scale(zero=True), axis=alt.Axis(tickCount=5))
    y = alt.Y("value:Q", title=label, scale=alt.Scale(type="symlog", constant=5), axis=alt.Axis(tickCount=5))
    colour = alt.Color(
        "series:N",
        title=None,
        sort=series,
        scale=alt.Scale(domain=series, range=[BLUE, ORANGE, VERMILION][: len(series)]),
        legend=alt.Legend(orient="top") if len(series) > 1 else None,
    )
    layered = [
        alt.Chart()
        .mark_area(opacity=0.5, color=SHADE, interpolate="step-after")
        .encode(x=x, y=alt.Y("null_low:Q", title=label), y2="null_high:Q", detail="series:N"),
        alt.Chart()
        .mark_line(interpolate="step-after", strokeWidth=1.6)
        .encode(
            x=x,
            y=y,
            color=colour,
            tooltip=[
                alt.Tooltip("scale:Q", format=".4g"),
                alt.Tooltip("value:Q", title=label, format=".4g"),
                alt.Tooltip("null_low:Q", title=f"{null}, low", format=".4g"),
                alt.Tooltip("null_high:Q", title=f"{null}, high", format=".4g"),
            ],
        ),
    ]
    chart = panels(layered, rows, "cloud:N", "", columns=3, width=230, height=160).resolve_scale(x="independent")
    return themed(chart, title, f"shaded: the middle 95 % of the {null}" if has_null else None)


def _part(name: str) -> alt.Chart:
    return alt.Chart().transform_filter(alt.datum.part == name)


def _dies(bar: Record) -> bool:
    return bar["death"] is not None and math.isfinite(bar["death"])


def _length(bar: Record) -> float:
    return bar["death"] - bar["birth"] if _dies(bar) else math.inf


def _dot(cloud: Any, bar: Record, top: float) -> dict[str, Any]:
    dies, significant = _dies(bar), bool(bar.get("significant"))
    return {
        "cloud": cloud,
        "part": "bar",
        "kind": SIGNIFICANT if significant else _name(bar["dimension"]),
        "birth": bar["birth"],
        "death": bar["death"] if dies else top,
        "end": f"{bar['death']:.4g}" if dies else "never",
        "length": _length(bar),
        "p": bar.get("p"),
        "size": 90 if significant else 22,
    }


def _name(dimension: int) -> str:
    return {0: "component (H0)", 1: "loop (H1)", 2: "void (H2)"}.get(dimension, f"H{dimension}")


def _kinds(bars: Sequence[Record]) -> list[str]:
    return [_name(dimension) for dimension in ordered(bars, "dimension")]


def _colour(kinds: Sequence[str]) -> alt.Color:
    known = {_name(0): GREY, _name(1): BLUE, _name(2): ORANGE, SIGNIFICANT: VERMILION}
    legend = alt.Legend(orient="top", symbolOpacity=1) if len(kinds) > 1 else None
    return alt.Color(
        "kind:N",
        title=None,
        scale=alt.Scale(domain=list(kinds), range=[known.get(kind, FAINT_INK) for kind in kinds]),
        legend=legend,
    )


def _cut_note(bars: Sequence[Record]) -> str:
    counts: dict[tuple[Any, int], int] = {}
    for bar in bars:
        key = (bar["cloud"], bar["dimension"])
        counts[key] = counts.get(key, 0) + 1
    cut = any(count > MOST_DRAWN for count in counts.values())
    return f"the {MOST_DRAWN} longest bars of each dimension are drawn" if cut else ""
