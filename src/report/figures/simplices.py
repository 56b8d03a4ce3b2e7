"""The figure of simplices: volumes, their spread beside nulls, norms, and two spaces against each other."""

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt

from src.report.figures.theme import BLUE, GREEN, GREY, INK, ORANGE, PINK, VERMILION, Record, data, themed

DATA = "data"
# what is neither data nor a null
OTHER = "other"
_WIDTH, _HEIGHT = 270, 190
# of data and nulls, from the one that knows most
_COLOURS = [BLUE, ORANGE, GREEN, PINK, GREY]


def simplex_figure(spaces: Sequence[Mapping[str, Any]], joint: Sequence[Mapping[str, Any]], title: str) -> Any:
    """A row of panels for each space, and a panel for each pair of spaces.

    Args:
        spaces: `name`; `order`: data and nulls as they are called; `densities`: records of `series`, `x` (volume by
            mean volume of the data), `density`; `spreads`: records of `what`, `colour` (one of `order`, or other),
            `cv`, `low`, `high`; `norms`: records of `series`, `x` (norm by mean norm), `density`.
        joint: `name`, `x_label`, `y_label`, and `cells`: records of `x`, `x2`, `y`, `y2`, `count`.
        title: what the figure shows.
    """
    charts = [panel for space in spaces for panel in _of_space(space)]
    charts += [_cells(pair) for pair in joint]
    return themed(alt.concat(*charts, columns=3, spacing=34).resolve_scale(color="independent"), title)


def _of_space(space: Mapping[str, Any]) -> list[Any]:
    order = list(space["order"])
    scale = alt.Scale(domain=order, range=_COLOURS[: len(order)])
    volumes = _densities(space["densities"], order, scale, "volume / mean volume of the data")
    norm_order = [DATA, *dict.fromkeys(record["series"] for record in space["norms"] if record["series"] != DATA)]
    norm_scale = alt.Scale(domain=norm_order, range=[BLUE, VERMILION])
    norms = _densities(space["norms"], norm_order, norm_scale, "norm (centred) / mean norm")
    return [
        _titled(volumes, f"{space['name']}: volumes"),
        _titled(_spreads(space["spreads"], order), "coefficient of variation of the volume"),
        _titled(norms, "norms"),
    ]


def _titled(chart: Any, title: str) -> Any:
    heading = alt.TitleParams(title, fontSize=12, fontWeight=600, color=INK, offset=6, anchor="start")
    return chart.properties(width=_WIDTH, height=_HEIGHT, title=heading)


def _densities(records: Sequence[Record], order: Sequence[str], scale: alt.Scale, label: str) -> Any:
    legend = alt.Legend(title=None, orient="bottom", columns=2, symbolType="stroke", symbolOpacity=1, labelLimit=170)
    base = alt.Chart(data(records)).encode(
        x=alt.X("x:Q", title=label, scale=alt.Scale(zero=False, nice=False)),
        y=alt.Y("density:Q", title="density", axis=alt.Axis(tickCount=4)),
        color=alt.Color("series:N", sort=list(order), scale=scale, legend=legend),
    )
    filled = base.mark_area(opacity=0.18, interpolate="monotone").transform_filter(f"datum.series === '{DATA}'")
    tooltip = [alt.Tooltip("series:N"), alt.Tooltip("x:Q", format=".3f"), alt.Tooltip("density:Q", format=".3f")]
    return alt.layer(filled, base.mark_line(strokeWidth=1.7, interpolate="monotone").encode(tooltip=tooltip))


def _spreads(records: Sequence[Record], order: Sequence[str]) -> Any:
    scale = alt.Scale(domain=[*order, OTHER], range=[*_COLOURS[: len(order)], VERMILION])
    base = alt.Chart(data(records)).encode(
        y=alt.Y("what:N", sort=None, title=None, axis=alt.Axis(labelLimit=150, domain=False, ticks=False)),
        color=alt.Color("colour:N", scale=scale, legend=None),
    )
    x = alt.X("cv:Q", title="CV", scale=alt.Scale(zero=True, nice=True))
    tooltip = [
        alt.Tooltip("what:N", title="of"),
        *(alt.Tooltip(f"{name}:Q", format=".4f") for name in ("cv", "low", "high")),
    ]
    return alt.layer(
        base.mark_rule(strokeWidth=2.5, opacity=0.55).encode(x=alt.X("low:Q", title="CV"), x2="high:Q"),
        base.mark_point(filled=True, size=60, opacity=1).encode(x=x, tooltip=tooltip),
    )


def _cells(pair: Mapping[str, Any]) -> Any:
    tooltip = [alt.Tooltip("count:Q", title="simplices")]
    chart = (
        alt.Chart(data(pair["cells"]))
        .mark_rect()
        .encode(
            x=alt.X("x:Q", title=pair["x_label"], scale=alt.Scale(zero=False, nice=False)),
            x2="x2:Q",
            y=alt.Y("y:Q", title=pair["y_label"], scale=alt.Scale(zero=False, nice=False)),
            y2="y2:Q",
            color=alt.Color("count:Q", scale=alt.Scale(scheme="blues"), legend=None),
            tooltip=tooltip,
        )
    )
    return _titled(chart, pair["name"])
