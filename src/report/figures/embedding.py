"""Panels of embeddings: histograms, spectra, ordered sets, categories. `embedding_panels` puts them on one page."""

from collections.abc import Sequence
from typing import Any

import altair as alt

from src.report.figures.theme import (
    BLUE,
    CATEGORIES,
    EMPTY,
    FAINT_INK,
    GREY,
    SHADE,
    VERMILION,
    Record,
    data,
    ordered,
    themed,
)

WIDTH, HEIGHT = 250, 170
_FLAT: dict[str, Any] = {"domain": False, "ticks": False}


def embedding_panels(panels: Sequence[Any], title: str, subtitle: str | None = None) -> alt.ConcatChart:
    """All panels, three in a row, each with its own scales."""
    chart = alt.concat(*panels, columns=3, spacing={"row": 46, "column": 46}).resolve_scale(
        color="independent", x="independent", y="independent"
    )
    return themed(chart, title, subtitle)


def histogram(
    records: Sequence[Record], title: str, label: str, mark: Sequence[Record] = (), null: Sequence[Record] = ()
) -> Any:
    """Outlines of histograms, one for each table.

    records: `table`, `low`, `high`, `share`. mark: vertical lines, `at` and `text`. null: a curve of what chance gives,
    `at` and `share`.
    """
    tables = ordered(records, "table")
    base = alt.Chart(data(records))
    bars = base.mark_bar(opacity=0.75 if len(tables) == 1 else 0.5, binSpacing=0).encode(
        x=alt.X("low:Q", bin="binned", title=label, axis=alt.Axis(tickCount=5, grid=False)),
        x2="high:Q",
        y=alt.Y("share:Q", title="share", stack=None, axis=alt.Axis(tickCount=4, format=".2~g")),
        color=_table_colour(tables),
        tooltip=[
            alt.Tooltip("table:N"),
            alt.Tooltip("low:Q", title="from", format=".4g"),
            alt.Tooltip("high:Q", title="to", format=".4g"),
            alt.Tooltip("share:Q", format=".4f"),
        ],
    )
    layered: list[Any] = [bars]
    if null:
        curve = alt.Chart(data(null)).mark_line(color=GREY, strokeDash=[4, 3], strokeWidth=1.4)
        layered.append(curve.encode(x="at:Q", y="share:Q"))
    if mark:
        layered += _rules(mark)
    return _panel(layered, title)


def spectrum_lines(records: Sequence[Record], title: str, label: str, log: bool, mark: Sequence[Record] = ()) -> Any:
    """A value for each dimension, one line for each table. records: `table`, `dimension`, `value`."""
    tables = ordered(records, "table")
    scale = alt.Scale(type="log", nice=False) if log else alt.Scale(zero=True)
    lines = (
        alt.Chart(data(records))
        .mark_line(strokeWidth=1.8)
        .encode(
            x=alt.X("dimension:Q", title="dimension", scale=alt.Scale(nice=False), axis=alt.Axis(grid=False)),
            y=alt.Y(
                "value:Q",
                title=label,
                scale=scale,
                axis=alt.Axis(tickCount=3 if log else 4, format=".2~g", grid=not log),
            ),
            color=_table_colour(tables),
            tooltip=[alt.Tooltip("table:N"), "dimension:Q", alt.Tooltip("value:Q", title=label, format=".4g")],
        )
    )
    return _panel([lines, *_rules(mark)], title)


def cosine_heatmap(records: Sequence[Record], title: str, diverging: bool = False) -> Any:
    """Words by words, from light to dark, or about 0. records: `row`, `column`, `value` (None on the diagonal)."""
    n = len(ordered(records, "row"))
    axis: dict[str, Any] = {**_FLAT, "labelOverlap": n > 24, "labelLimit": 70, "labelFontSize": 10 if n <= 14 else 8}
    base = alt.Chart(data(records)).encode(
        x=alt.X("column:O", title=None, sort=None, axis=alt.Axis(labelAngle=-50, **axis)),
        y=alt.Y("row:O", title=None, sort=None, axis=alt.Axis(**axis)),
        tooltip=["row:N", "column:N", alt.Tooltip("value:Q", title="cosine", format=".3f")],
    )
    legend = alt.Legend(title=None, gradientLength=HEIGHT - 30, gradientThickness=9, format=".2~f", tickCount=4)
    scale = alt.Scale(scheme="redblue", domainMid=0) if diverging else alt.Scale(scheme="blues", zero=False, nice=False)
    colour = alt.Color("value:Q", scale=scale, legend=legend)
    return _panel(
        [
            base.mark_rect().encode(color=alt.value(EMPTY)),
            base.mark_rect().transform_filter("isValid(datum.value)").encode(color=colour),
        ],
        title,
    )


