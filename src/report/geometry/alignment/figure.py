"""The figure of an alignment: scores beside nulls, retrieval, learning curve, cosines, spectra, ordered sets."""

from collections.abc import Sequence
from typing import Any

import altair as alt
import numpy as np

from src.report.artifact_report import NamedChart
from src.report.figures.theme import BLUE, CATEGORIES, FAINT_INK, GREY, INK, SHADE, data, themed
from src.report.geometry.alignment.records import (
    ONE_BY_ONE,
    Aligned,
    OrderedResult,
    curve_records,
    null_range,
    spectrum_records,
)
from src.report.token_text import visible

_WIDTH, _HEIGHT = 250, 200
_BINS = 30
_COMPONENTS = 200
_MOST_SETS, _MOST_WORDS = 3, 16


def alignment_figures(found: Aligned) -> list[NamedChart]:
    """One figure of all panels."""
    panels = [
        _score_panel(found, "cosine", "mean cosine"),
        _score_panel(found, "explained", "R2"),
        _retrieval_panel(found),
        *([_curve_panel(found)] if found.alignment.curve else []),
        _histogram_panel(found),
        _spectrum_panel(found),
    ]
    maps = [_ordered_panel(each) for each in _shown_sets(found.ordered)]
    rows: list[Any] = [
        alt.hconcat(*panels[start : start + 3], spacing=34).resolve_scale(color="independent")
        for start in range(0, len(panels), 3)
    ]
    if maps:
        rows.append(alt.hconcat(*maps, spacing=34).resolve_scale(color="shared"))
    stacked = alt.vconcat(*rows, spacing=30).resolve_scale(color="independent")
    title = f"{found.names[0]} aligned with {found.names[1]}"
    counts = found.alignment.counts
    subtitle = f"{found.space}: {counts['train']:,} anchors, {counts['test']:,} held-out tokens"
    caption = (
        "All on held-out tokens. Top: mean cosine (the anchors' mean taken off) and R2 of each map with 95 % "
        "intervals, in "
        "grey bands what maps fitted on shuffled pairs reach; share of tokens whose own token is found first or "
        "among ten "
        f"(CSLS; dashed: chance). Then: scores over the number of anchors; cosines of single tokens under "
        f"{found.alignment.best}, and of each prediction with another token's row; variance of the target by "
        "component, "
        "and what is left of it. Heat maps: cosines of the predictions of ordered sets (rows) with true rows "
        "(columns), "
        "both less the set's mean: a blue diagonal says that words land at their places, a blue band along it that "
        "they "
        "land beside them."
    )
    return [NamedChart("alignment", title, themed(stacked, title, subtitle), caption)]


def _names(found: Aligned) -> list[str]:
    return [name for name in found.alignment.maps if name != "mean"]


def _score_panel(found: Aligned, score: str, label: str) -> Any:
    records = []
    for name in _names(found):
        result = found.alignment.maps[name]
        interval = result.intervals[score]
        _, low, high = null_range(result.null.get(score))
        kind = "fitted" if result.fitted else "baseline"
        # far below 0 all are equally useless: they shall not flatten the rest
        ends = {"value": interval.value, "low": interval.low, "high": interval.high}
        clipped = {key: max(value, -1.0) for key, value in ends.items()}
        null = {} if low is None or high is None else {"null_low": max(low, -1.0), "null_high": max(high, -1.0)}
        records.append({"map": name, "kind": kind, **clipped, **null})
    y = alt.Y("map:N", sort=None, title=None)
    base = alt.Chart(data(records)).encode(y=y)
    colour = alt.Color(
        "kind:N",
        scale=alt.Scale(domain=["fitted", "baseline"], range=[BLUE, GREY]),
        legend=None,
    )
    x = alt.X("low:Q", title=label, scale=alt.Scale(zero=True))
    tooltip = [alt.Tooltip("map:N"), *(alt.Tooltip(f"{key}:Q", format=".4f") for key in ("value", "low", "high"))]
    layers = [
        base.mark_bar(color=SHADE, height=18, minBandSize=3)
        .transform_filter("isValid(datum.null_low)")
        .encode(x=alt.X("null_low:Q", title=label), x2="null_high:Q"),
        base.mark_rule(strokeWidth=2).encode(x=x, x2="high:Q", color=colour),
        base.mark_point(filled=True, size=60, opacity=1).encode(
            x=alt.X("value:Q", title=label), color=colour, tooltip=tooltip
        ),
        _zero(),
    ]
    return alt.layer(*layers).properties(width=_WIDTH, height=_HEIGHT, title=f"{label[0].upper()}{label[1:]}")


