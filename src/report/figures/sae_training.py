"""How SAEs get better with the tokens that they are trained on."""

from collections.abc import Sequence

import altair as alt

from src.report.figures.theme import CATEGORIES, Record, data, finite, ordered, themed

_PANELS = {
    "fvu": "FVU",
    "l0": "L0: active features per token",
    "dead": "share of features that are dead",
    "recovered_zero": "loss recovered (of zero ablation)",
}


def training_curves(records: Sequence[Record], title: str = "Scores over training") -> alt.ConcatChart:
    """One panel per score, one line per layer with its interval as a band; panels without a value are left out.

    records: `layer`, `tokens`, and of each score `fvu`, `l0`, `dead`, `recovered_zero` the value and, if known, its
    `_low` and `_high`.
    """
    layers = ordered(records, "layer")
    hues = alt.Scale(domain=layers, range=CATEGORIES) if len(layers) <= len(CATEGORIES) else alt.Scale(scheme="viridis")
    legend = alt.Legend(symbolOpacity=1)
    colour = alt.Color("layer:O", title="layer", sort=layers, scale=hues, legend=legend)
    shown = {name: label for name, label in _PANELS.items() if finite(records, name)}
    charts = [_panel(records, name, label, colour) for name, label in shown.items()]
    return themed(alt.concat(*charts, columns=2, spacing=24), title)


def _panel(records: Sequence[Record], name: str, label: str, colour: alt.Color) -> alt.LayerChart | alt.FacetChart:
    rows = [
        {
            "layer": record["layer"],
            "tokens": record["tokens"],
            "value": record.get(name),
            "low": record.get(f"{name}_low"),
            "high": record.get(f"{name}_high"),
        }
        for record in records
    ]
    last = max(row["tokens"] for row in rows)
    x = alt.X(
        "tokens:Q",
        title="tokens",
        scale=alt.Scale(domain=[0, last]),
        axis=alt.Axis(tickCount=4, format="~s", grid=False),
    )
    y = alt.Y("value:Q", title=label, scale=alt.Scale(zero=name != "recovered_zero"), axis=alt.Axis(tickCount=5))
    tooltip = [
        alt.Tooltip("layer:O"),
        alt.Tooltip("tokens:Q", format=","),
        alt.Tooltip("value:Q", title=label, format=".4f"),
        alt.Tooltip("low:Q", format=".4f"),
        alt.Tooltip("high:Q", format=".4f"),
    ]
    base = alt.Chart().encode(x=x, color=colour)
    band = base.transform_filter("isValid(datum.low)").mark_area(opacity=0.2)
    layered = [
        band.encode(y=alt.Y("low:Q", title=label), y2="high:Q"),
        base.mark_line(strokeWidth=2).encode(y=y),
        base.mark_point(filled=True, size=40, opacity=1).encode(y=y, tooltip=tooltip),
    ]
    return alt.layer(*layered, data=data(rows)).properties(width=300, height=200)
