"""Figures of one run: numbers by layer, parts of a sum, neurons over steps, states in a plane, who reads whom."""

from collections.abc import Sequence
from typing import Any

import altair as alt

from src.report.figures.theme import (
    CATEGORIES,
    EMPTY,
    FAINT_INK,
    GRID,
    INK,
    Record,
    data,
    finite,
    ordered,
    panels,
    short_number,
    themed,
)

# maps of more cells in a row hold no numbers
_NUMBERED = 14


def layer_panels(
    records: Sequence[Record],
    title: str,
    *,
    subtitle: str | None = None,
    columns: int = 3,
    x: str = "layer",
) -> Any:
    """One panel for each measure, one line for each series over layers (or steps), with a band where there is one.

    Args:
        records: `measure`, `series`, the field x, `value`, and perhaps `low`, `high`. What is missing leaves a gap.
        title: what the figure shows.
        subtitle: a second, fainter line.
        columns: panels in a row.
        x: the field of the horizontal axis.
    """
    series = ordered(records, "series")
    scale = alt.Scale(domain=series, range=[CATEGORIES[place % len(CATEGORIES)] for place in range(len(series))])
    legend = (
        alt.Legend(title=None, orient="top", symbolType="stroke", symbolOpacity=1, labelLimit=320)
        if len(series) > 1
        else None
    )
    charts = []
    for measure in ordered(records, "measure"):
        rows = [record for record in records if record["measure"] == measure]
        places = ordered(rows, x)
        ticks = places if len(places) <= _NUMBERED else alt.Undefined
        axis = alt.Axis(format="d", grid=False, tickMinStep=1, values=ticks)
        base = alt.Chart(data(rows)).encode(
            x=alt.X(f"{x}:Q", title=x, scale=alt.Scale(nice=False, zero=False, padding=8), axis=axis),
            color=alt.Color("series:N", scale=scale, legend=legend),
        )
        y = alt.Y("value:Q", title=None, scale=alt.Scale(zero=False, nice=True), axis=alt.Axis(tickCount=5))
        tooltip = ["series:N", f"{x}:O", alt.Tooltip("value:Q", title=measure, format=".4g")]
        layered = [
            base.mark_line(strokeWidth=1.7).encode(y=y),
            base.mark_point(filled=True, size=34, opacity=1).encode(y=y, tooltip=tooltip),
        ]
        if any(row.get("low") is not None for row in rows):
            layered.insert(0, base.mark_area(opacity=0.15).encode(y=alt.Y("low:Q", title=None), y2="high:Q"))
        heading = alt.TitleParams(measure, fontSize=12, fontWeight="normal", offset=6)
        charts.append(alt.layer(*layered).properties(width=230, height=150, title=heading))
    return themed(alt.concat(*charts, columns=columns, spacing=30), title, subtitle)


def part_bars(records: Sequence[Record], title: str, *, label: str, subtitle: str | None = None) -> Any:
    """Parts of a sum as bars, in their order from the first to the last; a dot for each row of which they are means.

    records: `part` (name), `kind` (the colour), `value`, and `row`: None for the mean, else a row's name.
    """
    parts, kinds = ordered(records, "part"), ordered(records, "kind")
    means, rows = ([record for record in records if (record["row"] is None) is mean] for mean in (True, False))
    colour = alt.Color(
        "kind:N",
        title=None,
        scale=alt.Scale(domain=kinds, range=CATEGORIES[: len(kinds)]),
        legend=alt.Legend(orient="top"),
    )
    x = alt.X("value:Q", title=label, axis=alt.Axis(tickCount=6))
    y = alt.Y("part:O", title=None, sort=parts, axis=alt.Axis(domain=False, ticks=False))
    tooltip = ["part:N", alt.Tooltip("value:Q", title=label, format=".4g")]
    layered = [
        alt.Chart(data(means)).mark_bar(height={"band": 0.72}).encode(x=x, y=y, color=colour, tooltip=tooltip),
        alt.Chart(data(rows))
        .mark_point(filled=True, size=14, color=INK, opacity=0.35)
        .encode(x=x, y=y, tooltip=["row:N", *tooltip]),
        alt.Chart(data([{"at": 0}])).mark_rule(color=FAINT_INK).encode(x=alt.X("at:Q", title=label)),
    ]
    chart = alt.layer(*layered).properties(width=420, height=alt.Step(17 if len(parts) <= 30 else 11))
    return themed(chart, title, subtitle)


