"""Figures of a captured conversation: how sure the model was of each token, and how large its states are."""

from collections.abc import Sequence

import altair as alt

from src.report.figures.theme import BLUE, CATEGORIES, EMPTY, INK, Record, data, ordered, themed

_MOST_NUMBERS = 240  # cells


def entropy_by_step(records: Sequence[Record], title: str, subtitle: str | None = None) -> alt.LayerChart:
    """The entropy of the next-token distribution at each step of a generation, a line for each run.

    Args:
        records: one per step: `run`, `step`, `entropy` (nats), `token` (the one that was chosen), `probability`.
        title: what the figure shows.
        subtitle: a second, fainter line.
    """
    runs = ordered(records, "run")
    few = len(runs) <= len(CATEGORIES)
    scale = alt.Scale(domain=runs, range=CATEGORIES[: len(runs)]) if few else alt.Scale(scheme="viridis")
    legend = alt.Legend(orient="top", columns=3, labelLimit=200) if len(runs) > 1 else None
    colour = alt.Color("run:N", title="run", sort=runs, scale=scale, legend=legend if few else None)
    base = alt.Chart(data(records)).encode(
        x=alt.X(
            "step:Q",
            title="step (token of the reply)",
            scale=alt.Scale(padding=12, nice=False, zero=False),
            axis=alt.Axis(format="d", tickMinStep=1, grid=False),
        ),
        y=alt.Y("entropy:Q", title="entropy (nats)", scale=alt.Scale(domainMin=0), axis=alt.Axis(tickCount=5)),
        color=alt.value(BLUE) if len(runs) == 1 else colour,
        tooltip=[
            alt.Tooltip("run:N"),
            alt.Tooltip("step:Q"),
            alt.Tooltip("token:N", title="chosen token"),
            alt.Tooltip("probability:Q", title="its probability", format=".4f"),
            alt.Tooltip("entropy:Q", title="entropy (nats)", format=".4f"),
        ],
    )
    lines = base.mark_line(strokeWidth=1.6, opacity=1 if few else 0.6)
    points = base.mark_point(filled=True, opacity=1, size=34 if few else 14)
    return themed(alt.layer(lines, points).properties(width=560, height=220), title, subtitle)


def norms_by_message(records: Sequence[Record], title: str, subtitle: str | None = None) -> alt.LayerChart:
    """A heat map of the norms of a state over layers (rows) and messages (columns), the number in each cell.

    Args:
        records: one per layer and message: `layer`, `message` (a heading of its own), `text`, `norm`.
        title: what the figure shows.
        subtitle: a second, fainter line.
    """
    messages, layers = ordered(records, "message"), ordered(records, "layer")
    wide = len(messages) <= 12
    base = (
        alt.Chart(data(records))
        .transform_joinaggregate(least="min(norm)", most="max(norm)")
        .transform_calculate(dark="log(datum.norm / datum.least) > 0.6 * log(datum.most / datum.least)")
        .encode(
            x=alt.X(
                "message:O",
                title=None,
                sort=messages,
                axis=alt.Axis(
                    orient="bottom", labelAngle=0 if wide else -55, labelOverlap=False, domain=False, ticks=False
                ),
            ),
            y=alt.Y(
                "layer:O",
                title="layer",
                sort=layers[::-1],
                axis=alt.Axis(domain=False, ticks=False, labelOverlap=True),
            ),
            tooltip=[
                alt.Tooltip("message:N"),
                alt.Tooltip("text:N"),
                alt.Tooltip("layer:O"),
                alt.Tooltip("norm:Q", format=".5g"),
            ],
        )
    )
    legend = alt.Legend(orient="right", gradientLength=110, format=".3~g", tickCount=4)
    scale = alt.Scale(type="log", scheme="blues", nice=False)
    cell = base.mark_rect(stroke="white", strokeWidth=1)
    layered = [
        cell.encode(color=alt.Color("norm:Q", title="norm", scale=scale, legend=legend)).transform_filter(
            "datum.norm > 0"
        ),
        cell.encode(color=alt.value(EMPTY)).transform_filter("!(datum.norm > 0)"),
    ]
    if len(records) <= _MOST_NUMBERS:
        ink = alt.when("datum.dark").then(alt.value("white")).otherwise(alt.value(INK))
        layered.append(base.mark_text(fontSize=10).encode(text=alt.Text("norm:Q", format=".3~g"), color=ink))
    width, height = (62 if wide else 36), (24 if len(layers) <= 20 else 12)
    chart = alt.layer(*layered).properties(width=alt.Step(width), height=alt.Step(height))
    return themed(chart, title, subtitle)
