"""Figures of attention heads: statistics of circuits by layer beside their nulls, offsets, masses by distance."""

from collections.abc import Sequence
from typing import Any

import altair as alt

from src.report.figures.theme import BLUE, CATEGORIES, ORANGE, SHADE, Record, data, ordered, themed

_SPACING = {"row": 92, "column": 40}


def circuit_panels(points: Sequence[Record], lines: Sequence[Record], title: str) -> alt.ConcatChart:
    """One panel per statistic over layers: heads as points, their mean, and what chance gives.

    Args:
        points: `statistic`, `layer`, `stack`, `head`, `value`.
        lines: `statistic`, `layer`, `stack`, `value` (the mean), and where known `others`, `low`, `high`.
        title: what the figure shows.
    """
    stacks = ordered(lines, "stack")
    charts = [
        _panel(
            [each for each in points if each["statistic"] == name],
            [each for each in lines if each["statistic"] == name],
            name,
            stacks,
        )
        for name in ordered(lines, "statistic")
    ]
    note = "grey: 95 % of heads of random matrices; dashed: mean with other heads' keys or values"
    return themed(alt.concat(*charts, columns=3, spacing=_SPACING, bounds="flush"), title, note)


def _panel(points: Sequence[Record], lines: Sequence[Record], name: str, stacks: Sequence[str]) -> Any:
    colour: Any = alt.value(BLUE)
    if len(stacks) > 1:
        scale = alt.Scale(domain=list(stacks), range=CATEGORIES[: len(stacks)])
        colour = alt.Color("stack:N", title=None, scale=scale, legend=alt.Legend(orient="top"))
    last = max(each["layer"] for each in lines)
    domain = [-0.5, last + 0.5]
    x = alt.X(
        "layer:Q",
        title="layer",
        scale=alt.Scale(domain=domain, nice=False),
        axis=alt.Axis(format="d", grid=False, tickMinStep=1, tickCount=min(last + 1, 12)),
    )
    y = alt.Y("value:Q", title=None, scale=alt.Scale(zero=False), axis=alt.Axis(tickCount=5))
    of_points, of_lines = alt.Chart(data(points)), alt.Chart(data(lines))
    layered = [
        alt.Chart(data(_bands(lines, stacks, domain)))
        .mark_area(color=SHADE, opacity=0.6)
        .encode(x=x, y=alt.Y("low:Q", title=None), y2="high:Q", detail="stack:N"),
        of_points.mark_circle(size=22, opacity=0.5).encode(
            x=x,
            y=y,
            color=colour,
            tooltip=["layer:Q", "head:Q", "stack:N", alt.Tooltip("value:Q", title=name, format=".4f")],
        ),
        of_lines.mark_line(strokeWidth=1.2, strokeDash=[4, 3]).encode(
            x=x, y=alt.Y("others:Q", title=None), color=alt.value(ORANGE) if len(stacks) == 1 else colour,
            detail="stack:N",
        ),
        of_lines.mark_line(strokeWidth=1.8).encode(x=x, y=y, color=colour, detail="stack:N"),
        of_lines.mark_point(filled=True, size=34, opacity=1).encode(
            x=x, y=y, color=colour,
            tooltip=[
                "layer:Q", "stack:N", alt.Tooltip("value:Q", title="mean", format=".4f"),
                alt.Tooltip("others:Q", title="other heads", format=".4f"),
                alt.Tooltip("low:Q", title="random, from", format=".4f"),
                alt.Tooltip("high:Q", title="random, to", format=".4f"),
            ],
        ),
    ]  # fmt: skip
    heading = alt.TitleParams(name, fontSize=12, anchor="start", frame="group")
    return alt.layer(*layered).properties(width=235, height=170, title=heading)


def _bands(lines: Sequence[Record], stacks: Sequence[str], domain: Sequence[float]) -> list[Record]:
    """Records of bands that reach both ends of the axis: one layer alone has no width."""
    found: list[Record] = []
    for stack in stacks:
        own = [each for each in lines if each["stack"] == stack and each.get("low") is not None]
        if own:
            found += [{**own[0], "layer": domain[0]}, *own, {**own[-1], "layer": domain[1]}]
    return found


def offset_lines(records: Sequence[Record], title: str) -> alt.LayerChart:
    """One line per layer over offsets. records: `layer` (a name), `offset`, `value`."""
    layers, offsets = ordered(records, "layer"), ordered(records, "offset")
    base = alt.Chart(data(records)).encode(
        x=alt.X("offset:O", title="tokens from key to query", sort=offsets, scale=alt.Scale(padding=0.3)),
        y=alt.Y("value:Q", title="symmetry", scale=alt.Scale(zero=True), axis=alt.Axis(tickCount=6)),
        color=alt.Color(
            "layer:O", title="layer", sort=layers, scale=alt.Scale(scheme="viridis"), legend=alt.Legend(columns=2)
        ),
        tooltip=["layer:N", "offset:O", alt.Tooltip("value:Q", format=".4f")],
    )
    chart = alt.layer(base.mark_line(strokeWidth=1.6), base.mark_point(filled=True, size=30))
    return themed(chart.properties(width=380, height=240), title)


def mass_by_distance_lines(records: Sequence[Record], title: str, subtitle: str) -> alt.FacetChart:
    """One panel per place, one line per head. records: `place`, `head`, `kind`, `delta`, `value`."""
    kinds = ordered(records, "kind")
    chart = (
        alt.Chart(data(records))
        .mark_line(strokeWidth=1.3, opacity=0.8)
        .encode(
            x=alt.X("delta:Q", title="key − query", scale=alt.Scale(nice=False), axis=alt.Axis(grid=False, format="d")),
            y=alt.Y("value:Q", title="share of attention", scale=alt.Scale(type="symlog", constant=0.01)),
            color=alt.Color("kind:N", title=None, scale=alt.Scale(domain=kinds, range=CATEGORIES[: len(kinds)])),
            detail="head:N",
            tooltip=["place:N", "head:N", "kind:N", "delta:Q", alt.Tooltip("value:Q", format=".4f")],
        )
        .properties(width=240, height=150)
    )
    places = ordered(records, "place")
    faceted = chart.facet(
        facet=alt.Facet("place:N", title=None, sort=places), columns=min(3, len(places))
    ).resolve_axis(x="independent")
    return themed(faceted, title, subtitle)
