"""Figures of the logit lens: what each layer would say at each step."""

from collections.abc import Sequence

import altair as alt

from src.report.figures.theme import BLUE, INK, Record, data, themed

_STEP, _ROW = 66, 24
_CHARACTERS = 9


def lens_table(records: Sequence[Record], title: str, *, columns: str, subtitle: str | None = None) -> alt.LayerChart:
    """The likeliest token of each layer (rows, the last one on top) and step or message (columns), with its colour.

    Args:
        records: in the order of the columns: `layer`, `column` (name, each its own), `token`, `probability`, `hit`
            (it is the target), and for the tooltip `others` (the next tokens), `target`, `target_rank`, `kl`.
        title: what the figure shows.
        columns: what the columns are.
        subtitle: a second, fainter line.
    """
    names = list(dict.fromkeys(record["column"] for record in records))
    cells = [{**record, "text": _cut(record["token"]), "dark": record["probability"] > 0.6} for record in records]
    axis = alt.Axis(orient="top", labelAngle=-35, labelAlign="left", domain=False, ticks=False, labelLimit=110)
    base = alt.Chart(data(cells)).encode(
        x=alt.X("column:O", title=columns, sort=names, axis=axis),
        y=alt.Y("layer:O", title="layer", sort="descending", axis=alt.Axis(domain=False, ticks=False)),
        tooltip=[
            alt.Tooltip("column:N", title=columns),
            alt.Tooltip("layer:O"),
            alt.Tooltip("token:N", title="likeliest"),
            alt.Tooltip("probability:Q", format=".3f"),
            alt.Tooltip("others:N", title="then"),
            alt.Tooltip("target:N"),
            alt.Tooltip("target_rank:Q", title="rank of the target"),
            alt.Tooltip("kl:Q", title="KL(layer || final)", format=".3f"),
        ],
    )
    colour = alt.Color(
        "probability:Q",
        title="probability",
        scale=alt.Scale(scheme="blues", domain=[0, 1]),
        legend=alt.Legend(gradientLength=90, tickCount=3),
    )
    ink = alt.when("datum.dark").then(alt.value("white")).otherwise(alt.value(INK))
    layered = [
        base.mark_rect(stroke="white", strokeWidth=1).encode(color=colour),
        base.mark_rect(filled=False, stroke=BLUE, strokeWidth=1.6, fillOpacity=0).transform_filter("datum.hit"),
        base.mark_text(fontSize=10, limit=_STEP - 4).encode(text="text:N", color=ink),
    ]
    chart = alt.layer(*layered).properties(width=alt.Step(_STEP), height=alt.Step(_ROW))
    return themed(chart, title, subtitle)


def _cut(text: str) -> str:
    return text if len(text) <= _CHARACTERS else f"{text[: _CHARACTERS - 1]}…"
