"""One figure of a model's weights: spectra, ranks, entries, neurons, layers, norms, conditions."""

from collections.abc import Sequence
from typing import Any

import altair as alt

from src.report.figures.theme import CATEGORIES, FAINT_INK, GREY, Record, data, themed

_WIDTH, _HEIGHT = 250, 170
_MOST_HEAT_CELLS = 48
_DECADES = alt.Axis(tickCount=3, format="~g")


def weight_panels(
    title: str,
    *,
    spectra: Sequence[Record],
    ranks: Sequence[Record],
    histograms: Sequence[Record],
    neurons: Sequence[Record],
    entry_cosines: Sequence[Record],
    gram_cosines: Sequence[Record],
    norms: Sequence[Record],
    conditions: Sequence[Record],
    subtitle: str,
) -> alt.ConcatChart:
    """All panels that have data, three in a row.

    Args:
        title: of the figure.
        spectra: `role`, `place` (share of the rank), `value` (s / s_1), `kind` (model, random), `line` (a curve).
        ranks: `role`, `layer`, `value` (stable rank over that of a random matrix).
        histograms: `role`, `power` (log10 |w|), `value` (density).
        neurons: `layer`, `low`, `value`, `high`, `least` (importance over the median: percentiles 5, 50, 95, minimum).
        entry_cosines: `layer`, `other`, `value` of one kind of matrix.
        gram_cosines: the same, Gram cosines.
        norms: `place`, `layer`, `low`, `value`, `high` (percentiles 5, 50, 95 of the effective gains).
        conditions: `role`, `layer`, `value` (condition).
        subtitle: what colours and nulls are.
    """
    made = [
        (spectra, _spectra),
        (ranks, lambda records: _lines(records, "Stable rank over a random matrix's", "ratio", 1.0)),
        (histograms, _histograms),
        (neurons, _neurons),
        (entry_cosines, lambda records: _heat(records, "Layers, entry by entry: cosine")),
        (gram_cosines, lambda records: _heat(records, "Layers, residual side: Gram cosine")),
        (norms, _norms),
        (conditions, lambda records: _lines(records, "Condition", "largest / smallest s", None, log=True)),
    ]
    charts = [draw(records) for records, draw in made if records]
    chart = alt.concat(*charts, columns=3, spacing=34).resolve_scale(color="independent", strokeDash="independent")
    return themed(chart, title, subtitle)


def _panel(chart: Any, title: str) -> Any:
    heading = alt.TitleParams(title, fontSize=12, fontWeight=600, offset=8)
    return chart.properties(width=_WIDTH, height=_HEIGHT, title=heading)


def _colour(records: Sequence[Record], by: str) -> alt.Color:
    names = list(dict.fromkeys(record[by] for record in records))
    scale = alt.Scale(domain=names, range=[CATEGORIES[place % len(CATEGORIES)] for place in range(len(names))])
    legend = alt.Legend(title=None, orient="bottom", columns=4, symbolType="stroke", symbolOpacity=1, labelLimit=110)
    return alt.Color(f"{by}:N", scale=scale, legend=legend)


def _layer_axis() -> alt.X:
    axis = alt.Axis(tickMinStep=1, format="d", grid=False)
    return alt.X("layer:Q", title="layer", axis=axis, scale=alt.Scale(nice=False, zero=False, padding=8))


def _spectra(records: Sequence[Record]) -> alt.LayerChart:
    base = alt.Chart(data(records)).encode(
        x=alt.X("place:Q", title="share of the rank", scale=alt.Scale(domain=[0, 1])),
        y=alt.Y(
            "value:Q", title="s / largest", scale=alt.Scale(type="log", domain=[1e-3, 1], clamp=True), axis=_DECADES
        ),
        detail="line:N",
    )
    own = base.transform_filter("datum.kind === 'model'").mark_line(strokeWidth=1, opacity=0.55, clip=True)
    random = base.transform_filter("datum.kind === 'random'").mark_line(strokeWidth=1.4, strokeDash=[4, 3], color=GREY)
    return _panel(alt.layer(own.encode(color=_colour(records, "role")), random), "Spectra")


