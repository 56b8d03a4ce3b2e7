"""What trained modulators and their controls gain over the frozen model."""

from collections.abc import Sequence

import altair as alt

from src.report.figures.theme import BLUE, FAINT_INK, GREY, INK, Record, data, ordered, themed


def gain_chart(records: Sequence[Record], x_title: str, title: str) -> alt.LayerChart:
    """Differences of losses with their intervals, one row each, and a thin mark for each training where there are more.

    records: `run`, `value`, `low`, `high` (None where there is no interval), `each` (values of single trainings), and
    `of_modulator` (the row that stands out).
    """
    runs = ordered(records, "run")
    colour = alt.condition("datum.of_modulator", alt.value(BLUE), alt.value(INK))
    y = alt.Y("run:N", title=None, sort=runs, scale=alt.Scale(paddingInner=0.3), axis=alt.Axis(ticks=False))
    zeroed = alt.Axis(
        gridColor=alt.condition("datum.value === 0", alt.value(FAINT_INK), alt.value("#e4e7eb")), tickCount=6
    )
    x = alt.X("value:Q", title=x_title, axis=zeroed)
    tooltip = [alt.Tooltip("run:N"), *(alt.Tooltip(f"{name}:Q", format=".5f") for name in ("value", "low", "high"))]
    base = alt.Chart(data(records)).encode(y=y)
    single = [
        {"run": record["run"], "value": value}
        for record in records
        if len(record["each"]) > 1
        for value in record["each"]
    ]
    marks = [
        base.mark_rule(strokeWidth=2).encode(x=alt.X("low:Q", title=x_title, axis=zeroed), x2="high:Q", color=colour),
        base.mark_point(filled=True, size=70, opacity=1).encode(x=x, color=colour, tooltip=tooltip),
    ]
    if single:
        ticks = alt.Chart(data(single)).mark_tick(thickness=1.5, size=14, color=GREY)
        marks.insert(0, ticks.encode(y=y, x=x, tooltip=[alt.Tooltip("value:Q", format=".5f")]))
    return themed(alt.layer(*marks).properties(width=460, height=30 * len(runs)), title)
