"""Figures of the scaling study: R2 and alpha against the number of training tokens.

A *record* is a mapping with `layer` (L), `leap` (k) and `tokens`: one point of the curve of one pair.
"""

import math
from collections.abc import Sequence

import altair as alt

from src.report.figures.theme import (
    BLUE,
    CATEGORIES,
    GREY,
    ORANGE,
    SKY,
    Record,
    data,
    finite,
    ordered,
    panels,
    themed,
)
from src.report.figures.transport import LOWEST_SCORE

MOST_PANELS = 25
# the least range of an axis of R2: less is noise that would look like a rise
_LEAST_RANGE = 0.02
_MARGIN = 0.05


def scaling_curves(
    records: Sequence[Record],
    title: str = "R² of transport operators against training tokens",
    *,
    label: str = "R² on test documents",
) -> alt.FacetChart:
    """One line per pair: a panel per source layer, a colour per leap.

    Args:
        records: with `r2` (mean over subsets), `lowest` and `highest` (of the subsets: a band), `low` and `high` (an
            interval, drawn at each pair's last point).
        title: what the figure shows.
        label: the name of the score.
    """
    last = {(record["layer"], record["leap"]): record["tokens"] for record in sorted(records, key=_by_tokens)}
    rows = [{**record, "is_last": last[record["layer"], record["leap"]] == record["tokens"]} for record in records]
    domain = _zoomed(finite(rows, "r2", "lowest", "highest"))
    base = alt.Chart().encode(x=_tokens_axis(rows), color=_leap_colour(rows))
    scale = alt.Scale(domain=domain, zero=False, nice=False)
    y = alt.Y("r2:Q", title=label, scale=scale)
    tooltip = [
        *_pair_tooltip(),
        alt.Tooltip("r2:Q", title=label, format=".4f"),
        alt.Tooltip("lowest:Q", title="lowest subset", format=".4f"),
        alt.Tooltip("highest:Q", title="highest subset", format=".4f"),
        alt.Tooltip("low:Q", title="95 % interval, low", format=".4f"),
        alt.Tooltip("high:Q", title="95 % interval, high", format=".4f"),
    ]
    at_end = base.mark_rule(strokeWidth=1.5, clip=True).transform_filter("datum.is_last && isValid(datum.low)")
    layered = [
        base.mark_area(opacity=0.2, clip=True).encode(y=alt.Y("lowest:Q", title=label, scale=scale), y2="highest:Q"),
        base.mark_line(strokeWidth=1.8, clip=True).encode(y=y),
        at_end.encode(y=alt.Y("low:Q", title=label, scale=scale), y2="high:Q"),
        base.mark_point(filled=True, opacity=1, size=26, clip=True).encode(y=y, tooltip=tooltip),
    ]
    subtitle = "mean and range of the random subsets"
    if any(score < domain[0] for score in finite(rows, "lowest")):
        subtitle += f"; cut at \N{MINUS SIGN}{-domain[0]:g}"
    return _by_layer(layered, rows, title, subtitle)


def scaling_alpha(
    records: Sequence[Record], title: str = "Chosen alpha against training tokens", *, label: str = "alpha"
) -> alt.FacetChart:
    """The alpha of each pair: a panel per source layer, a colour per leap, both axes logarithmic.

    Args:
        records: with `alpha` (median over subsets), `lowest` and `highest` (of the subsets), all above 0.
        title: what the figure shows.
        label: the name of the axis.
    """
    base = alt.Chart().encode(x=_tokens_axis(records), color=_leap_colour(records))
    alphas = finite(records, "lowest", "highest")
    lowest, highest = math.floor(math.log10(min(alphas))), math.ceil(math.log10(max(alphas)))
    scale = alt.Scale(type="log", domain=[10.0**lowest, 10.0 ** max(highest, lowest + 1)], nice=False)
    axis = alt.Axis(format="~e", values=[10.0**power for power in range(lowest, highest + 2)])
    y = alt.Y("alpha:Q", title=label, scale=scale, axis=axis)
    tooltip = [*_pair_tooltip(), *(alt.Tooltip(f"{name}:Q", format=".3~g") for name in ("alpha", "lowest", "highest"))]
    layered = [
        base.mark_area(opacity=0.14).encode(y=alt.Y("lowest:Q", title=label, scale=scale, axis=axis), y2="highest:Q"),
        base.mark_line(strokeWidth=1.8).encode(y=y),
        base.mark_point(filled=True, opacity=1, size=26).encode(y=y, tooltip=tooltip),
    ]
    return _by_layer(layered, records, title, "median and range of the random subsets")


