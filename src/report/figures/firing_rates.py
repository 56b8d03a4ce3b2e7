"""How often the features of SAEs fire."""

from collections.abc import Sequence

import altair as alt

from src.report.figures.theme import BLUE, FAINT_INK, Record, data, themed


def firing_rates(records: Sequence[Record], dead: Sequence[Record]) -> alt.LayerChart:
    """A histogram of firing rates on a log scale for each layer.

    Args:
        records: one per layer and bin: `layer`, `low` and `high` (log10 of the rate), `features` (a count).
        dead: one per layer: `layer`, `text` (how many features never fire).
    """
    layers = sorted({record["layer"] for record in records})
    bars = alt.Chart(data(records)).mark_bar(color=BLUE).encode(
        x=alt.X("low:Q", bin="binned", title="share of tokens on which a feature fires (log10)",
                axis=alt.Axis(tickCount=6)),
        x2="high:Q",
        y=alt.Y("features:Q", title="features", axis=alt.Axis(tickCount=4, format=",d")),
        tooltip=[
            alt.Tooltip("low:Q", title="log10 rate from", format=".2f"),
            alt.Tooltip("high:Q", title="to", format=".2f"),
            alt.Tooltip("features:Q", format=","),
        ],
    )  # fmt: skip
    words = (
        alt.Chart(data(dead))
        .mark_text(align="left", baseline="top", color=FAINT_INK, fontSize=11)
        .encode(x=alt.value(6), y=alt.value(4), text="text:N")
    )
    panels = [
        alt.layer(
            bars.transform_filter(f"datum.layer == {layer}"), words.transform_filter(f"datum.layer == {layer}")
        ).properties(width=250, height=130, title=f"layer {layer}")
        for layer in layers
    ]
    return themed(alt.concat(*panels, columns=3), "How often features fire", "counted tokens of the store")
