"""How far away in the text an activation can still be predicted: scores against the position offset."""

from collections.abc import Sequence

import altair as alt

from src.report.figures.theme import CATEGORIES, Record, bounded, finite, ordered, panels, themed
from src.report.figures.transport import LOWEST_SCORE


def offset_curves(
    records: Sequence[Record], title: str = "R² against the position offset", *, value: str = "r2", label: str = "R²"
) -> alt.FacetChart:
    """The score of each pair against the offset: a panel per source layer, a line per leap.

    Args:
        records: one per pair and offset: `layer`, `leap`, `offset`, the field named by `value`, and if known
            `<value>_low` and `<value>_high`.
        title: what the figure shows.
        value: the field that is drawn.
        label: its name on the axis.
    """
    layers, leaps, offsets = (ordered(records, field) for field in ("layer", "leap", "offset"))
    rows = [
        {
            "layer": record["layer"],
            "leap": record["leap"],
            "offset": record["offset"],
            "target": record["layer"] + record["leap"],
            "score": record[value],
            "low": record.get(f"{value}_low"),
            "high": record.get(f"{value}_high"),
        }
        for record in records
    ]
    few = len(leaps) <= len(CATEGORIES)
    domain = bounded(finite(rows, "score", "low", "high"), LOWEST_SCORE)
    scale = alt.Scale(domain=leaps, range=CATEGORIES[: len(leaps)]) if few else alt.Scale(scheme="viridis")
    y = alt.Y("score:Q", title=label, scale=alt.Scale(domain=domain, clamp=True))
    base = alt.Chart().encode(
        x=alt.X(
            "offset:Q",
            title="offset: target's position less the source's",
            scale=alt.Scale(padding=14, nice=False, zero=False),
            axis=alt.Axis(values=offsets, format="+d", labelExpr="datum.value === 0 ? '0' : datum.label"),
        ),
        color=alt.Color("leap:O", title="leap k", sort=leaps, scale=scale, legend=alt.Legend(orient="top")),
    )
    tooltip = [
        alt.Tooltip("layer:Q", title="source layer L"),
        alt.Tooltip("target:Q", title="target layer L + k"),
        alt.Tooltip("offset:Q", format="+d"),
        alt.Tooltip("score:Q", title=label, format=".4f"),
        alt.Tooltip("low:Q", format=".4f"),
        alt.Tooltip("high:Q", format=".4f"),
    ]
    layered = [
        base.mark_line(strokeWidth=1.6).encode(y=y),
        base.mark_rule(strokeWidth=1.2).encode(y=alt.Y("low:Q", title=label), y2="high:Q"),
        base.mark_point(filled=True, opacity=1, size=45).encode(y=y, tooltip=tooltip),
    ]
    chart = panels(layered, rows, "layer:O", "source layer L", 3, 240 if len(layers) > 1 else 380, 200)
    return themed(chart, title)