def scaling_panels(
    records: Sequence[Record],
    title: str = "R² against training tokens, beside the baselines",
    *,
    label: str = "R²",
) -> alt.FacetChart:
    """A panel per pair with an axis of its own: a solid line for each fitted curve, dashed ones for baselines.

    Args:
        records: one per pair, predictor and point: `predictor` (at most four), `r2`, if known `lowest` and `highest`
            (of the subsets: a band), and `is_baseline` (False if absent).
        title: what the figure shows.
        label: the name of the score.
    """
    predictors = ordered(records, "predictor")
    colours = [BLUE, SKY, ORANGE, GREY][: len(predictors)]
    baselines = {record["predictor"] for record in records if record.get("is_baseline")}
    dashes = [[5, 3] if name in baselines else [1, 0] for name in predictors]
    rows = [{**record, "pair": f"L = {record['layer']}, k = {record['leap']}"} for record in records]
    rows.sort(key=lambda row: (row["layer"], row["leap"]))
    pairs = list(dict.fromkeys(row["pair"] for row in rows))
    ends = ("r2", "lowest", "highest")
    rows = [{**row, **{f"{end}_drawn": max(row[end], LOWEST_SCORE) for end in ends if end in row}} for row in rows]
    legend = alt.Legend(orient="top", symbolType="stroke", symbolStrokeWidth=2.2, symbolSize=350, symbolOpacity=1)
    base = alt.Chart().encode(
        x=_tokens_axis(rows),
        color=alt.Color(
            "predictor:N", title=None, sort=predictors, scale=alt.Scale(domain=predictors, range=colours), legend=legend
        ),
    )
    scale = alt.Scale(zero=False)
    y = alt.Y("r2_drawn:Q", title=label, scale=scale, axis=alt.Axis(tickCount=5))
    dash = alt.StrokeDash(
        "predictor:N", title=None, sort=predictors, scale=alt.Scale(domain=predictors, range=dashes), legend=legend
    )
    tooltip = [
        *_pair_tooltip(),
        alt.Tooltip("predictor:N"),
        *(alt.Tooltip(f"{name}:Q", format=".4f") for name in ("r2", "lowest", "highest")),
    ]
    layered = [
        base.mark_area(opacity=0.18)
        .encode(y=alt.Y("lowest_drawn:Q", title=label, scale=scale), y2="highest_drawn:Q")
        .transform_filter("isValid(datum.lowest_drawn)"),
        base.mark_line(strokeWidth=1.7).encode(y=y, strokeDash=dash),
        base.mark_point(opacity=0, size=90, filled=True).encode(y=y, tooltip=tooltip),
    ]
    single = len(pairs) == 1
    chart = (
        alt.layer(*layered, data=data(rows))
        .properties(width=420 if single else 200, height=260 if single else 130)
        .facet(
            facet=alt.Facet("pair:N", sort=pairs, title=None, header=alt.Header(title=None)),
            columns=min(4, len(pairs)),
            spacing=18,
        )
        .resolve_scale(y="independent")
        .resolve_axis(x="independent")  # a shared one would also be drawn where the last row has no panel
    )
    is_cut = any(value < LOWEST_SCORE for value in finite(records, "r2", "lowest"))
    return themed(chart, title, f"cut at \N{MINUS SIGN}{-LOWEST_SCORE:g}" if is_cut else None)


def _by_tokens(record: Record) -> float:
    return record["tokens"]


def _zoomed(scores: Sequence[float]) -> list[float]:
    """From the lowest score (cut at LOWEST_SCORE) to the highest, with a margin."""
    low, high = max(min(scores), LOWEST_SCORE), max(*scores, LOWEST_SCORE + _LEAST_RANGE)
    low = min(low, high - _LEAST_RANGE)
    margin = _MARGIN * (high - low)
    return [max(low - margin, LOWEST_SCORE), high + margin]


def _tokens_axis(records: Sequence[Record]) -> alt.X:
    tokens = finite(records, "tokens")
    return alt.X(
        "tokens:Q",
        title="training tokens",
        scale=alt.Scale(type="log", domain=[min(tokens) / 1.12, max(tokens) * 1.12], nice=False),
        axis=alt.Axis(format="~s", tickCount=4, labelOverlap="greedy", grid=False),
    )


def _leap_colour(records: Sequence[Record]) -> alt.Color:
    leaps = ordered(records, "leap")
    # many leaps are an order, not names: shades instead of hues
    few = len(leaps) <= len(CATEGORIES)
    scale = alt.Scale(domain=leaps, range=CATEGORIES[: len(leaps)]) if few else alt.Scale(scheme="viridis")
    legend = alt.Legend(
        orient="top", titleOrient="left", symbolType="stroke", symbolOpacity=1, symbolStrokeWidth=2.5, columns=13
    )
    return alt.Color("leap:O", title="leap k", sort=leaps, scale=scale, legend=legend)


def _pair_tooltip() -> list[alt.Tooltip]:
    return [
        alt.Tooltip("layer:Q", title="source layer L"),
        alt.Tooltip("leap:Q", title="leap k"),
        alt.Tooltip("tokens:Q", title="training tokens", format=",.0f"),
    ]


def _by_layer(layered: Sequence[alt.Chart], rows: Sequence[Record], title: str, subtitle: str) -> alt.FacetChart:
    layers = ordered(rows, "layer")
    single = len(layers) == 1
    chart = panels(layered, rows, "layer:O", "source layer L", 3, 420 if single else 260, 260 if single else 200)
    return themed(chart, title, subtitle)
