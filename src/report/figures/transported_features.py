"""Figures of single features: from which layers they can be predicted, and how they differ."""

from collections.abc import Sequence

import altair as alt

from src.report.figures.heatmap import BELOW_ZERO
from src.report.figures.theme import (
    CATEGORIES,
    EMPTY,
    FAINT_INK,
    INK,
    Record,
    bounded,
    data,
    finite,
    ordered,
    panels,
    short_number,
    themed,
)

_LOWEST = -1.0
_MOST_PANELS = 9


def source_heatmap(records: Sequence[Record], title: str) -> alt.LayerChart:
    """A heat map of R2, features down, source layers across; the number in each cell.

    Args:
        records: one per feature and source: `feature`, `source` (layer), `rank` (its row), `r2`, `low`, `high`, `f1`,
            and `rate`, the share of tokens that the feature fires on.
        title: what the figure shows.
    """
    sources = ordered(records, "source")
    rows = [
        {
            **record,
            "name": f"#{record['feature']}",
            "text": short_number(record["r2"], 2) if record["r2"] == record["r2"] else "",
            "dark": record["r2"] > 0.6 or record["r2"] < 0,
        }
        for record in records
    ]
    features = [f"#{record['feature']}" for record in sorted(records, key=lambda record: record["rank"])]
    step = 46 if len(sources) <= 10 else 24
    base = alt.Chart(data(rows)).encode(
        x=alt.X(
            "source:O", title="source layer L", sort=sources, axis=alt.Axis(orient="top", domain=False, ticks=False)
        ),
        y=alt.Y(
            "name:N", title="feature", sort=list(dict.fromkeys(features)), axis=alt.Axis(domain=False, ticks=False)
        ),
        tooltip=[
            alt.Tooltip("name:N", title="feature"),
            alt.Tooltip("source:Q", title="source layer L"),
            alt.Tooltip("r2:Q", title="R² latent", format=".3f"),
            alt.Tooltip("low:Q", title="low", format=".3f"),
            alt.Tooltip("high:Q", title="high", format=".3f"),
            alt.Tooltip("f1:Q", title="F1 of firing", format=".3f"),
            alt.Tooltip("rate:Q", title="fires on", format=".2%"),
        ],
    )
    scale = alt.Scale(scheme="blues", domain=[0, 1], clamp=True, nice=False)
    cell = base.mark_rect(stroke="white", strokeWidth=1)
    layered = [
        cell.encode(color=alt.Color("r2:Q", title="R² latent", scale=scale, legend=alt.Legend(tickCount=5))),
        cell.encode(color=alt.value(EMPTY)).transform_filter("!isValid(datum.r2)"),
        cell.encode(color=alt.value(BELOW_ZERO)).transform_filter("isValid(datum.r2) && datum.r2 < 0"),
    ]
    if step > 30:
        ink = alt.when("datum.dark").then(alt.value("white")).otherwise(alt.value(INK))
        layered.append(base.mark_text(fontSize=10).encode(text="text:N", color=ink))
    chart = alt.layer(*layered).properties(width=alt.Step(step), height=alt.Step(17))
    below = any(score < 0 for score in finite(records, "r2"))
    return themed(chart, title, "red: below 0, worse than predicting the mean" if below else None)


def feature_quantiles(records: Sequence[Record], title: str = "R² of single features") -> alt.FacetChart:
    """How R2 is spread over features: box from q25 to q75, whiskers from q05 to q95, one panel per target layer.

    Args:
        records: one per pair and kind of R2: `layer`, `leap`, `of` (which R2), `q05`, `q25`, `q50`, `q75`, `q95`.
        title: what the figure shows.
    """
    kinds = ordered(records, "of")
    rows = [{**record, "target": record["layer"] + record["leap"]} for record in records]
    targets = ordered(rows, "target")
    shown = targets[-_MOST_PANELS:]
    rows = [row for row in rows if row["target"] in shown]
    layers = ordered(rows, "layer")
    quantiles = ("q05", "q25", "q50", "q75", "q95")
    domain = bounded(finite(rows, *quantiles), _LOWEST)
    scale = alt.Scale(domain=domain, clamp=True)
    base = alt.Chart().encode(
        x=alt.X("layer:O", title="source layer L", sort=layers, scale=alt.Scale(paddingInner=0.25)),
        xOffset=alt.XOffset("of:N", sort=kinds, scale=alt.Scale(domain=kinds)),
        tooltip=[
            alt.Tooltip("of:N", title="R² of"),
            alt.Tooltip("layer:Q", title="source layer L"),
            alt.Tooltip("target:Q", title="target layer L + k"),
            *(alt.Tooltip(f"{name}:Q", title=f"{int(name[1:])} %", format=".3f") for name in quantiles),
        ],
    )
    legend = alt.Legend(orient="top", direction="horizontal", columns=4, labelLimit=300)
    colour = alt.Color("of:N", title=None, scale=alt.Scale(domain=kinds, range=CATEGORIES[: len(kinds)]), legend=legend)
    low = alt.Y("q05:Q", title="R² of a feature", scale=scale, axis=alt.Axis(tickCount=6))
    layered = [
        base.mark_rule(color=FAINT_INK).encode(y=low, y2="q95:Q"),
        base.mark_bar(cornerRadius=1).encode(y=alt.Y("q25:Q", title="R² of a feature"), y2="q75:Q", color=colour),
        base.mark_tick(color="white", thickness=2, width=8).encode(y=alt.Y("q50:Q", title="R² of a feature")),
    ]
    width = max(len(layers) * len(kinds) * 12 + 30, 150)
    chart = panels(layered, rows, "target:O", "target layer", max(1, 900 // (width + 40)), width, 190)
    notes = ["box: 25 % to 75 % of the features, white line: the median, thin line: 5 % to 95 %"]
    notes += (
        [f"cut at \N{MINUS SIGN}{-_LOWEST:g}"] if any(value < _LOWEST for value in finite(rows, *quantiles)) else []
    )
    notes += [f"the last {len(shown)} of {len(targets)} target layers"] if len(shown) < len(targets) else []
    return themed(chart, title, "; ".join(notes))
