"""Heat maps of any rows and columns, with the numbers in the cells while they fit."""

from collections.abc import Sequence

import altair as alt

from src.report.figures.theme import EMPTY, INK, Record, data, themed


def grid(
    records: Sequence[Record],
    title: str,
    *,
    row: str,
    column: str,
    label: str,
    step: Sequence[int] = (30, 22),
    diverging: bool = False,
    numbers: bool = True,
    reverse: bool = False,
    unit: bool = False,
    row_label: str | None = None,
    column_label: str | None = None,
    angle: int = 0,
    about: Sequence[str] = (),
) -> alt.LayerChart:
    """A heat map in the order of the records; the colours span the values that are there.

    Args:
        records: the fields that `row` and `column` name, `value`, and what `about` names.
        title: what the figure shows.
        row: the field of the rows.
        column: the field of the columns.
        label: what the colour means.
        step: width and height of a cell, in pixels.
        diverging: red below 0, blue above it, both darkest at the greatest distance from 0; else light to dark from the
            least to the greatest value.
        numbers: write the values into the cells.
        reverse: dark for small values (distances).
        unit: the colours go from 0 to 1 whatever is there: for values that may all be 0.
        row_label: title of the rows' axis.
        column_label: title of the columns' axis.
        angle: of the columns' labels, in degrees.
        about: further fields of the tooltip.
    """
    plain = {"domain": False, "ticks": False, "labelOverlap": False, "labelLimit": 170}
    base = (
        alt.Chart()
        .transform_joinaggregate(least="min(value)", most="max(value)")
        .transform_calculate(
            share="datum.value"
            if unit
            else "datum.most > datum.least ? (datum.value - datum.least) / (datum.most - datum.least) : 0.3",
            balance="datum.value / max(abs(datum.most), abs(datum.least), 0.000001)",
        )
        .encode(
            x=alt.X(
                f"{column}:O",
                title=column_label,
                sort=None,
                axis=alt.Axis(orient="top" if not angle else "bottom", labelAngle=angle, **plain),
            ),
            y=alt.Y(f"{row}:O", title=row_label, sort=None, axis=alt.Axis(**plain)),
            tooltip=[
                *(alt.Tooltip(f"{name}:N") for name in (row, column, *about)),
                alt.Tooltip("value:Q", title=label, format=".4f"),
            ],
        )
    )
    legend = alt.Legend(
        title=None,
        orient="bottom",
        gradientLength=140,
        gradientThickness=9,
        format=".2~f",
        tickCount=3,
        labelOverlap="greedy",
    )
    colour = (
        # equal distances from 0 get equal shades; what they stand for is written in the cells and their tooltips
        alt.Color("balance:Q", scale=alt.Scale(scheme="redblue", domain=[-1, 1]), legend=None)
        if diverging
        else alt.Color(
            "value:Q",
            scale=alt.Scale(
                scheme="blues", zero=False, nice=False, reverse=reverse, domain=[0, 1] if unit else alt.Undefined
            ),
            legend=legend,
        )
    )
    cell = base.mark_rect(stroke="white", strokeWidth=1)
    layered = [
        # all cells first: rows and columns stand in the order of the records, whatever has no value
        cell.encode(color=alt.value(EMPTY)),
        cell.encode(color=colour),
    ]
    if numbers:
        dark = "datum.share < 0.4" if reverse else "datum.share > 0.6"
        ink = (
            alt.when("abs(datum.balance) > 0.62" if diverging else dark)
            .then(alt.value("white"))
            .otherwise(alt.value(INK))
        )
        text = base.mark_text(fontSize=9 if step[0] < 36 else 10.5).transform_filter("isValid(datum.value)")
        layered.append(text.encode(text=alt.Text("value:Q", format=".2f"), color=ink))
    chart = alt.layer(*layered, data=data(records)).properties(width=alt.Step(step[0]), height=alt.Step(step[1]))
    return themed(chart, title)
