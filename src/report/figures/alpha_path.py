"""The regularisation path: how the cross-validated score depends on alpha, and which alpha was chosen."""

from collections.abc import Sequence

import altair as alt

from src.report.figures.theme import CATEGORIES, VERMILION, Record, data, finite, ordered, short_number, themed
from src.report.figures.transport import panel_header

# how far the axis reaches below the worst pair's best score
PATH_DEPTH = 0.5


def alpha_path(
    records: Sequence[Record],
    title: str = "Cross-validated score along the regularisation path",
    *,
    label: str = "CV R²",
    subtitle: str | None = None,
) -> alt.FacetChart:
    """The CV score against alpha, one panel per source layer, one line per leap, the chosen alpha marked.

    Args:
        records: one per pair and alpha: `layer`, `leap`, `alpha` (> 0; relative or absolute), `score`, if known `low`
            and `high` (over the folds), and `chosen` (is it the pair's alpha?). A chosen alpha at either end of its
            pair's grid is marked as such: a better one may lie beyond.
        title: what the figure shows.
        label: the name of the score.
        subtitle: a second, fainter line.
    """
    layers, leaps = ordered(records, "layer"), ordered(records, "leap")
    alphas, domain = ordered(records, "alpha"), _path_domain(records)
    ends: dict[tuple[int, int], tuple[float, float]] = {}
    for record in records:
        pair, alpha = (record["layer"], record["leap"]), record["alpha"]
        lowest, highest = ends.get(pair, (alpha, alpha))
        ends[pair] = min(lowest, alpha), max(highest, alpha)
    # a grid of one alpha has no ends to look beyond
    ends = {pair: limits for pair, limits in ends.items() if limits[0] < limits[1]}
    choices = ["chosen alpha", "chosen alpha, at an end of the grid"]
    rows = [
        {
            "layer": record["layer"],
            "leap": record["leap"],
            "target": record["layer"] + record["leap"],
            "alpha": record["alpha"],
            "score": record["score"],
            "low": record.get("low"),
            "high": record.get("high"),
            "choice": choices[record["alpha"] in ends.get((record["layer"], record["leap"]), ())]
            if record.get("chosen")
            else None,
        }
        for record in records
    ]
    hues = [hue for hue in CATEGORIES if hue != VERMILION]
    # many leaps are an order, not names: shades instead of hues
    if any(score < domain[0] for score in finite(records, "score")):
        lowest = f"scores below {short_number(domain[0], 2)} are drawn there"
        subtitle = f"{subtitle}; {lowest}" if subtitle else lowest
    few = len(leaps) <= len(hues)
    scale = alt.Scale(domain=leaps, range=hues[: len(leaps)]) if few else alt.Scale(scheme="viridis")
    legend = alt.Legend(
        orient="top", titleOrient="left", symbolType="stroke", symbolOpacity=1, symbolStrokeWidth=2.5, columns=13
    )
    colour = alt.Color("leap:O", title="leap k", sort=leaps, scale=scale, legend=legend)
    base = alt.Chart().encode(
        x=alt.X(
            "alpha:Q",
            title="alpha",
            scale=alt.Scale(type="log", domain=[min(alphas), max(alphas)], nice=False),
            axis=alt.Axis(format="~e", tickCount=5, labelFlush=False, labelOverlap="greedy"),
        ),
        color=colour,
    )
    y = alt.Y("score:Q", title=label, scale=alt.Scale(domain=domain, clamp=True, zero=False))
    tooltip = [
        alt.Tooltip("layer:Q", title="source layer L"),
        alt.Tooltip("leap:Q", title="leap k"),
        alt.Tooltip("target:Q", title="target layer L + k"),
        alt.Tooltip("alpha:Q", format=".3~e"),
        alt.Tooltip("score:Q", title=label, format=".5f"),
        alt.Tooltip("low:Q", title="low", format=".5f"),
        alt.Tooltip("high:Q", title="high", format=".5f"),
    ]
    chosen = base.mark_point(filled=True, size=90, opacity=1, stroke="white", strokeWidth=1).encode(
        y=y,
        shape=alt.Shape(
            "choice:N",
            title=None,
            scale=alt.Scale(domain=choices, range=["circle", "triangle-up"]),
            legend=alt.Legend(orient="top"),
        ),
        tooltip=tooltip,
    )
    layered = [
        base.mark_area(opacity=0.14).encode(y=alt.Y("low:Q", title=label), y2="high:Q"),
        base.mark_line(strokeWidth=1.8).encode(y=y),
        # a wide unseen point under every grid value, so that the tooltip is easy to hit
        base.mark_point(opacity=0, size=120, filled=True).encode(y=y, tooltip=tooltip),
        chosen.encode(color=colour).transform_filter(f"datum.choice === '{choices[0]}'"),
        chosen.encode(color=alt.value(VERMILION)).transform_filter(f"datum.choice === '{choices[1]}'"),
    ]
    chart = (
        alt.layer(*layered, data=data(rows))
        .properties(width=260 if len(layers) > 1 else 420, height=200 if len(layers) > 1 else 260)
        .facet(
            facet=alt.Facet("layer:O", sort=layers, header=panel_header("source layer L")),
            columns=min(3, len(layers)),
            spacing=22,
        )
    )
    return themed(chart, title, subtitle)


def _path_domain(records: Sequence[Record]) -> list[float]:
    """Down to `PATH_DEPTH` below the worst pair's best score: too small an alpha can be arbitrarily bad."""
    best: dict[tuple[int, int], float] = {}
    for record in records:
        for score in finite([record], "score"):
            pair = record["layer"], record["leap"]
            best[pair] = max(best.get(pair, score), score)
    values = finite(records, "score", "low", "high") or [0.0, 1.0]
    low = max(min(values), min(best.values(), default=0.0) - PATH_DEPTH)
    margin = 0.04 * (max(values) - low) or 0.01
    return [low - margin, max(values) + margin]
