"""The figure of words and their taxonomy: correlation by layer, cosine by distance and by steps up, classes."""

from collections.abc import Sequence
from typing import Any

import altair as alt

from src.report.figures.theme import CATEGORIES, FAINT_INK, SHADE, Record, data, ordered, themed

# where what is of no layer stands on the axis of layers
NO_LAYER = -1
_WIDTH, _HEIGHT = 250, 185
_MOST_TICKS = 14


def lexicon_figure(
    by_layer: Sequence[Record],
    by_distance: Sequence[Record],
    by_steps: Sequence[Record],
    by_class: Sequence[Record],
    title: str,
    subtitle: str,
) -> Any:
    """Panels that share one legend of representations; panels without records are left out.

    Args:
        by_layer: `panel` (title), `series`, `x` (layer, NO_LAYER for embedding rows), `value`, `low`, `high`,
            `null_low`, `null_high`; a panel for each title.
        by_distance: `series`, `x`, `value`, `low`, `high`.
        by_steps: `series`, `x`, `value`, `kind` (ancestors or their control).
        by_class: `class`, `series`, `value`, `null_low`, `null_high`.
        title: what the figure shows.
        subtitle: a second, fainter line.
    """
    series = ordered([*by_layer, *by_distance], "series")
    colour = alt.Color(
        "series:N",
        title=None,
        sort=series,
        scale=alt.Scale(domain=series, range=[CATEGORIES[place % len(CATEGORIES)] for place in range(len(series))]),
        legend=alt.Legend(orient="top", symbolType="stroke", symbolOpacity=1, columns=6),
    )
    charts = []
    for name in ordered(by_layer, "panel"):
        charts.append(_layers([record for record in by_layer if record["panel"] == name], name, colour))
    places = 1 if charts else 0
    if by_distance:
        charts.insert(places, _numbers(by_distance, "Mean cosine by distance", "distance in the taxonomy", colour))
        places += 1
    if by_steps:
        charts.insert(places, _steps(by_steps, colour))
        places += 1
    if by_class:
        charts.append(_classes(by_class, series, colour))
    return themed(alt.concat(*charts, columns=3, spacing={"row": 34, "column": 40}), title, subtitle)


def _heading(text: str) -> alt.TitleParams:
    return alt.TitleParams(text, fontSize=12, fontWeight="normal", offset=6)


def _axis_of_layers(records: Sequence[Record]) -> alt.X:
    places = ordered(records, "x")
    ticks: Any = places if len(places) <= _MOST_TICKS else alt.Undefined
    axis = alt.Axis(
        grid=False,
        values=ticks,
        tickMinStep=1,
        labelExpr=f"datum.value == {NO_LAYER} ? 'emb.' : datum.label",
        format="d",
    )
    domain = [places[0], max(places[-1], places[0] + 1)]
    return alt.X("x:Q", title="layer", axis=axis, scale=alt.Scale(domain=domain, nice=False, padding=10))


def _layers(records: Sequence[Record], name: str, colour: alt.Color) -> Any:
    x = _axis_of_layers(records)
    base = alt.Chart(data(records)).encode(x=x, color=colour)
    y = alt.Y("value:Q", title=None, scale=alt.Scale(zero=True, nice=True), axis=alt.Axis(tickCount=5))
    tooltip = [
        alt.Tooltip("series:N", title="representation"),
        alt.Tooltip("x:Q", title="layer"),
        alt.Tooltip("value:Q", title=name, format=".4f"),
        alt.Tooltip("low:Q", format=".4f"),
        alt.Tooltip("high:Q", format=".4f"),
        alt.Tooltip("null_low:Q", title="chance, from", format=".4f"),
        alt.Tooltip("null_high:Q", title="chance, to", format=".4f"),
    ]
    low, high = alt.Y("low:Q", title=None), alt.Y2("high:Q")
    null = alt.Chart(data(records)).transform_aggregate(
        null_low="min(null_low)", null_high="max(null_high)", groupby=["x"]
    )
    blocks = base.transform_filter(f"datum.x > {NO_LAYER}")
    layered = [
        null.mark_area(color=SHADE, opacity=0.8).encode(x=x, y=alt.Y("null_low:Q", title=None), y2="null_high:Q"),
        blocks.mark_area(opacity=0.18).encode(y=low, y2=high),
        blocks.mark_line(strokeWidth=1.7).encode(y=y),
        base.mark_rule(strokeWidth=1.5).encode(y=low, y2=high),
        base.mark_point(filled=True, size=32, opacity=1).encode(y=y, tooltip=tooltip),
    ]
    return alt.layer(*layered).properties(width=_WIDTH, height=_HEIGHT, title=_heading(name))