def cell_map(
    records: Sequence[Record],
    title: str,
    *,
    rows: str,
    columns: str,
    label: str,
    diverging: bool = False,
    subtitle: str | None = None,
) -> Any:
    """A heat map of named rows and columns, in the order of the records; numbers in the cells while they fit.

    Args:
        records: `row`, `column`, `value`.
        title: what the figure shows.
        rows: what the rows are.
        columns: what the columns are.
        label: what the colour means.
        diverging: red below 0, blue above; else light to dark from 0.
        subtitle: a second, fainter line.
    """
    names, tops = ([*dict.fromkeys(record[key] for record in records)] for key in ("row", "column"))
    values = finite(records, "value")
    limit = max([abs(value) for value in values] + [1e-9])
    low = -limit if diverging else min([0.0, *values])
    step = 44 if len(tops) <= _NUMBERED else 22
    cells = [
        {
            **record,
            "text": "" if record["value"] is None else short_number(record["value"], 2),
            "dark": record["value"] is not None and abs(record["value"]) > 0.6 * limit,
        }
        for record in records
    ]
    side = {"domain": False, "ticks": False, "labelLimit": 150}
    base = alt.Chart(data(cells)).encode(
        x=alt.X(
            "column:O",
            title=columns,
            sort=tops,
            axis=alt.Axis(orient="top", labelAngle=-35, labelAlign="left", **side),
        ),
        y=alt.Y("row:O", title=rows, sort=names, axis=alt.Axis(**side)),
        tooltip=[
            alt.Tooltip("row:N", title=rows),
            alt.Tooltip("column:N", title=columns),
            alt.Tooltip("value:Q", title=label, format=".4g"),
        ],
    )
    scale = alt.Scale(scheme="redblue" if diverging else "blues", domain=[low, limit], nice=False)
    legend = alt.Legend(gradientLength=90, tickCount=3, format=".2~r", titleLimit=260)
    cell = base.mark_rect(stroke="white", strokeWidth=1)
    layered = [
        cell.encode(color=alt.Color("value:Q", title=label, scale=scale, legend=legend)),
        cell.encode(color=alt.value(EMPTY)).transform_filter("!isValid(datum.value)"),
    ]
    if len(tops) <= _NUMBERED and len(names) <= 2 * _NUMBERED:
        ink = alt.when("datum.dark").then(alt.value("white")).otherwise(alt.value(INK))
        layered.append(base.mark_text(fontSize=10).encode(text="text:N", color=ink))
    height = 22 if len(names) <= 30 else 13
    return themed(alt.layer(*layered).properties(width=alt.Step(step), height=alt.Step(height)), title, subtitle)


def neuron_lines(records: Sequence[Record], title: str, *, subtitle: str | None = None) -> Any:
    """One line for each neuron, over steps and over messages: a panel each.

    records: `over` (the panel), `place` (number), `name` (of the step or message), `neuron`, `value`; NaN is a gap.
    """
    neurons = ordered(records, "neuron")
    scale = alt.Scale(domain=neurons, range=[CATEGORIES[place % len(CATEGORIES)] for place in range(len(neurons))])
    charts = []
    for over in ordered(records, "over"):
        rows = [record for record in records if record["over"] == over]
        names = [record["name"] for record in sorted(rows, key=lambda record: record["place"])]
        base = alt.Chart(data(rows)).encode(
            x=alt.X("name:O", title=over, sort=names, axis=alt.Axis(labelAngle=-50, labelLimit=90, ticks=False)),
            y=alt.Y("value:Q", title="activation", axis=alt.Axis(tickCount=5)),
            color=alt.Color("neuron:N", title=None, scale=scale, legend=alt.Legend(symbolType="stroke")),
            tooltip=["neuron:N", alt.Tooltip("name:N", title=over), alt.Tooltip("value:Q", format=".4g")],
        )
        chart = alt.layer(base.mark_line(strokeWidth=1.5), base.mark_point(filled=True, size=30, opacity=1))
        charts.append(chart.properties(width=max(180, min(26 * len(set(names)), 700)), height=190))
    return themed(alt.vconcat(*charts, spacing=26), title, subtitle)


def state_paths(
    records: Sequence[Record], title: str, *, along: str, subtitle: str | None = None, columns: int = 3
) -> Any:
    """States in a plane of principal components, joined in their order; a panel for each value of `panel`.

    records: `panel`, `path` (states of one path are joined and share a colour), `order` (number), `name` (written at
    the state), `about` (for the tooltip), `x`, `y`. along: what the order counts.
    """
    paths = ordered(records, "path")
    several = len(paths) > 1
    colour = (
        alt.Color(
            "path:N",
            title=None,
            sort=paths,
            scale=alt.Scale(domain=paths, range=[CATEGORIES[place % len(CATEGORIES)] for place in range(len(paths))]),
        )
        if several
        else alt.value(CATEGORIES[0])
    )
    axis = alt.Axis(labels=False, ticks=False, gridColor=GRID, tickCount=4)
    base = alt.Chart().encode(
        x=alt.X("x:Q", title="component 1", axis=axis, scale=alt.Scale(zero=False, padding=16)),
        y=alt.Y("y:Q", title="component 2", axis=axis, scale=alt.Scale(zero=False, padding=16)),
    )
    tooltip = [alt.Tooltip("path:N"), alt.Tooltip("order:Q", title=along), alt.Tooltip("about:N", title="state")]
    layered = [
        base.mark_line(strokeWidth=1.1, opacity=0.6).encode(color=colour, order="order:Q", detail="path:N"),
        base.mark_point(filled=True, size=26, opacity=0.9).encode(color=colour, tooltip=tooltip),
        base.mark_text(dx=5, dy=-6, align="left", fontSize=9, color=INK).encode(text="name:N"),
    ]
    single = len(ordered(records, "panel")) == 1
    size = (420, 320) if single else (215, 190)
    chart = panels(layered, records, "panel:N", "", columns, *size)
    return themed(chart.resolve_scale(x="independent", y="independent"), title, subtitle)
