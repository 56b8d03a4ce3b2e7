"""The figure of compared models: a panel for each number, a line for each model."""

from collections.abc import Sequence
from typing import Any

import altair as alt

from src.report.figures.theme import BLUE, GREY, INK, ORANGE, VERMILION, Record, data, ordered, themed

_WIDTH = 190
_SOURCES = {"measured": (BLUE, "circle"), "notebook": (ORANGE, "cross"), "published": (VERMILION, "diamond")}


def geometry_panels(panels: Sequence[tuple[str, Sequence[Record]]], title: str) -> Any:
    """Panels of (title, records), three in a row.

    A record: `model`, `source` (measured, notebook or published), `value`; also `low` and `high`, `null`, `p`.
    """
    charts = [_panel(name, records) for name, records in panels]
    return themed(alt.concat(*charts, columns=3, spacing=26), title)


def _panel(name: str, records: Sequence[Record]) -> Any:
    colour = alt.Scale(domain=list(_SOURCES), range=[colour for colour, _ in _SOURCES.values()])
    shape = alt.Scale(domain=list(_SOURCES), range=[shape for _, shape in _SOURCES.values()])
    legend = alt.Legend(title=None, orient="bottom")
    order = ordered(records, "model")
    base = alt.Chart(data(records)).encode(
        y=alt.Y("model:N", sort=order, title=None, axis=alt.Axis(labelLimit=130, domain=False, ticks=False, grid=True)),
        color=alt.Color("source:N", scale=colour, legend=legend),
    )
    x = alt.X("value:Q", title=None, scale=alt.Scale(zero=False, nice=True, padding=8), axis=alt.Axis(tickCount=4))
    tooltip = [
        alt.Tooltip("model:N"),
        alt.Tooltip("source:N"),
        *(alt.Tooltip(f"{field}:Q", format=".4f") for field in ("value", "low", "high", "null", "p")),
        alt.Tooltip("caveat:N"),
    ]
    null = base.mark_tick(color=GREY, thickness=3, size=16).transform_filter("isValid(datum.null)")
    chart = alt.layer(
        null.encode(x=alt.X("null:Q", title=None), color=alt.value(GREY)),
        base.mark_rule(strokeWidth=2, opacity=0.5)
        .transform_filter("isValid(datum.low)")
        .encode(x="low:Q", x2="high:Q"),
        base.mark_point(filled=True, size=60, opacity=1).encode(
            x=x, shape=alt.Shape("source:N", scale=shape, legend=legend), tooltip=tooltip
        ),
    )
    heading = alt.TitleParams(name, fontSize=12, fontWeight=600, color=INK, offset=6, anchor="start")
    return chart.properties(width=_WIDTH, height=alt.Step(22), title=heading)