def _zero() -> alt.Chart:
    return alt.Chart(data([{"zero": 0.0}])).mark_rule(color=FAINT_INK, strokeWidth=0.8).encode(x="zero:Q")


def _retrieval_panel(found: Aligned) -> Any:
    records = [
        {"map": name, "rank": f"P@{rank}", **vars(found.alignment.maps[name].intervals[f"csls_p_at_{rank}"])}
        for name in _names(found)
        for rank in (1, 10)
    ]
    chances = [{"rank": f"P@{rank}", "value": found.alignment.chance(rank)} for rank in (1, 10)]
    colour = alt.Color(
        "rank:N",
        scale=alt.Scale(domain=["P@1", "P@10"], range=[CATEGORIES[0], CATEGORIES[2]]),
        legend=alt.Legend(title=None, orient="bottom"),
    )
    base = alt.Chart(data(records)).encode(
        y=alt.Y("map:N", sort=None, title=None), yOffset=alt.YOffset("rank:N", sort=["P@1", "P@10"])
    )
    x = alt.X("value:Q", title="own token found (CSLS)", scale=alt.Scale(domain=[0, 1]), axis=alt.Axis(format="%"))
    layers = [
        base.mark_bar().encode(x=x, color=colour, tooltip=["map:N", "rank:N", alt.Tooltip("value:Q", format=".3f")]),
        base.mark_rule(color=INK).encode(x="low:Q", x2="high:Q"),
        alt.Chart(data(chances)).mark_rule(strokeDash=[4, 3], strokeWidth=1.3).encode(x="value:Q", color=colour),
    ]
    return alt.layer(*layers).properties(width=_WIDTH, height=_HEIGHT, title="Retrieval")


def _curve_panel(found: Aligned) -> Any:
    records = [record for record in curve_records(found.alignment) if record["score"] == "cosine"]
    methods = list(dict.fromkeys(record["map"] for record in records))
    base = alt.Chart(data(records)).encode(
        x=alt.X(
            "anchors:Q", title="anchors", scale=alt.Scale(type="log", nice=False, padding=8), axis=_log_axis(records)
        ),
        color=alt.Color(
            "map:N",
            sort=methods,
            scale=alt.Scale(domain=methods, range=CATEGORIES[: len(methods)]),
            legend=alt.Legend(title=None, orient="bottom"),
        ),
    )
    y = alt.Y("value:Q", title="mean cosine")
    layers = [
        base.mark_area(opacity=0.14).encode(y=alt.Y("low:Q", title="mean cosine"), y2="high:Q"),
        base.mark_line(strokeWidth=1.7).encode(y=y),
        base.mark_point(filled=True, size=26).encode(
            y=y, tooltip=["map:N", "anchors:Q", alt.Tooltip("value:Q", format=".4f")]
        ),
    ]
    return alt.layer(*layers).properties(width=_WIDTH, height=_HEIGHT, title="Learning curve")


def _log_axis(records: Sequence[dict[str, Any]]) -> alt.Axis:
    return alt.Axis(values=sorted({record["anchors"] for record in records}), labelOverlap="greedy", format="~s")