def category_bars(records: Sequence[Record], title: str) -> Any:
    """Each category's cosine before what matched sets have.

    records: `category`, `value`, `null` (mean of matched sets), `null_low`, `null_high`, `beyond` (beyond chance).
    """
    y = alt.Y("category:N", title=None, sort=None, axis=alt.Axis(labelLimit=130, labelOverlap=False, **_FLAT))
    base = alt.Chart(data(records)).encode(y=y)
    x = alt.X("value:Q", title="mean cosine within", axis=alt.Axis(tickCount=5), scale=alt.Scale(zero=True))
    colour = alt.Color(
        "beyond:N",
        scale=alt.Scale(domain=["beyond chance", "not"], range=[BLUE, GREY]),
        legend=alt.Legend(title=None, orient="top"),
    )
    layered = [
        base.mark_bar(color=SHADE, height={"band": 0.8}).encode(
            x=alt.X("null_low:Q", title="mean cosine within"), x2="null_high:Q"
        ),
        base.mark_point(filled=True, size=42, opacity=1).encode(
            x=x,
            color=colour,
            tooltip=[
                alt.Tooltip("category:N"),
                alt.Tooltip("value:Q", title="cosine", format=".4f"),
                alt.Tooltip("null:Q", title="matched sets", format=".4f"),
                alt.Tooltip("null_low:Q", title="from", format=".4f"),
                alt.Tooltip("null_high:Q", title="to", format=".4f"),
            ],
        ),
    ]
    return _panel(layered, title, height=max(HEIGHT, 15 * len(records)))


def offset_line(records: Sequence[Record], title: str) -> Any:
    """Mean cosine of positions by their distance. records: `series`, `offset`, `value`."""
    series = ordered(records, "series")
    lines = (
        alt.Chart(data(records))
        .mark_line(strokeWidth=1.8)
        .encode(
            x=alt.X("offset:Q", title="distance of positions", scale=alt.Scale(nice=False), axis=alt.Axis(grid=False)),
            y=alt.Y("value:Q", title="mean cosine", axis=alt.Axis(tickCount=4)),
            color=alt.Color(
                "series:N",
                sort=series,
                scale=alt.Scale(domain=series, range=CATEGORIES[: len(series)]),
                legend=alt.Legend(title=None, orient="top"),
            ),
            tooltip=["series:N", "offset:Q", alt.Tooltip("value:Q", format=".4f")],
        )
    )
    return _panel([lines], title)


def bias_heatmap(records: Sequence[Record], title: str) -> Any:
    """Biases of buckets and heads. records: `bucket`, `head`, `value`."""
    chart = (
        alt.Chart(data(records))
        .mark_rect()
        .encode(
            x=alt.X("head:O", title="head", axis=alt.Axis(**_FLAT)),
            y=alt.Y("bucket:O", title="bucket", axis=alt.Axis(labelOverlap=True, **_FLAT)),
            color=alt.Color(
                "value:Q",
                scale=alt.Scale(scheme="redblue", domainMid=0),
                legend=alt.Legend(title=None, gradientLength=HEIGHT - 30, gradientThickness=9, tickCount=4),
            ),
            tooltip=["head:O", "bucket:O", alt.Tooltip("value:Q", format=".4f")],
        )
    )
    return _panel([chart], title)


def _rules(mark: Sequence[Record]) -> list[Any]:
    if not mark:
        return []
    base = alt.Chart(data(mark)).encode(x="at:Q")
    return [
        base.mark_rule(color=VERMILION, strokeWidth=1.4),
        base.mark_text(align="left", dx=4, baseline="top", color=FAINT_INK, fontSize=10).encode(
            y=alt.value(2), text="text:N"
        ),
    ]


def _table_colour(tables: Sequence[str]) -> Any:
    if len(tables) == 1:
        return alt.value(BLUE)
    scale = alt.Scale(domain=list(tables), range=CATEGORIES[: len(tables)])
    return alt.Color("table:N", sort=list(tables), scale=scale, legend=alt.Legend(title=None, orient="top"))


def _panel(layered: Sequence[Any], title: str, height: int = HEIGHT) -> Any:
    heading = alt.TitleParams(title, fontSize=12, fontWeight=600, offset=8, anchor="start")
    return alt.layer(*layered).properties(width=WIDTH, height=height, title=heading)
