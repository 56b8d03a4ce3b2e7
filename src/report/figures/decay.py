"""How a score of transport changes with the distance between layers."""

from collections import defaultdict
from collections.abc import Sequence
from statistics import median
from typing import Any, Literal

import altair as alt

from src.report.figures.theme import (
    BLUE,
    CATEGORIES,
    FAINT_INK,
    GREY,
    GRID,
    Record,
    bounded,
    data,
    finite,
    ordered,
    themed,
)

LOWEST_SCORE = -1.0
# more lines than these hues can tell apart get a panel each
_HUES = [hue for hue in CATEGORIES if hue != GREY]
_COLUMNS = 6


def decay_with_leap(
    records: Sequence[Record],
    value: str,
    title: str,
    *,
    label: str,
    by: Literal["source", "target"] = "source",
    subtitle: str | None = None,
) -> alt.LayerChart | alt.FacetChart:
    """A score against the leap k, one line per source layer (or per target layer) with its interval as a band.

    Few lines share a panel. More than there are hues get a panel each, with the median of all lines in grey.

    Args:
        records: one per pair: `layer`, `leap`, the field named by `value`, and if known `<value>_low`, `<value>_high`.
        value: the field that is drawn.
        title: what the figure shows.
        label: its name on the axis.
        by: what a line has in common. Along a line of one target the variance to be explained stays the same.
        subtitle: a second, fainter line.
    """
    rows = [_row(record, value, by) for record in records]
    lines = ordered(rows, "line")
    domain = bounded(finite(rows, "score", "low", "high"), LOWEST_SCORE)
    if any(score < LOWEST_SCORE for score in finite(rows, "score")):
        cut = f"cut at \N{MINUS SIGN}{-LOWEST_SCORE:g}"
        subtitle = f"{subtitle}; {cut}" if subtitle else cut
    name = "source layer L" if by == "source" else "target layer L + k"
    last = max(row["leap"] for row in rows)
    x = alt.X(
        "leap:Q",
        title="leap k",
        scale=alt.Scale(domain=[0.8, last + 0.2], nice=False),
        axis=alt.Axis(values=list(range(1, last + 1, 1 + last // 12)), format="d", grid=False),
    )
    zero = alt.when("datum.value === 0").then(alt.value(FAINT_INK)).otherwise(alt.value(GRID))
    axis = alt.Axis(tickCount=5, gridColor=zero)  # type: ignore[arg-type]
    scale = alt.Scale(domain=domain, clamp=True, nice=False)
    y = alt.Y("score:Q", title=label, scale=scale, axis=axis)
    tooltip = [
        alt.Tooltip("layer:Q", title="source layer L"),
        alt.Tooltip("leap:Q", title="leap k"),
        alt.Tooltip("target:Q", title="target layer L + k"),
        alt.Tooltip("score:Q", title=label, format=".4f"),
        alt.Tooltip("low:Q", title="low", format=".4f"),
        alt.Tooltip("high:Q", title="high", format=".4f"),
    ]

    def drawn(colour: Any, point: int) -> list[alt.Chart]:
        base = alt.Chart().encode(x=x, color=colour)
        own = base.transform_filter("isValid(datum.layer)")
        band = own.mark_area(opacity=0.2).encode(y=alt.Y("low:Q", title=label, scale=scale), y2="high:Q")
        line = own.mark_line(strokeWidth=2).encode(y=y)
        marks = own.mark_point(filled=True, size=point, opacity=1).encode(y=y, tooltip=tooltip)
        return [band.transform_filter("isValid(datum.low)"), line, marks]

    if len(lines) <= len(_HUES):
        hues = alt.Scale(domain=lines, range=_HUES[: len(lines)])
        legend = alt.Legend(orient="right", symbolType="circle", symbolOpacity=1)
        layered = drawn(alt.Color("line:N", title=name, scale=hues, legend=legend), 45)
        return themed(alt.layer(*layered, data=data(rows)).properties(width=460, height=280), title, subtitle)
    middle = (
        alt.Chart()
        .mark_line(color=GREY, strokeWidth=1.3, strokeDash=[4, 3])
        .encode(x=x, y=alt.Y("median:Q", title=label))
    )
    layered = [middle.transform_filter("isValid(datum.median)"), *drawn(alt.value(BLUE), 18)]
    chart = (
        alt.layer(*layered, data=data([*_medians(rows, lines), *rows]))
        .properties(width=140, height=100)
        .facet(
            facet=alt.Facet(
                "line:O", sort=lines, header=alt.Header(title=None, labelExpr=f"'{name.split()[0]} ' + datum.value")
            ),
            columns=_COLUMNS,
            spacing=14,
        )
        .resolve_axis(x="independent")  # a shared one would also be drawn where the last row has no panel
    )
    return themed(chart, title, f"{subtitle}; grey: median of all panels" if subtitle else "grey: median of all panels")


def _row(record: Record, value: str, by: str) -> dict[str, Any]:
    layer, leap = record["layer"], record["leap"]
    return {
        "layer": layer,
        "leap": leap,
        "target": layer + leap,
        "line": layer if by == "source" else layer + leap,
        "score": record[value],
        "low": record.get(f"{value}_low"),
        "high": record.get(f"{value}_high"),
    }


def _medians(rows: Sequence[Record], lines: Sequence[int]) -> list[dict[str, Any]]:
    """In every panel: the median over lines at each leap."""
    of_leap: dict[int, list[float]] = defaultdict(list)
    for row in rows:
        of_leap[row["leap"]] += finite([row], "score")
    medians = {leap: median(scores) for leap, scores in of_leap.items() if scores}
    return [{"line": line, "leap": leap, "median": each} for line in lines for leap, each in sorted(medians.items())]
