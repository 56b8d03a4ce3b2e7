"""Figures of collected activations."""

from collections.abc import Sequence

import altair as alt

from src.report.figures.theme import BLUE, INK, Record, data, themed


def keep_reasons(
    records: Sequence[Record], num_tokens: int, title: str = "Tokens left out of statistics"
) -> alt.LayerChart:
    """How many tokens each reason leaves out.

    Args:
        records: one per reason: `reason` and `tokens` (a count).
        num_tokens: all tokens of the store, kept or not.
        title: what the figure shows.
    """
    left_out = sum(record["tokens"] for record in records)
    rows = [{**record, "share": record["tokens"] / num_tokens, "text": f"{record['tokens']:,}"} for record in records]
    base = alt.Chart(data(rows)).encode(
        y=alt.Y("reason:N", title=None, sort=None, axis=alt.Axis(domain=False, ticks=False)),
        x=alt.X(
            "tokens:Q",
            title="tokens",
            axis=alt.Axis(format=",d", tickCount=4, tickMinStep=1),
            scale=alt.Scale(domainMin=0, domainMax=max([record["tokens"] for record in records] or [0]) * 1.12 or 1),
        ),
        tooltip=[
            alt.Tooltip("reason:N"),
            alt.Tooltip("tokens:Q", format=","),
            alt.Tooltip("share:Q", title="share of all tokens", format=".3~%"),
        ],
    )
    chart = alt.layer(
        base.mark_bar(color=BLUE, cornerRadiusEnd=1.5, height=16),
        base.mark_text(align="left", dx=5, color=INK, fontSize=11).encode(text="text:N"),
    ).properties(width=420, height=alt.Step(28))
    share = left_out / num_tokens if num_tokens else 0.0
    return themed(chart, title, f"{left_out:,} of {num_tokens:,} tokens ({share:.2%}) are left out")
