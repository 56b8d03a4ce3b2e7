"""Lines over the layers of a model, over the steps of a generation, and over the messages of a conversation.

Points are joined by straight lines: between two layers there is nothing that a curve could show. The scale is the
data's own, and a darker grid line stands at 0 where 0 is in sight. The specification is the same for any records.
"""

from collections.abc import Sequence

import altair as alt

from src.report.figures.theme import CATEGORIES, GREY, GRID, SHADE, Record, data, themed

_ZERO = "#9aa5b1"
# Okabe and Ito's seven, then lighter and darker ones beside them
MANY = [*CATEGORIES, "#6a3d9a", "#b8860b", "#7f3b08", "#1b7837", "#c51b7d", "#4d4d4d", "#35978f", "#fb9a99", "#a6cee3"]


def layer_lines(
    records: Sequence[Record],
    title: str,
    *,
    label: str,
    series: Sequence[str],
    by: str = "source",
    band: bool = False,
    x: str = "layer",
    x_label: str = "layer",
    height: int = 170,
) -> alt.LayerChart:
    """One line for each series over the layers (or steps, or turns).

    Args:
        records: `layer` (or the field x names), the series' field, `value`; `low` and `high` where `band`.
        title: what the figure shows.
        label: what the value is.
        series: the series in their order.
        by: the field that tells the series apart.
        band: shade from `low` to `high`.
        x: the field on the horizontal axis, whole numbers.
        x_label: its name.
        height: of the plot, in pixels.
    """
    colours = MANY if len(series) > len(CATEGORIES) else CATEGORIES
    scale = alt.Scale(domain=list(series), range=[colours[place % len(colours)] for place in range(len(series))])
    chosen = alt.selection_point(name="chosen", fields=[by], bind="legend")
    legend = alt.Legend(
        title=None, orient="top", columns=3 if len(series) > 4 else 2, labelLimit=90, symbolType="stroke"
    )
    base = alt.Chart().encode(
        x=alt.X(
            f"{x}:Q",
            title=x_label,
            scale=alt.Scale(nice=False, zero=False, padding=8),
            axis=alt.Axis(tickMinStep=1, format="d", grid=False),
        ),
        y=value_axis(label),
        color=alt.Color(f"{by}:N", sort=list(series), scale=scale, legend=legend if len(series) > 1 else None),
        opacity=alt.when(chosen).then(alt.value(1.0)).otherwise(alt.value(0.15)),
    )
    tooltip = [
        alt.Tooltip(f"{by}:N"),
        alt.Tooltip(f"{x}:Q", title=x_label),
        alt.Tooltip("value:Q", title=label, format=".4f"),
        *([alt.Tooltip("low:Q", format=".4f"), alt.Tooltip("high:Q", format=".4f")] if band else []),
    ]
    layered = [
        room(base, label),
        base.mark_line(strokeWidth=1.7, interpolate="linear"),
        base.mark_point(filled=True, size=28).encode(tooltip=tooltip).add_params(chosen),
    ]
    if band:
        layered.insert(
            0, base.mark_area(opacity=0.16).encode(y=alt.Y("low:Q", title=label), y2="high:Q", opacity=alt.value(0.16))
        )
    chart = alt.layer(*layered, data=data(records)).properties(width=222, height=height)
    return themed(chart, title)


def message_lines(
    records: Sequence[Record], title: str, *, label: str, series: Sequence[str], by: str = "label"
) -> alt.LayerChart:
    """One line for each reference over the messages of a conversation.

    Args:
        records: `message` (number and role, as on the axis), `preview`, the series' field, `value`.
        title: what the figure shows.
        label: what the value is.
        series: the references in their order.
        by: the field that tells them apart.
    """
    colours = MANY if len(series) > len(CATEGORIES) else CATEGORIES
    scale = alt.Scale(domain=list(series), range=[colours[place % len(colours)] for place in range(len(series))])
    chosen = alt.selection_point(name="chosen", fields=[by], bind="legend")
    base = alt.Chart().encode(
        x=message_axis(),
        y=value_axis(label),
        color=alt.Color(
            f"{by}:N",
            sort=list(series),
            scale=scale,
            legend=alt.Legend(title=None, orient="top", columns=4, labelLimit=130, symbolType="stroke"),
        ),
        opacity=alt.when(chosen).then(alt.value(1.0)).otherwise(alt.value(0.15)),
    )
    tooltip = [
        alt.Tooltip("message:N"),
        alt.Tooltip("preview:N", title="text"),
        alt.Tooltip(f"{by}:N"),
        alt.Tooltip("value:Q", title=label, format=".4f"),
    ]
    layered = [
        room(base, label),
        base.mark_line(strokeWidth=1.7, interpolate="linear"),
        base.mark_point(filled=True, size=34).encode(tooltip=tooltip).add_params(chosen),
    ]
    return themed(alt.layer(*layered, data=data(records)).properties(width=alt.Step(27), height=190), title)


