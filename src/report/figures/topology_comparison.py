"""Figures of comparisons of topology: profiles side by side, all layers against all, overlap and agreement by layer."""

from collections.abc import Sequence
from typing import Any

import altair as alt

from src.report.figures.theme import (
    CATEGORIES,
    FAINT_INK,
    INK,
    Record,
    data,
    finite,
    ordered,
    panels,
    short_number,
    themed,
)

# more cells than this hold no numbers
_NUMBERED = 12


_ENDS = ("value", "low", "high")


def measures_by_layer(
    records: Sequence[Record], title: str, label: str, *, reference: float | None = None, subtitle: str | None = None
) -> alt.LayerChart:
    """Measures over pairs of clouds, a line each, with intervals; a dashed line at `reference`.

    records: `clouds` (the pair's title), `measure`, `value`, and perhaps `low`, `high`.
    """
    measures = ordered(records, "measure")
    order = list(dict.fromkeys(record["clouds"] for record in records))
    colour = alt.Color(
        "measure:N",
        title=None,
        scale=alt.Scale(domain=measures, range=_colours(len(measures))),
        legend=alt.Legend(orient="right", symbolType="circle", symbolOpacity=1),
    )
    base = alt.Chart(data(records)).encode(x=alt.X("clouds:O", title="layer", sort=order), color=colour)
    ends = [value for value in finite(records, "value", "low", "high")] + [reference or 0.0, 0.0, 1.0]
    y = alt.Y("value:Q", title=label, scale=alt.Scale(domain=[min(ends), max(ends)]), axis=alt.Axis(tickCount=5))
    tooltip = ["measure:N", "clouds:O", *(alt.Tooltip(f"{end}:Q", format=".4g") for end in _ENDS)]
    layers = [
        base.transform_filter("isValid(datum.low)")
        .mark_rule(strokeWidth=2)
        .encode(y=alt.Y("low:Q", title=label), y2="high:Q"),
        base.mark_line(strokeWidth=1.5).encode(y=y),
        base.mark_point(filled=True, size=50, opacity=1).encode(y=y, tooltip=tooltip),
    ]
    if reference is not None:
        layers.append(
            alt.Chart(data([{"at": reference}]))
            .mark_rule(strokeDash=[4, 3], color=FAINT_INK)
            .encode(y=alt.Y("at:Q", title=label))
        )
    width = max(260, 46 * len(order))
    return themed(alt.layer(*layers).properties(width=min(width, 640), height=240), title, subtitle)


def all_layers(matrices: Sequence[Sequence[Record]], title: str, *, rows: str, columns: str) -> alt.HConcatChart:
    """Heat maps of all layers of one result with all of another, side by side, one for each measure.

    matrices: records with `row`, `column` (names of layers), `value`, `measure` (one word for all records of a map),
    and `largest`: the end of the colours, None = the largest value. rows, columns: what the layers are of.
    """
    maps = [_heat_map(records, rows, columns) for records in matrices]
    return themed(alt.hconcat(*maps, spacing=30).resolve_scale(color="independent"), title)


def _heat_map(records: Sequence[Record], rows: str, columns: str) -> Any:
    row_names, column_names = (list(dict.fromkeys(record[key] for record in records)) for key in ("row", "column"))
    values, measure = finite(records, "value"), records[0]["measure"]
    high = records[0]["largest"] or max([*values, 1e-12])
    low = min([0.0, *values])
    most = max(len(row_names), len(column_names))
    step = max(10, min(36, 330 // most))
    drawn = [
        {
            **record,
            "text": "" if record["value"] is None else short_number(record["value"], 2),
            "dark": record["value"] is not None and record["value"] - low > 0.6 * (high - low),
        }
        for record in records
    ]
    axis = alt.Axis(domain=False, ticks=False, labelOverlap=True)
    base = alt.Chart(data(drawn)).encode(
        x=alt.X("column:O", title=columns, sort=column_names, axis=axis),
        y=alt.Y("row:O", title=rows, sort=row_names, axis=axis),
        tooltip=["row:O", "column:O", alt.Tooltip("value:Q", title=measure, format=".4f")],
    )
    scale = alt.Scale(scheme="blues", domain=[low, high], clamp=True)
    colour = alt.Color("value:Q", title=None, scale=scale, legend=alt.Legend(gradientLength=90, tickCount=3))
    layers = [base.mark_rect(stroke="white", strokeWidth=0.5).encode(color=colour)]
    if most <= _NUMBERED:
        ink = alt.when("datum.dark").then(alt.value("white")).otherwise(alt.value(INK))
        layers.append(base.mark_text(fontSize=10 if step > 28 else 8).encode(text="text:N", color=ink))
    heading = alt.TitleParams(measure, fontSize=12, fontWeight="normal", offset=6)
    return alt.layer(*layers).properties(width=alt.Step(step), height=alt.Step(step), title=heading)


def union_pictures(points: Sequence[Record], edges: Sequence[Record], title: str) -> alt.FacetChart:
    """Pairs of clouds in the plane that shows most of their union, a panel each; lines join the clouds.

    points: `clouds` (the pair's title), `result` (whose point it is), `x`, `y`. edges: `clouds`, `x`, `y`, `x2`, `y2`:
    edges of the union's minimum spanning tree from one cloud to the other.
    """
    results = ordered(points, "result")
    rows = [{**edge, "part": "edge"} for edge in edges] + [{**point, "part": "point"} for point in points]
    axis = alt.Axis(labels=False, ticks=False, grid=False)
    x, y = alt.X("x:Q", title="component 1", axis=axis), alt.Y("y:Q", title="component 2", axis=axis)
    colour = alt.Color(
        "result:N",
        title=None,
        scale=alt.Scale(domain=results, range=CATEGORIES[: len(results)]),
        legend=alt.Legend(orient="top", symbolOpacity=1),
    )
    layered = [
        alt.Chart()
        .transform_filter(alt.datum.part == "edge")
        .mark_rule(color=INK, strokeWidth=1, opacity=0.7)
        .encode(x=x, y=y, x2="x2:Q", y2="y2:Q"),
        alt.Chart()
        .transform_filter(alt.datum.part == "point")
        .mark_point(filled=True, size=16, opacity=0.6)
        .encode(x=x, y=y, color=colour),
    ]
    chart = panels(layered, rows, "clouds:N", "", columns=3, width=230, height=230)
    note = "lines: edges of the union's minimum spanning tree that join the clouds"
    return themed(chart.resolve_scale(x="independent", y="independent"), title, note)


def statistic_and_perplexity(records: Sequence[Record], title: str, subtitle: str | None = None) -> alt.FacetChart:
    """Statistics (means over layers) against bits per byte, one point for each model, a panel for each statistic.

    records: `model`, `statistic`, `value`, `bits`.
    """
    base = alt.Chart().encode(
        x=alt.X("bits:Q", title="bits per byte", scale=alt.Scale(zero=False, padding=12)),
        y=alt.Y("value:Q", title=None, scale=alt.Scale(zero=False, padding=12)),
        color=alt.Color("model:N", title=None, scale=alt.Scale(range=CATEGORIES), legend=alt.Legend(orient="top")),
        tooltip=["model:N", "statistic:N", alt.Tooltip("value:Q", format=".4g"), alt.Tooltip("bits:Q", format=".4f")],
    )
    chart = panels([base.mark_point(filled=True, size=80, opacity=1)], records, "statistic:N", "", 3, 210, 130)
    return themed(chart.resolve_scale(y="independent"), title, subtitle)


def _colours(count: int) -> list[str]:
    return [CATEGORIES[place % len(CATEGORIES)] for place in range(count)]