def _lines(
    records: Sequence[Record], title: str, label: str, reference: float | None, log: bool = False
) -> alt.LayerChart:
    scale = alt.Scale(type="log") if log else alt.Scale(zero=True)
    base = alt.Chart(data(records)).encode(
        x=_layer_axis(),
        y=alt.Y("value:Q", title=label, scale=scale, axis=alt.Axis(tickCount=5, format="~g")),
        color=_colour(records, "role"),
        tooltip=["role:N", "layer:Q", alt.Tooltip("value:Q", format=".4g")],
    )
    layered = [base.mark_line(strokeWidth=1.5), base.mark_point(filled=True, size=18)]
    if reference is not None:
        rule = alt.Chart(data([{"y": reference}])).mark_rule(color=GREY, strokeDash=[4, 3]).encode(y="y:Q")
        layered.insert(0, rule)  # pyright: ignore[reportArgumentType]
    return _panel(alt.layer(*layered), title)


def _histograms(records: Sequence[Record]) -> alt.Chart:
    chart = (
        alt.Chart(data(records))
        .mark_line(strokeWidth=1.3)
        .encode(
            x=alt.X("power:Q", title="log10 |w|", scale=alt.Scale(nice=False, zero=False)),
            y=alt.Y("value:Q", title="density"),
            color=_colour(records, "role"),
        )
    )
    return _panel(chart, "Entries: scale, not sparsity")


def _neurons(records: Sequence[Record]) -> alt.LayerChart:
    base = alt.Chart(data(records)).encode(x=_layer_axis())
    axis = alt.Y("value:Q", title="importance / median", scale=alt.Scale(type="log"), axis=_DECADES)
    band = base.mark_rule(color=CATEGORIES[0], opacity=0.5, strokeWidth=5).encode(y=alt.Y("low:Q"), y2="high:Q")
    least = base.mark_point(shape="stroke", color=CATEGORIES[6], size=90, strokeWidth=2).encode(y=alt.Y("least:Q"))
    limits = alt.Chart(data([{"y": 0.01}, {"y": 0.1}])).mark_rule(color=GREY, strokeDash=[4, 3]).encode(y="y:Q")
    middle = base.mark_point(filled=True, color=CATEGORIES[0], size=18).encode(y=axis)
    return _panel(alt.layer(limits, band, middle, least), "Neurons: 5 to 95 %, and the least")


def _heat(records: Sequence[Record], title: str) -> alt.Chart:
    numbered = len({record["layer"] for record in records}) <= _MOST_HEAT_CELLS
    axis = alt.Axis(domain=False, ticks=False, labels=numbered, labelOverlap="greedy", labelAngle=0)
    chart = (
        alt.Chart(data(records))
        .mark_rect()
        .encode(
            x=alt.X("layer:O", title="layer", axis=axis),
            y=alt.Y("other:O", title="layer", axis=axis),
            color=alt.Color(
                "value:Q",
                scale=alt.Scale(scheme="redblue", domain=[-0.2, 0.2], clamp=True),
                legend=alt.Legend(title=None, orient="bottom", gradientLength=140, values=[-0.2, 0, 0.2]),
            ),
            tooltip=["layer:O", "other:O", alt.Tooltip("value:Q", format=".4f")],
        )
    )
    return _panel(chart, title)


def _norms(records: Sequence[Record]) -> alt.LayerChart:
    base = alt.Chart(data(records)).encode(x=_layer_axis(), color=_colour(records, "place"))
    band = base.mark_rule(opacity=0.45, strokeWidth=4).encode(y=alt.Y("low:Q", title="effective gain"), y2="high:Q")
    middle = base.mark_point(filled=True, size=18).encode(y=alt.Y("value:Q", title="effective gain"))
    rule = alt.Chart(data([{"y": 1.0}])).mark_rule(color=FAINT_INK, strokeDash=[4, 3], opacity=0.5).encode(y="y:Q")
    return _panel(alt.layer(rule, band, middle), "Norms: 5 to 95 %")