def null_band(
    records: Sequence[Record], title: str, *, label: str, x: str = "layer", x_label: str = "layer", middle: bool = False
) -> alt.LayerChart:
    """A score over the layers (or turns), with its interval, before what chance gives.

    Args:
        records: `layer` (or the field x names), `value`, `low`, `high`, and of chance: `null_low` and `null_high`, and
            `null` where `middle`.
        title: what the figure shows.
        label: what the score is.
        x: the field on the horizontal axis, whole numbers.
        x_label: its name.
        middle: draw what chance gives on average, dashed.
    """
    axis = alt.X(
        f"{x}:Q",
        title=x_label,
        scale=alt.Scale(nice=False, zero=False, padding=8),
        axis=alt.Axis(tickMinStep=1, format="d", grid=False),
    )
    base = alt.Chart().encode(x=axis)
    y = value_axis(label)
    tooltip = [
        alt.Tooltip(f"{x}:Q", title=x_label),
        *(alt.Tooltip(f"{name}:Q", format=".4f") for name in ("value", "low", "high")),
        alt.Tooltip("null_low:Q", title="chance, from", format=".4f"),
        alt.Tooltip("null_high:Q", title="chance, to", format=".4f"),
    ]
    layered = [
        room(base, label),
        base.mark_area(color=SHADE, opacity=0.75, line=False).encode(
            y=alt.Y("null_low:Q", title=label), y2="null_high:Q"
        ),
        base.mark_rule(color=CATEGORIES[0], strokeWidth=1.2).encode(y=alt.Y("low:Q", title=label), y2="high:Q"),
        base.mark_line(color=CATEGORIES[0], strokeWidth=1.8).encode(y=y),
        base.mark_point(color=CATEGORIES[0], filled=True, size=34, opacity=1).encode(y=y, tooltip=tooltip),
    ]
    if middle:
        layered.insert(2, base.mark_line(color=GREY, strokeDash=[4, 3]).encode(y=alt.Y("null:Q", title=label)))
    # four beside each other on a page: resid_pre, resid_post, attn_out, mlp_out
    return themed(alt.layer(*layered, data=data(records)).properties(width=160, height=180), title)


def room(base: alt.Chart, label: str) -> alt.Chart:
    """Unseen room above and below values that are all the same: an axis of no length has no ticks."""
    pad = "datum.most - datum.least > 1e-6 * abs(datum.most) ? 0 : max(abs(datum.most) * 0.05, 0.01)"
    return (
        base.transform_joinaggregate(least="min(value)", most="max(value)")
        .transform_calculate(below=f"datum.value - ({pad})", above=f"datum.value + ({pad})")
        .mark_rule(opacity=0)
        .encode(y=alt.Y("below:Q", title=label), y2="above:Q", opacity=alt.value(0))
    )


def value_axis(label: str) -> alt.Y:
    """The axis of values: over the data alone, with a darker line at 0."""
    line = alt.condition("datum.value === 0", alt.value(_ZERO), alt.value(GRID))
    return alt.Y(
        "value:Q", title=label, scale=alt.Scale(zero=False, nice=True), axis=alt.Axis(gridColor=line, tickCount=5)
    )


def message_axis() -> alt.X:
    """The messages of a conversation, number and role, in the order of the records."""
    return alt.X("message:O", title=None, sort=None, axis=alt.Axis(labelAngle=-50, labelOverlap=False, labelLimit=90))
