"""The regularisation path: how the cross-validated score depends on alpha, and which alpha was chosen."""

from collections import Counter
from collections.abc import Sequence

import altair as alt

from src.report.figures.theme import CATEGORIES, VERMILION, Record, finite, ordered, panels, themed

# no score further below its pair's best than this is worth the room
_DEEPEST = 0.5
# and differences much smaller than this are not worth a zoom
_SHALLOWEST = 1e-3
# diameter of a mark, width that a ring adds, in pixels
_MARK, _RING, _MOST_RINGS = 9, 4, 5


def alpha_path(
    records: Sequence[Record],
    title: str = "Cross-validated score along the regularisation path",
    *,
    label: str = "CV R²",
    unit: str | None = "tr(X'X)/d_model",
) -> alt.FacetChart:
    """What each alpha costs against its pair's best: a panel per source layer, a line per leap, chosen alphas marked.

    Scores of pairs lie far apart and those of neighbouring alphas close together, so differences to the best are drawn,
    and the axis is zoomed to the neighbourhood of the best; the subtitle says so.

    Args:
        records: one per pair and alpha: `layer`, `leap`, `alpha` (> 0), `score`, if known `folds` (the scores of its
            folds, for every alpha in the same order), and `chosen` (is it the pair's alpha?). A chosen alpha at either
            end of its pair's grid is marked as such: a better one may lie beyond.
        title: what the figure shows.
        label: the name of the score.
        unit: what alphas are counted in; None = as scikit-learn counts them.
    """
    layers, leaps = ordered(records, "layer"), ordered(records, "leap")
    alphas = ordered(records, "alpha")
    ends: dict[tuple[int, int], tuple[float, float]] = {}
    for record in records:
        pair, alpha = (record["layer"], record["leap"]), record["alpha"]
        lowest, highest = ends.get(pair, (alpha, alpha))
        ends[pair] = min(lowest, alpha), max(highest, alpha)
    # a grid of one alpha has no ends to look beyond
    ends = {pair: limits for pair, limits in ends.items() if limits[0] < limits[1]}
    hues = [hue for hue in CATEGORIES if hue != VERMILION]
    # many leaps are an order, not names: shades instead of hues
    few = len(leaps) <= len(hues)
    choices = ["chosen alpha", "chosen alpha, at an end of the grid"]
    rows = [
        {
            "layer": record["layer"],
            "leap": record["leap"],
            "target": record["layer"] + record["leap"],
            "alpha": record["alpha"],
            "score": record["score"],
            **difference,
            "choice": choices[record["alpha"] in ends.get((record["layer"], record["leap"]), ())]
            if record.get("chosen")
            else None,
        }
        for record, difference in zip(records, _differences(records), strict=True)
    ]
    # leaps that choose the same alpha show as rings: the larger mark is drawn first
    rows.sort(key=lambda row: row["leap"])
    covering = Counter()
    for row in reversed(rows):
        place = row["layer"], row["alpha"]
        row["size"] = (_MARK + _RING * min(covering[place], _MOST_RINGS)) ** 2
        covering[place] += row["choice"] is not None
    domain = _zoom(rows)
    subtitle = "difference to each pair's best alpha"
    if any(difference < domain[0] for difference in finite(rows, "difference")):
        subtitle += "; a zoom: curves go on below the panels"
    scale = alt.Scale(domain=leaps, range=hues[: len(leaps)]) if few else alt.Scale(scheme="viridis")
    legend = alt.Legend(
        orient="top", titleOrient="left", symbolType="stroke", symbolOpacity=1, symbolStrokeWidth=2.5, columns=13
    )
    colour = alt.Color("leap:O", title="leap k", sort=leaps, scale=scale, legend=legend)
    base = alt.Chart().encode(
        x=alt.X(
            "alpha:Q",
            title=f"alpha, in units of {unit}" if unit else "alpha (scikit-learn's)",
            scale=alt.Scale(type="log", domain=[min(alphas), max(alphas)], nice=False),
            axis=alt.Axis(format="~e", tickCount=5, labelFlush=False, labelOverlap="greedy"),
        ),
        color=colour,
    )
    axis_title = f"{label}, less that of the best alpha"
    y = alt.Y("difference:Q", title=axis_title, scale=alt.Scale(domain=domain, zero=False, nice=False))
    tooltip = [
        alt.Tooltip("layer:Q", title="source layer L"),
        alt.Tooltip("leap:Q", title="leap k"),
        alt.Tooltip("target:Q", title="target layer L + k"),
        alt.Tooltip("alpha:Q", format=".3~e"),
        alt.Tooltip("score:Q", title=label, format=".5f"),
        alt.Tooltip("difference:Q", title="less the best", format=".3~g"),
        alt.Tooltip("low:Q", title="lowest of the folds", format=".3~g"),
        alt.Tooltip("high:Q", title="highest of the folds", format=".3~g"),
    ]
    size = alt.Size("size:Q", scale=None, legend=None)
    chosen = base.mark_point(filled=True, opacity=1, stroke="white", strokeWidth=0.7).encode(
        y=y,
        size=size,
        shape=alt.Shape(
            "choice:N",
            title=None,
            scale=alt.Scale(domain=choices, range=["circle", "triangle-up"]),
            legend=alt.Legend(orient="top"),
        ),
        tooltip=tooltip,
    )
    layered = [
        base.mark_area(opacity=0.14, clip=True).encode(y=alt.Y("low:Q", title=axis_title), y2="high:Q"),
        base.mark_line(strokeWidth=1.8, clip=True).encode(y=y),
        # a wide unseen point under every grid value, so that the tooltip is easy to hit
        base.mark_point(opacity=0, size=120, filled=True, clip=True).encode(y=y, tooltip=tooltip),
        chosen.encode(color=colour).transform_filter(f"datum.choice === '{choices[0]}'"),
        chosen.encode(color=alt.value(VERMILION)).transform_filter(f"datum.choice === '{choices[1]}'"),
    ]
    chart = panels(
        layered, rows, "layer:O", "source layer L", 3, 260 if len(layers) > 1 else 420, 200 if len(layers) > 1 else 260
    )
    return themed(chart, title, subtitle)


