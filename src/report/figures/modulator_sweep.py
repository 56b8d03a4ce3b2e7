"""A modulator at fixed strengths, beside controls of the same strengths."""

from collections.abc import Sequence

import altair as alt

from src.report.figures.theme import CATEGORIES, Record, data, themed

# nats per token: smaller changes are drawn to a linear scale
_SMALL = 0.003
_PANELS = {"change": "NLL less the frozen model's, nats", "cosine": "cosine of final states"}


def sweep_chart(
    records: Sequence[Record], variants: Sequence[str], title: str = "The modulator at fixed strengths"
) -> alt.HConcatChart:
    """Two panels over alpha (log scale): the change of NLL and the cosine of states, a line per variant with its band.

    records: `alpha`, `variant`, and of `change` and `cosine` the value, `_low` and `_high`. variants: in their order.
    """
    scale = alt.Scale(domain=list(variants), range=[CATEGORIES[k % len(CATEGORIES)] for k in range(len(variants))])
    # the modulator's line is thick, since controls lie on it where strength is all that matters
    first = {"test": {"field": "variant", "equal": variants[0]}, "value": 3.5}
    panels = []
    for name, label in _PANELS.items():
        base = alt.Chart(
            data(
                {
                    "alpha": record["alpha"],
                    "variant": record["variant"],
                    "value": record[name],
                    "low": record[f"{name}_low"],
                    "high": record[f"{name}_high"],
                }
                for record in records
                if record["variant"] in variants
            )
        ).encode(
            x=alt.X(
                "alpha:Q",
                title="alpha in every layer",
                scale=alt.Scale(type="log", nice=False, padding=8),
                axis=alt.Axis(values=sorted({record["alpha"] for record in records}), labelOverlap=True, grid=False),
            ),
            color=alt.Color(
                "variant:N", title=None, sort=list(variants), scale=scale, legend=alt.Legend(symbolOpacity=1)
            ),
        )
        y = alt.Y("value:Q", title=label, scale=_scale(name), axis=_axis(name))
        tooltip = [
            alt.Tooltip("variant:N"),
            alt.Tooltip("alpha:Q"),
            *(alt.Tooltip(f"{field}:Q", format=".4f") for field in ("value", "low", "high")),
        ]
        panels.append(
            alt.layer(
                base.mark_area(opacity=0.15).encode(y=alt.Y("low:Q", title=label), y2="high:Q"),
                base.mark_line(interpolate="linear").encode(
                    y=y, strokeWidth={"condition": first, "value": 1.5}, opacity=alt.value(0.9)
                ),
                base.mark_point(filled=True, size=34, opacity=1).encode(y=y, tooltip=tooltip),
            ).properties(width=300, height=230)
        )
    return themed(alt.hconcat(*panels, spacing=28), title)


def _scale(name: str) -> alt.Scale:
    """Changes are small or large: logarithmic on both sides of 0."""
    return alt.Scale(type="symlog", constant=_SMALL, nice=False) if name == "change" else alt.Scale(zero=False)


def _axis(name: str) -> alt.Axis:
    if name == "cosine":
        return alt.Axis(tickCount=5)
    return alt.Axis(values=[-1, -0.1, -0.01, 0, 0.01, 0.1, 1, 10], format="~g", labelOverlap="greedy")