def _numbers(records: Sequence[Record], name: str, label: str, colour: alt.Color) -> Any:
    base = alt.Chart(data(records)).encode(
        x=alt.X(
            "x:Q",
            title=label,
            axis=alt.Axis(grid=False, tickMinStep=1, format="d"),
            scale=alt.Scale(padding=10, nice=False, zero=False),
        ),
        color=colour,
    )
    y = alt.Y("value:Q", title=None, axis=alt.Axis(tickCount=5))
    tooltip = [
        alt.Tooltip("series:N", title="representation"),
        alt.Tooltip("x:Q", title=label),
        alt.Tooltip("n_pairs:Q", title="pairs"),
        *(alt.Tooltip(f"{end}:Q", format=".4f") for end in ("value", "low", "high")),
    ]
    zero = alt.Chart(data([{"at": 0}])).mark_rule(color=FAINT_INK, strokeDash=[4, 3])
    layered = [
        zero.encode(y=alt.Y("at:Q", title=None)),
        base.mark_rule(strokeWidth=1.3).encode(y=alt.Y("low:Q", title=None), y2="high:Q"),
        base.mark_line(strokeWidth=1.5).encode(y=y),
        base.mark_point(filled=True, size=32, opacity=1).encode(y=y, tooltip=tooltip),
    ]
    return alt.layer(*layered).properties(width=_WIDTH, height=_HEIGHT, title=_heading(name))


def _steps(records: Sequence[Record], colour: alt.Color) -> Any:
    kinds = ordered(records, "kind")
    base = alt.Chart(data(records)).encode(
        x=alt.X(
            "x:Q",
            title="steps up",
            axis=alt.Axis(grid=False, tickMinStep=1, format="d"),
            scale=alt.Scale(padding=10, nice=False, zero=False),
        ),
        y=alt.Y("value:Q", title=None, axis=alt.Axis(tickCount=5)),
        color=colour,
    )
    dash = alt.StrokeDash(
        "kind:N",
        title=None,
        scale=alt.Scale(domain=kinds, range=[[1, 0], [4, 3]][: len(kinds)]),
        legend=None,
    )
    tooltip = [
        alt.Tooltip("series:N", title="representation"),
        alt.Tooltip("kind:N", title="cosine with"),
        alt.Tooltip("x:Q", title="steps up"),
        alt.Tooltip("n_pairs:Q", title="pairs"),
        alt.Tooltip("n_ancestors:Q", title="ancestors"),
        alt.Tooltip("value:Q", title="mean cosine", format=".4f"),
    ]
    layered = [
        base.mark_line(strokeWidth=1.6).encode(strokeDash=dash),
        base.mark_point(filled=True, size=30, opacity=1).encode(tooltip=tooltip),
    ]
    return alt.layer(*layered).properties(
        width=_WIDTH, height=_HEIGHT, title=_heading("Cosine with words above (dashed: as deep)")
    )


def _classes(records: Sequence[Record], series: Sequence[str], colour: alt.Color) -> Any:
    names = ordered(records, "class")
    y = alt.Y("class:N", title=None, sort=names, axis=alt.Axis(domain=False, ticks=False, labelLimit=130))
    offset = alt.YOffset("series:N", sort=list(series))
    base = alt.Chart(data(records)).encode(y=y, yOffset=offset)
    tooltip = [
        alt.Tooltip("class:N"),
        alt.Tooltip("n:Q", title="words"),
        alt.Tooltip("series:N", title="representation"),
        alt.Tooltip("value:Q", title="above the mean of all", format=".4f"),
        alt.Tooltip("p:Q", title="p, labels permuted", format=".4f"),
    ]
    x = alt.X("value:Q", title="mean cosine in the class, less that of all", axis=alt.Axis(tickCount=5))
    layered = [
        base.mark_bar(color=SHADE, opacity=0.8, height={"band": 0.9}).encode(
            x=alt.X("null_low:Q", title="mean cosine in the class, less that of all"), x2="null_high:Q"
        ),
        base.mark_point(filled=True, size=42, opacity=1).encode(x=x, color=colour, tooltip=tooltip),
    ]
    height = max(_HEIGHT, min(15 * len(records), 420))
    return alt.layer(*layered).properties(width=_WIDTH, height=height, title=_heading("Classes"))
