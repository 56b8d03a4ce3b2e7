"""Figures of SAE features: how often they fire, how coherent they are, what they do. A record is of a `layer`."""

from collections.abc import Sequence
from typing import Any

import altair as alt

from src.report.figures.theme import BLUE, FAINT_INK, GREY, ORANGE, Record, panels, themed

_COLUMNS = 3
_WIDTH, _HEIGHT = 260, 220
_LINEAR = 0.01  # nats
_SUBTITLE = f"scales: linear to {_LINEAR:g} nats, logarithmic beyond"
_SYMLOG: dict[str, Any] = {
    "scale": alt.Scale(type="symlog", constant=_LINEAR),
    "axis": alt.Axis(values=[-10, -1, -0.1, -_LINEAR, 0, _LINEAR, 0.1, 1, 10], format="~g"),
}


def rate_and_coherence(records: Sequence[Record], title: str = "Features: rate, coherence and score") -> alt.FacetChart:
    """Every feature by the share of tokens at which it fires and the coherence of these, coloured by score.

    Args:
        records: one per feature: `layer`, `feature`, `rate` (above 0), `coherence`, `score`, `tokens` (text).
        title: what the figure shows.
    """
    marks = (
        alt.Chart()
        .mark_point(filled=True, size=16, opacity=0.7)
        .encode(
            x=alt.X(
                "rate:Q",
                title="share of tokens",
                scale=alt.Scale(type="log", nice=False),
                axis=alt.Axis(format="~%", tickCount=4),
            ),
            y=alt.Y("coherence:Q", title="coherence"),
            color=alt.Color("score:Q", title="score", scale=alt.Scale(scheme="viridis")),
            tooltip=[*_tooltip("score", "coherence", "rate"), alt.Tooltip("tokens:N", title="fires at")],
        )
    )
    return themed(panels([marks], records, "layer:O", "layer", _COLUMNS, _WIDTH, _HEIGHT), title)


def score_histograms(records: Sequence[Record], title: str = "Distribution of scores") -> alt.FacetChart:
    """How the scores of a layer's live features are distributed, the selected ones apart.

    Args:
        records: one per layer, bin and kind: `layer`, `from`, `to`, `features` (a count), `kind` (selected, others).
        title: what the figure shows.
    """
    bars = (
        alt.Chart()
        .mark_bar()
        .encode(
            x=alt.X("from:Q", title="score", bin="binned"),
            x2="to:Q",
            y=alt.Y("features:Q", title="features", axis=alt.Axis(tickMinStep=1)),
            color=alt.Color(
                "kind:N",
                title=None,
                scale=alt.Scale(domain=["selected", "others"], range=[ORANGE, GREY]),
                legend=alt.Legend(orient="top", direction="horizontal"),
            ),
            tooltip=[
                alt.Tooltip("from:Q", format=".3f"),
                alt.Tooltip("to:Q", format=".3f"),
                alt.Tooltip("features:Q", format=","),
                alt.Tooltip("kind:N"),
            ],
        )
    )
    chart = panels([bars], records, "layer:O", "layer", _COLUMNS, _WIDTH, 150)
    return themed(chart.resolve_scale(y="independent"), title)


def attributed_and_measured(
    records: Sequence[Record], title: str = "First-order effects against measured ones"
) -> alt.FacetChart:
    """Of each candidate the first-order and the measured effect of taking it away, with the line where they agree.

    Args:
        records: one per candidate: `layer`, `feature`, `attribution`, `measured`, `measured_low`, `measured_high`.
        title: what the figure shows.
    """
    base = alt.Chart()
    # effects differ by powers of ten, and in sign
    x, low = (
        alt.X("attribution:Q", title="first order (nats per firing)", **_SYMLOG),
        alt.Y("measured_low:Q", title="measured (nats per firing)", **_SYMLOG),
    )
    layered = [
        base.mark_line(color=FAINT_INK, strokeDash=[4, 4], strokeWidth=1).encode(x=x, y="attribution:Q"),
        base.mark_rule(color=BLUE, opacity=0.3).encode(x=x, y=low, y2="measured_high:Q"),
        base.mark_point(filled=True, size=18, color=BLUE).encode(
            x=x, y="measured:Q", tooltip=_tooltip("attribution", "measured")
        ),
    ]
    chart = panels(layered, records, "layer:O", "layer", _COLUMNS, _WIDTH, _HEIGHT)
    return themed(
        chart.resolve_scale(x="independent", y="independent"), title, "scales: linear to 0.01 nats, then logarithmic"
    )


def _tooltip(*fields: str) -> list[alt.Tooltip]:
    numbers = [alt.Tooltip(f"{field}:Q", format=".3g") for field in fields]
    return [alt.Tooltip("layer:O"), alt.Tooltip("feature:Q"), *numbers]
