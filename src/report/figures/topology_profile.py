"""Figures of topology over layers, models and sample sizes: small multiples, one panel per statistic."""

from collections.abc import Sequence
from typing import Any

import altair as alt

from src.report.figures.theme import BLUE, CATEGORIES, SHADE, Record, data, ordered, themed

_MOST_TICKS = 14  # of more layers, only some are named on the axis
# the least with which panels do not touch
_SPACING = {"row": 80, "column": 34}
# labels stay beside the axis, so that the titles of all panels stand on one line
_AXIS = alt.Axis(tickCount=5, labelFlush=7)


def layer_profile(
    records: Sequence[Record],
    title: str = "Topology over layers",
    *,
    subtitle: str | None = None,
    null: str = "null model",
    columns: int = 3,
) -> alt.ConcatChart:
    """One panel per statistic over layers, one line per model, with bands; panels keep the order of the records.

    Args:
        records: `statistic` (its name on the panel), `layer`, `value`, and where they are known `low` and `high` (the
            subsample band), `null_low` and `null_high` (the middle 95 % of the null model), `model`. A record whose
            value is missing leaves a gap.
        title: what the figure shows.
        subtitle: a second, fainter line.
        null: name of the null model.
        columns: panels in a row.
    """
    records = [{"model": "", **record} for record in records]
    models = ordered(records, "model")
    charts = [
        _panel([record for record in records if record["statistic"] == name], name, models, null)
        for name in ordered(records, "statistic")
    ]
    grey = any(record.get("null_high") is not None for record in records)
    notes = [subtitle, "coloured bands: subsamples", f"grey: the middle 95 % of the {null}" if grey else None]
    has_bands = any(record.get("high") is not None for record in records)
    note = "; ".join(note for note in notes if note and (has_bands or not note.startswith("coloured")))
    return themed(alt.concat(*charts, columns=columns, spacing=_SPACING, bounds="flush"), title, note or None)


def _panel(records: Sequence[Record], name: str, models: Sequence[str], null: str) -> Any:
    layers = ordered(records, "layer")
    ticks: dict[str, Any] = {"values": layers} if len(layers) <= _MOST_TICKS else {"tickCount": 8}
    x = alt.X(
        "layer:Q",
        title="layer",
        scale=alt.Scale(domain=[layers[0], max(layers[-1], layers[0] + 1)], nice=False, padding=8),
        axis=alt.Axis(format="d", grid=False, **ticks),
    )
    scale = alt.Scale(zero=False, nice=True)
    several = len(models) > 1
    colour = (
        alt.Color(
            "model:N",
            title=None,
            sort=models,
            scale=alt.Scale(domain=list(models), range=CATEGORIES[: len(models)]),
            legend=alt.Legend(orient="top", symbolOpacity=1),
        )
        if several
        else alt.value(BLUE)
    )
    y = alt.Y("value:Q", title=None, scale=scale, axis=_AXIS)
    tooltip = [
        *([alt.Tooltip("model:N")] if several else []),
        alt.Tooltip("layer:Q"),
        alt.Tooltip("value:Q", title=name, format=".4g"),
        alt.Tooltip("low:Q", title="subsamples, low", format=".4g"),
        alt.Tooltip("high:Q", title="subsamples, high", format=".4g"),
        alt.Tooltip("null_low:Q", title=f"{null}, low", format=".4g"),
        alt.Tooltip("null_high:Q", title=f"{null}, high", format=".4g"),
    ]
    base = alt.Chart().encode(x=x)
    nulls = base.transform_filter("isValid(datum.null_low)")
    bands = base.transform_filter("isValid(datum.low)")
    band_y = alt.Y("low:Q", title=None, scale=scale)
    null_y = alt.Y("null_low:Q", title=None, scale=scale)
    layered = [
        nulls.mark_area(color=SHADE, opacity=0.55).encode(y=null_y, y2="null_high:Q", detail="model:N"),
        bands.mark_area(opacity=0.2).encode(y=band_y, y2="high:Q", color=colour, detail="model:N"),
        base.mark_line(strokeWidth=1.8).encode(y=y, color=colour),
        base.mark_point(filled=True, size=32, opacity=1).encode(y=y, color=colour, tooltip=tooltip),
    ]
    heading = alt.TitleParams(name, fontSize=12, fontWeight=600, offset=8, anchor="start")
    return alt.layer(*layered, data=data(records)).properties(width=230, height=150, title=heading)


def sample_size_curves(
    records: Sequence[Record],
    title: str = "What the number of points does",
    *,
    size: str = "n_points",
    label: str = "points in the subsample",
) -> alt.ConcatChart:
    """One panel per statistic against a size that was varied, one line per cloud, with the spread of the repeats.

    records: `statistic`, `cloud`, the field named by `size`, `value` (the mean of repeats), `low` and `high` where
    there were several. label: what the size is called.
    """
    clouds = ordered(records, "cloud")
    scale = (
        alt.Scale(domain=clouds, range=CATEGORIES) if len(clouds) <= len(CATEGORIES) else alt.Scale(scheme="viridis")
    )
    colour = alt.Color(
        "cloud:N", title=None, sort=clouds, scale=scale, legend=alt.Legend(orient="right", symbolOpacity=1)
    )
    charts: list[Any] = []
    for name in ordered(records, "statistic"):
        rows = [record for record in records if record["statistic"] == name]
        sizes = ordered(rows, size)
        base = alt.Chart().encode(
            x=alt.X(
                f"{size}:Q",
                title=label,
                scale=alt.Scale(type="log", nice=False, padding=8),
                axis=alt.Axis(values=sizes, grid=False, format="~s", labelOverlap=True),
            ),
            color=colour,
        )
        layered = [
            base.transform_filter("isValid(datum.low)")
            .mark_area(opacity=0.15)
            .encode(y=alt.Y("low:Q", title=None, scale=alt.Scale(zero=False)), y2="high:Q"),
            base.mark_line(point=alt.OverlayMarkDef(size=28), strokeWidth=1.6).encode(
                y=alt.Y("value:Q", title=None, scale=alt.Scale(zero=False), axis=_AXIS),
                tooltip=[
                    alt.Tooltip("cloud:N"),
                    alt.Tooltip(f"{size}:Q", title=label),
                    alt.Tooltip("value:Q", title=name, format=".4g"),
                    alt.Tooltip("low:Q", format=".4g"),
                    alt.Tooltip("high:Q", format=".4g"),
                ],
            ),
        ]
        heading = alt.TitleParams(name, fontSize=12, fontWeight=600, offset=8, anchor="start")
        charts.append(alt.layer(*layered, data=data(rows)).properties(width=250, height=160, title=heading))
    return themed(alt.concat(*charts, columns=3, spacing=_SPACING, bounds="flush"), title)