def _histogram_panel(found: Aligned) -> alt.Chart:
    own = found.best.scores.cosine
    edges = np.linspace(-1, 1, _BINS + 1)
    sides = {"own row": own, "another token's row": found.best.mismatched}
    records = []
    for name, values in sides.items():
        counts = np.histogram(np.clip(values, -1, 1), edges)[0] / max(1, len(values))
        records += [
            {"with": name, "from": low, "share": share}
            for low, share in zip(edges.tolist(), [*counts.tolist(), 0.0], strict=True)
        ]
    return (
        alt.Chart(data(records))
        .mark_area(opacity=0.45, interpolate="step-after", line=True)
        .encode(
            x=alt.X("from:Q", title="cosine of single tokens", scale=alt.Scale(domain=[-1, 1], nice=False)),
            y=alt.Y("share:Q", title="share of tokens", stack=None),
            color=alt.Color(
                "with:N",
                sort=list(sides),
                scale=alt.Scale(domain=list(sides), range=[BLUE, GREY]),
                legend=alt.Legend(title=None, orient="bottom"),
            ),
            tooltip=["with:N", alt.Tooltip("from:Q", format=".2f"), alt.Tooltip("share:Q", format=".3f")],
        )
        .properties(width=_WIDTH, height=_HEIGHT, title=f"Tokens under {found.alignment.best}")
    )


def _spectrum_panel(found: Aligned) -> alt.Chart:
    shown = ["target", *(name for name in ("scaled", "orthogonal", "ridge", "cca") if name in found.alignment.maps)]
    # a rotation leaves what the scaled one leaves, or more
    shown = [name for name in shown if name != "orthogonal" or "scaled" not in shown]
    records = [
        record
        for record in spectrum_records(found)
        if record["of"] in shown and record["component"] <= _COMPONENTS and record["share"] > 1e-8
    ]
    names = {name: "target itself" if name == "target" else f"left by {name}" for name in shown}
    records = [{**record, "of": names[record["of"]]} for record in records]
    return (
        alt.Chart(data(records))
        .mark_line(strokeWidth=1.7)
        .encode(
            x=alt.X("component:Q", title="component", scale=alt.Scale(nice=False)),
            y=alt.Y(
                "share:Q",
                title="share of the target's variance",
                scale=alt.Scale(type="log"),
                axis=alt.Axis(format="~e", tickCount=5),
            ),
            color=alt.Color(
                "of:N",
                sort=list(names.values()),
                scale=alt.Scale(domain=list(names.values()), range=[INK, *CATEGORIES][: len(names)]),
                legend=alt.Legend(title=None, orient="bottom", columns=2),
            ),
            tooltip=["of:N", "component:Q", alt.Tooltip("share:Q", format=".2e")],
        )
        .properties(width=_WIDTH, height=_HEIGHT, title="Residual spectrum")
    )


def _shown_sets(ordered: Sequence[OrderedResult]) -> list[OrderedResult]:
    """The first few sets that fit a panel, no words twice."""
    shown: list[OrderedResult] = []
    for each in [each for each in ordered if each.kept_out != ONE_BY_ONE]:
        tokens = each.agreement.tokens
        if len(tokens) <= _MOST_WORDS and tokens not in [other.agreement.tokens for other in shown]:
            shown.append(each)
    preferred = [each for each in shown if each.agreement.name in ("digits", "weekdays", "months")]
    return (preferred + [each for each in shown if each not in preferred])[:_MOST_SETS]


def _ordered_panel(each: OrderedResult) -> alt.Chart:
    it = each.agreement
    words = [visible(word) for word in it.tokens]
    records = [
        {"predicted": words[i], "true": words[j], "value": float(it.within[i, j])}
        for i in range(len(words))
        for j in range(len(words))
    ]
    plain = {"domain": False, "ticks": False, "labelOverlap": False, "labelLimit": 90}
    step = _WIDTH // max(len(words), 7)
    return (
        alt.Chart(data(records))
        .mark_rect(stroke="white", strokeWidth=1)
        .encode(
            x=alt.X("true:O", sort=None, title="true row", axis=alt.Axis(labelAngle=-45, **plain)),
            y=alt.Y("predicted:O", sort=None, title="prediction", axis=alt.Axis(**plain)),
            color=alt.Color(
                "value:Q",
                scale=alt.Scale(scheme="redblue", domain=[-1, 1]),
                legend=alt.Legend(title="cosine", gradientLength=120),
            ),
            tooltip=["predicted:N", "true:N", alt.Tooltip("value:Q", format=".3f")],
        )
        .properties(
            width=alt.Step(step),
            height=alt.Step(step),
            title=f"{it.name.capitalize()}: {it.at_home} of {len(words)} at home",
        )
    )