def _differences(records: Sequence[Record]) -> list[dict[str, float | None]]:
    """Of each record: its score less the best of its pair, and the least and greatest of that over the folds."""
    best: dict[tuple[int, int], Record] = {}
    for record in records:
        pair = record["layer"], record["leap"]
        if finite([record], "score") and (pair not in best or record["score"] > best[pair]["score"]):
            best[pair] = record
    differences = []
    for record in records:
        reference = best.get((record["layer"], record["leap"]), record)
        # fold against the same fold: that one fold is harder than another says nothing about alpha
        folds = [
            score - best_score
            for score, best_score in zip(record.get("folds", ()), reference.get("folds", ()), strict=True)
        ]
        differences.append(
            {
                "difference": record["score"] - reference["score"],
                "low": min(folds, default=None),
                "high": max(folds, default=None),
            }
        )
    return differences


def _zoom(rows: Sequence[Record]) -> list[float]:
    """The axis: twice as deep as the deepest neighbour in the grid of any pair's best alpha, or all if that is less."""
    paths: dict[tuple[int, int], list[Record]] = {}
    for row in sorted(rows, key=lambda row: row["alpha"]):
        if finite([row], "difference"):
            paths.setdefault((row["layer"], row["leap"]), []).append(row)
    drops = []
    for path in paths.values():
        best = max(range(len(path)), key=lambda place: path[place]["difference"])
        drops += [-row["difference"] for row in path[max(best - 1, 0) : best + 2]]
    depth = min(max(2 * max(drops, default=0.0), _SHALLOWEST), _DEEPEST)
    extent = finite(rows, "difference", "low", "high") or [0.0]
    low, high = max(min(extent), -depth), min(max(extent), depth)
    margin = 0.06 * (high - low) or 0.01
    return [low - margin, high + margin]
