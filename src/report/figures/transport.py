"""Figures of transport operators: how well layer L + k is predicted from layer L, over all pairs.

A *record* is a mapping with at least `layer` (L) and `leap` (k), one per pair, or per pair and something else.
"""

from collections.abc import Sequence

import altair as alt

from src.report.figures.theme import (
    BLUE,
    CATEGORIES,
    FAINT_INK,
    GRID,
    INK,
    Record,
    bounded,
    finite,
    ordered,
    panels,
    themed,
)

# bars and whiskers below this are cut: identity can score -20 where a stream changes its scale
LOWEST_SCORE = -1.0
# of a deep model not every leap gets a panel
_MOST_PANELS = 9
QUANTILES = ("q05", "q25", "q50", "q75", "q95")
CUT = f"cut at \N{MINUS SIGN}{-LOWEST_SCORE:g}"


def baseline_bars(
    records: Sequence[Record],
    title: str = "Operators against their baselines",
    *,
    value: str = "r2",
    label: str = "R²",
    subtitle: str | None = None,
) -> alt.FacetChart:
    """The score of each predictor, side by side for each source layer, one panel per leap.

    Args:
        records: one per pair and predictor: `layer`, `leap`, `predictor` (operator, identity, ...), the field named by
            `value`, and if known `<value>_low` and `<value>_high`. Predictors keep the order of the records.
        title: what the figure shows.
        value: the field that is drawn.
        label: its name on the axis.
        subtitle: a second, fainter line.
    """
    return _grouped_bars(records, "predictor", value, label, title, subtitle)


def bos_effect(
    records: Sequence[Record],
    title: str = "What the BOS rows do to the score",
    *,
    value: str = "r2",
    label: str = "R²",
    subtitle: str | None = None,
) -> alt.FacetChart:
    """The score with and without the rows of BOS: the same records as `baseline_bars`, with `rows` for `predictor`."""
    return _grouped_bars(records, "rows", value, label, title, subtitle)


def _some_leaps(records: Sequence[Record]) -> tuple[Sequence[Record], str | None]:
    """All records while their leaps are few, else those of some leaps, short ones above all, with a note."""
    leaps = ordered(records, "leap")
    if len(leaps) <= _MOST_PANELS:
        return records, None
    last = len(leaps) - 1
    chosen = {leaps[round((last + 1) ** (place / (_MOST_PANELS - 1))) - 1] for place in range(_MOST_PANELS)}
    return [record for record in records if record["leap"] in chosen], f"{len(chosen)} of {len(leaps)} leaps"


