"""The choice of a rank: how the cross-validated score depends on it."""

from collections.abc import Sequence

import altair as alt

from src.report.figures.theme import CATEGORIES, Record, bounded, finite, ordered, panels, themed
from src.report.figures.transport import LOWEST_SCORE

_FIELDS = ("layer", "leap", "rank", "score", "chosen")


def rank_path(
    records: Sequence[Record], title: str = "Cross-validated score of operators of every rank", *, label: str = "CV R²"
) -> alt.FacetChart:
    """The score against the rank, a panel per source layer, a line per leap, the chosen rank marked.

    Args:
        records: one per pair and rank: `layer`, `leap`, `rank`, `score` and `chosen` (is it the pair's rank?).
        title: what the figure shows.
        label: the name of the score.
    """
    layers, leaps = ordered(records, "layer"), ordered(records, "leap")
    rows = [{**{key: record[key] for key in _FIELDS}, "target": record["layer"] + record["leap"]} for record in records]
    few = len(leaps) <= len(CATEGORIES)
    scale = alt.Scale(domain=leaps, range=CATEGORIES[: len(leaps)]) if few else alt.Scale(scheme="viridis")
    low, high = bounded(finite(records, "score"), LOWEST_SCORE)
    domain = [low, high + 0.04 * (high - low)]  # room for the dots
    y = alt.Y("score:Q", title=label, scale=alt.Scale(domain=domain, clamp=True))
    base = alt.Chart().encode(
        x=alt.X("rank:Q", title="rank", scale=alt.Scale(type="log", base=2, nice=False), axis=alt.Axis(format="d")),
        y=y,
        color=alt.Color("leap:O", title="leap k", sort=leaps, scale=scale, legend=alt.Legend(orient="top")),
    )
    tooltip = [
        alt.Tooltip("layer:Q", title="source layer L"),
        alt.Tooltip("target:Q", title="target layer L + k"),
        alt.Tooltip("rank:Q"),
        alt.Tooltip("score:Q", title=label, format=".4f"),
    ]
    layered = [
        base.mark_line(strokeWidth=1.8),
        # wide unseen points, so that the tooltip is easy to hit
        base.mark_point(opacity=0, size=90, filled=True).encode(tooltip=tooltip),
        base.mark_point(opacity=1, size=70, filled=True, stroke="white", strokeWidth=0.7)
        .encode(tooltip=tooltip)
        .transform_filter("datum.chosen"),
    ]
    chart = panels(layered, rows, "layer:O", "source layer L", 3, 260 if len(layers) > 1 else 420, 200)
    return themed(chart, title, "dots: the chosen ranks")
