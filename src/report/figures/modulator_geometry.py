"""Geometry of modulated states: relations of words by layer, and differences to the frozen model and controls."""

from collections.abc import Sequence
from typing import Any

import altair as alt

from src.report.figures.lexicon import NO_LAYER
from src.report.figures.theme import (
    BLUE,
    FAINT_INK,
    GREEN,
    GREY,
    GRID,
    INK,
    ORANGE,
    PINK,
    SHADE,
    SKY,
    VERMILION,
    Record,
    data,
    ordered,
    themed,
)

_HEIGHT, _WIDTH = 210, 290
_ROW = 26
# the modulator and the frozen model stand out
_FIRST = (BLUE, INK)
_OTHERS = (ORANGE, VERMILION, GREEN, PINK, SKY, GREY)


def relations_chart(
    by_layer: Sequence[Record], differences: Sequence[Record], by_distance: Sequence[Record], title: str, subtitle: str
) -> Any:
    """Correlations of all readings by layer, paired differences after the last one, mean cosines by distance.

    Args:
        by_layer: `series`, `x` (NO_LAYER for what is of no layer), `value`, `null_low`, `null_high`; the modulator
            first, then the frozen model.
        differences: `panel`, `row`, `value`, `low`, `high`.
        by_distance: `series`, `x`, `value`, `low`, `high`, `n_pairs`.
        title: what the figure shows.
        subtitle: a second, fainter line.
    """
    series = ordered(by_layer, "series")
    colours = [*_FIRST, *(_OTHERS[place % len(_OTHERS)] for place in range(len(series)))][: len(series)]
    colour = alt.Color(
        "series:N",
        title=None,
        sort=series,
        scale=alt.Scale(domain=series, range=colours),
        legend=alt.Legend(orient="top", symbolType="stroke", symbolOpacity=1, columns=8),
    )
    lines = alt.hconcat(_by_layer(by_layer, colour), _by_distance(by_distance, colour), spacing=40)
    return themed(alt.vconcat(lines, difference_panels(differences), spacing=26), title, subtitle)


def volumes_chart(differences: Sequence[Record], title: str) -> Any:
    """Differences of volumes: records as of `relations_chart`."""
    return themed(difference_panels(differences), title)


def difference_panels(records: Sequence[Record]) -> alt.HConcatChart:
    """A panel for each `panel` with a point and its interval for each `row`, and a line at 0."""
    panels = []
    for place, name in enumerate(ordered(records, "panel")):
        here = [record for record in records if record["panel"] == name]
        rows = ordered(here, "row")
        axis = alt.Axis(ticks=False, domain=False, labels=place == 0)
        base = alt.Chart(data(here)).encode(y=alt.Y("row:N", title=None, sort=rows, axis=axis))
        tooltip = [alt.Tooltip("row:N"), *(alt.Tooltip(f"{end}:Q", format=".4f") for end in ("value", "low", "high"))]
        x = alt.X("value:Q", title=None, axis=alt.Axis(tickCount=4))
        zero = alt.Chart(data([{"at": 0}])).mark_rule(color=FAINT_INK, strokeDash=[4, 3]).encode(x="at:Q")
        layers = [
            zero,
            base.mark_rule(strokeWidth=2, color=BLUE).encode(x=alt.X("low:Q", title=None), x2="high:Q"),
            base.mark_point(filled=True, size=55, opacity=1, color=BLUE).encode(x=x, tooltip=tooltip),
        ]
        panels.append(alt.layer(*layers).properties(width=190, height=_ROW * len(rows), title=_heading(name)))
    return alt.hconcat(*panels, spacing=24)


def _heading(text: str) -> alt.TitleParams:
    return alt.TitleParams(text, fontSize=12, fontWeight="normal", offset=6)


def _by_layer(records: Sequence[Record], colour: alt.Color) -> Any:
    places = ordered(records, "x")
    axis = alt.Axis(
        grid=False, tickMinStep=1, labelExpr=f"datum.value == {NO_LAYER} ? 'emb.' : datum.label", format="d"
    )
    domain = [min(places), max(places)]
    x = alt.X("x:Q", title="layer", axis=axis, scale=alt.Scale(domain=domain, nice=False, padding=10))
    y = alt.Y("value:Q", title=None, axis=alt.Axis(tickCount=5, gridColor=GRID))
    tooltip = [
        alt.Tooltip("series:N", title="states"),
        alt.Tooltip("x:Q", title="layer"),
        alt.Tooltip("value:Q", title="r", format=".4f"),
        alt.Tooltip("null_low:Q", title="chance, from", format=".4f"),
        alt.Tooltip("null_high:Q", title="chance, to", format=".4f"),
    ]
    base = alt.Chart(data(records)).encode(x=x, color=colour)
    null = (
        alt.Chart(data(records))
        .transform_aggregate(null_low="min(null_low)", null_high="max(null_high)", groupby=["x"])
        .mark_area(color=SHADE, opacity=0.8)
        .encode(x=x, y=alt.Y("null_low:Q", title=None), y2="null_high:Q")
    )
    lines = base.transform_filter(f"datum.x > {NO_LAYER}").mark_line(strokeWidth=1.8).encode(y=y)
    points = base.mark_point(filled=True, size=34, opacity=1).encode(y=y, tooltip=tooltip)
    heading = _heading("Correlation of cosines with path similarity")
    return alt.layer(null, lines, points).properties(width=_WIDTH, height=_HEIGHT, title=heading)


def _by_distance(records: Sequence[Record], colour: alt.Color) -> Any:
    axis = alt.Axis(grid=False, tickMinStep=1, format="d")
    x = alt.X("x:Q", title="distance in the taxonomy", axis=axis, scale=alt.Scale(padding=10, nice=False, zero=False))
    base = alt.Chart(data(records)).encode(x=x, color=colour)
    y = alt.Y("value:Q", title=None, axis=alt.Axis(tickCount=5))
    tooltip = [
        alt.Tooltip("series:N", title="states"),
        alt.Tooltip("x:Q", title="distance"),
        alt.Tooltip("n_pairs:Q", title="pairs"),
        *(alt.Tooltip(f"{end}:Q", format=".4f") for end in ("value", "low", "high")),
    ]
    layers = [
        base.mark_rule(strokeWidth=1.3).encode(y=alt.Y("low:Q", title=None), y2="high:Q"),
        base.mark_line(strokeWidth=1.6).encode(y=y),
        base.mark_point(filled=True, size=34, opacity=1).encode(y=y, tooltip=tooltip),
    ]
    return alt.layer(*layers).properties(width=_WIDTH, height=_HEIGHT, title=_heading("Mean cosine by distance"))