def _grouped_bars(
    records: Sequence[Record], group: str, value: str, label: str, title: str, subtitle: str | None
) -> alt.FacetChart:
    records, note = _some_leaps(records)
    subtitle = "; ".join(each for each in (subtitle, note) if each) or None
    layers, groups = ordered(records, "layer"), ordered(records, group)
    domain = bounded(finite(records, value, f"{value}_low", f"{value}_high"), LOWEST_SCORE)
    rows = [
        {
            "layer": record["layer"],
            "leap": record["leap"],
            "target": record["layer"] + record["leap"],
            "group": record[group],
            "score": record[value],
            "low": record.get(f"{value}_low"),
            "high": record.get(f"{value}_high"),
        }
        for record in records
    ]
    bars = len(layers) * len(groups)
    bar_width = 26 if bars <= 8 else 16 if bars <= 32 else 7
    base = alt.Chart().encode(
        x=alt.X("layer:O", title="source layer L", sort=layers, scale=alt.Scale(paddingInner=0.18)),
        xOffset=alt.XOffset("group:N", sort=groups, scale=alt.Scale(domain=groups)),
        tooltip=[
            alt.Tooltip("group:N", title=group),
            alt.Tooltip("layer:Q", title="source layer L"),
            alt.Tooltip("target:Q", title="target layer L + k"),
            alt.Tooltip("score:Q", title=label, format=".4f"),
            alt.Tooltip("low:Q", title="low", format=".4f"),
            alt.Tooltip("high:Q", title="high", format=".4f"),
        ],
    )
    y = alt.Y("score:Q", title=label, scale=alt.Scale(domain=domain, clamp=True), axis=_score_axis())
    layered = [
        base.mark_bar(cornerRadiusEnd=1.5).encode(
            y=y,
            color=alt.Color(
                "group:N",
                title=None,
                scale=alt.Scale(domain=groups, range=CATEGORIES[: len(groups)]),
                legend=alt.Legend(orient="top", direction="horizontal", columns=4),
            ),
        ),
        base.mark_rule(color=INK, strokeWidth=1.2).encode(y=alt.Y("low:Q", title=label), y2="high:Q"),
    ]
    if any(score < LOWEST_SCORE for score in finite(records, value)):
        if bar_width >= 16:
            layered.append(
                base.mark_text(angle=270, align="left", dx=5, fontSize=10, color=INK)
                .encode(y=alt.datum(domain[0]), text=alt.Text("score:Q", format=".3~s"))
                .transform_filter(f"datum.score < {LOWEST_SCORE}")
            )
        subtitle = f"{subtitle}; {CUT}" if subtitle else f"bars are {CUT}"
    panel_width = max(bars * bar_width + 30, 120)
    columns, height = max(1, 860 // (panel_width + 40)), 220 if bars <= 64 else 140
    chart = panels(layered, rows, "leap:O", "leap k", columns, panel_width, height)
    return themed(chart, title, subtitle)


def _score_axis() -> alt.Axis:
    """Zero stands out from the other grid lines: below it a predictor is worse than the mean."""
    zero = alt.when("datum.value === 0")
    return alt.Axis(
        tickCount=6,
        gridColor=zero.then(alt.value(FAINT_INK)).otherwise(alt.value(GRID)),  # type: ignore[arg-type]
    )


def dimension_quantiles(
    records: Sequence[Record],
    title: str = "How well single dimensions are predicted",
    *,
    label: str = "R² of a single dimension",
) -> alt.FacetChart:
    """How the R2 of single dimensions is spread: box from q25 to q75, whiskers from q05 to q95, a tick at the median.

    Args:
        records: one per pair: `layer`, `leap`, and the quantiles over dimensions `q05`, `q25`, `q50`, `q75`, `q95`.
        title: what the figure shows.
        label: its name on the axis.
    """
    records, note = _some_leaps(records)
    layers = ordered(records, "layer")
    rows = [
        {
            "layer": record["layer"],
            "leap": record["leap"],
            "target": record["layer"] + record["leap"],
            **{name: record[name] for name in QUANTILES},
        }
        for record in records
    ]
    domain = bounded(finite(records, *QUANTILES), LOWEST_SCORE)
    y = alt.Y("q05:Q", title=label, scale=alt.Scale(domain=domain, clamp=True), axis=_score_axis())
    base = alt.Chart().encode(
        x=alt.X("layer:O", title="source layer L", sort=layers),
        tooltip=[
            alt.Tooltip("layer:Q", title="source layer L"),
            alt.Tooltip("target:Q", title="target layer L + k"),
            *(alt.Tooltip(f"{name}:Q", title=f"{int(name[1:])} %", format=".4f") for name in QUANTILES),
        ],
    )
    box, gap = (22, 16) if len(layers) <= 6 else (12, 8)
    layered = [
        base.mark_rule(color=FAINT_INK).encode(y=y, y2="q95:Q"),
        base.mark_bar(color=BLUE, width=box, cornerRadius=1.5).encode(y=alt.Y("q25:Q", title=label), y2="q75:Q"),
        base.mark_tick(color="white", thickness=2, width=box).encode(y=alt.Y("q50:Q", title=label)),
    ]
    panel_width = max(len(layers) * (box + gap), 110)
    chart = panels(layered, rows, "leap:O", "leap k", max(1, 860 // (panel_width + 40)), panel_width, 200)
    cut = any(quantile < LOWEST_SCORE for quantile in finite(records, *QUANTILES))
    subtitle = "box: 25 % to 75 % of the dimensions, white line: the median, thin line: 5 % to 95 %"
    return themed(chart, title, "; ".join([subtitle, *([CUT] if cut else []), *([note] if note else [])]))
