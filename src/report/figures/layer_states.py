"""Figures of states over layers: panels of lines with intervals, and maps of two stacks against each other."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt

from src.report.figures.theme import CATEGORIES, INK, Record, data, ordered, themed

_MOST_TICKS = 14
_AXIS = alt.Axis(tickCount=5, labelFlush=7)


@dataclass(frozen=True)
class Panel:
    """One panel: records with `x`, `series`, `value` and, where known, `low` and `high`; the order is theirs.

    log: of the values' axis. rule: a thin line at that value, which is what chance gives. ramp: series have an order,
    and their colours too.
    """

    title: str
    records: Sequence[Record]
    x_label: str = "layer"
    log: bool = False
    rule: float | None = None
    ramp: bool = False


def line_panels(panels: Sequence[Panel], title: str, subtitle: str, columns: int = 3) -> alt.ConcatChart:
    """All panels that have records, beside and below each other."""
    charts = [_panel(panel) for panel in panels if panel.records]
    chart = alt.concat(*charts, columns=columns, spacing={"row": 34, "column": 40}).resolve_scale(color="independent")
    return themed(chart, title, subtitle)


def _panel(panel: Panel) -> Any:
    places, series = ordered(panel.records, "x"), list(dict.fromkeys(record["series"] for record in panel.records))
    ticks: dict[str, Any] = {"values": places} if len(places) <= _MOST_TICKS else {"tickCount": 8}
    x = alt.X(
        "x:Q",
        title=panel.x_label,
        scale=alt.Scale(domain=[places[0], max(places[-1], places[0] + 1)], nice=False, padding=8),
        axis=alt.Axis(format="d", grid=False, **ticks),
    )
    scale = alt.Scale(type="log", nice=False) if panel.log else alt.Scale(zero=False, nice=True)
    colours = alt.Scale(domain=series, range=CATEGORIES)
    if panel.ramp:
        colours = alt.Scale(domain=series, scheme="viridis")
    legend = alt.Legend(orient="top", title=None, symbolType="stroke", columns=2, labelLimit=130, symbolOpacity=1)
    colour = alt.Color("series:N", sort=series, scale=colours, legend=legend if len(series) > 1 else None)
    base = alt.Chart().encode(x=x, color=colour)
    tooltip = [
        alt.Tooltip("series:N", title=" "),
        alt.Tooltip("x:Q", title=panel.x_label),
        *(alt.Tooltip(f"{name}:Q", format=".4g") for name in ("value", "low", "high")),
    ]
    y = alt.Y("value:Q", title=None, scale=scale, axis=_AXIS)
    layered: list[Any] = [
        base.transform_filter("isValid(datum.low)")
        .mark_area(opacity=0.2)
        .encode(y=alt.Y("low:Q", title=None, scale=scale), y2="high:Q"),
        base.mark_line(strokeWidth=1.7).encode(y=y),
        base.mark_point(filled=True, size=26, opacity=1).encode(y=y, tooltip=tooltip),
    ]
    if panel.rule is not None:
        rule = alt.Chart(data([{"rule": panel.rule}])).mark_rule(color="#9aa5b1", strokeDash=[4, 3])
        layered.insert(0, rule.encode(y=alt.Y("rule:Q", title=None, scale=scale)))
    heading = alt.TitleParams(panel.title, fontSize=12, fontWeight=600, offset=6, anchor="start")
    return alt.layer(*layered, data=data(panel.records)).properties(width=235, height=150, title=heading)


@dataclass(frozen=True)
class StackMap:
    """A map of all layers of one stack against all of another: records with `row`, `column`, `value`."""

    title: str
    records: Sequence[Record]


def stack_maps(maps: Sequence[StackMap], title: str, subtitle: str, row: str, column: str) -> alt.ConcatChart:
    """Maps on one scale of colours from -1 to 1, with the numbers in the cells while they fit."""
    charts = [_map(each, row, column) for each in maps]
    return themed(alt.concat(*charts, columns=2, spacing={"row": 30, "column": 40}), title, subtitle)


def _map(each: StackMap, row: str, column: str) -> Any:
    n = len(ordered(each.records, "column"))
    step = 40 if n <= 9 else 24 if n <= 16 else 14
    plain = {"domain": False, "ticks": False, "labelLimit": 110}
    base = alt.Chart().encode(
        x=alt.X("column:N", title=column, sort=None, axis=alt.Axis(labelAngle=-40, **plain)),
        y=alt.Y("row:N", title=row, sort=None, axis=alt.Axis(**plain)),
        tooltip=[
            alt.Tooltip("row:N", title=row),
            alt.Tooltip("column:N", title=column),
            alt.Tooltip("value:Q", format=".4f"),
        ],
    )
    scale = alt.Scale(scheme="redblue", domain=[-1, 1], clamp=True)
    colour = alt.Color("value:Q", title=None, scale=scale, legend=alt.Legend(orient="right", gradientLength=120))
    layered = [base.mark_rect(stroke="white", strokeWidth=1).encode(color=colour)]
    if step > 20:
        ink = alt.when("abs(datum.value) > 0.65").then(alt.value("white")).otherwise(alt.value(INK))
        text = base.mark_text(fontSize=9 if step < 40 else 10.5).transform_filter("isValid(datum.value)")
        layered.append(text.encode(text=alt.Text("value:Q", format=".2f"), color=ink))
    heading = alt.TitleParams(each.title, fontSize=12, fontWeight=600, offset=6, anchor="start")
    chart = alt.layer(*layered, data=data(each.records))
    return chart.properties(width=alt.Step(step), height=alt.Step(min(step, 28)), title=heading)
