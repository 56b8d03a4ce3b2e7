"""How a modulator came to be: losses, strengths with what was within their reach, and its health, over the steps."""

from collections.abc import Sequence

import altair as alt

from src.report.figures.layer_lines import MANY
from src.report.figures.theme import BLUE, CATEGORIES, GREY, ORANGE, SHADE, Record, data, finite, ordered, themed

_Panel = alt.LayerChart | alt.FacetChart
_WIDTH, _HEIGHT = 300, 200
# nats within which differences of val losses are drawn to scale
_LINEAR = 0.01
_TICKS = [sign * size for sign in (-1, 1) for size in (0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10)] + [0]


def training_panels(
    losses: Sequence[Record],
    frozen: float,
    best_step: int,
    trajectory: Sequence[Record],
    health: Sequence[Record],
    title: str,
) -> alt.ConcatChart:
    """Panels of losses on val examples and on batches, of the strengths of each part, of each number of health.

    The two losses are apart: a frozen model's change is often small beside what one batch differs from another.

    Args:
        losses: `step`, `loss` (mean over one batch) and `val`, either of which may be missing.
        frozen: loss of the frozen model on the val examples.
        best_step: whose state was kept.
        trajectory: `step`, `layer`, `part` (its name, or nothing), `alpha`, `lowest`, `highest`.
        health: `step`, `name` (a panel each), `part` (a line each), `value`.
        title: what was trained.
    """
    last = max([1, *(record["step"] for record in losses)])
    x = alt.X(
        "step:Q", title="step", scale=alt.Scale(domain=[0, last]), axis=alt.Axis(tickCount=4, format="~s", grid=False)
    )
    charts: list[_Panel] = [_val_losses(losses, frozen, best_step, x), _batch_losses(losses, x)]
    highest = max(finite(trajectory, "highest"), default=1.0)
    charts += [
        _strengths([row for row in trajectory if row["part"] == part], str(part), highest, x)
        for part in ordered(trajectory, "part")
    ]
    parts = ordered(health, "part")
    charts += [
        _health([row for row in health if row["name"] == name], str(name), parts, x) for name in ordered(health, "name")
    ]
    return themed(alt.concat(*charts, columns=2, spacing=24).resolve_scale(color="independent"), title)


def _val_losses(records: Sequence[Record], frozen: float, best_step: int, x: alt.X) -> _Panel:
    rows = [
        {"step": record["step"], "value": record["val"], "of": "trained"}
        for record in records
        if record.get("val") is not None
    ]
    rows.append({"step": 0, "value": frozen, "of": "frozen model"})
    colour = alt.Color(
        "of:N",
        scale=alt.Scale(domain=["trained", "frozen model"], range=[BLUE, ORANGE]),
        legend=alt.Legend(title=None, symbolType="stroke"),
    )
    y = alt.Y("value:Q", title="val loss, nats per token", scale=alt.Scale(zero=False), axis=alt.Axis(tickCount=5))
    base = alt.Chart().encode(y=y, color=colour)
    tooltip = [alt.Tooltip("step:Q", format=","), alt.Tooltip("value:Q", format=".6f")]
    trained = base.transform_filter("datum.of === 'trained'")
    layered = [
        base.transform_filter("datum.of === 'frozen model'").mark_rule(strokeDash=[5, 3], strokeWidth=1.5),
        trained.mark_line(strokeWidth=2).encode(x=x),
        trained.mark_point(filled=True, size=40, opacity=1).encode(x=x, tooltip=tooltip),
        trained.transform_filter(f"datum.step === {best_step}")
        .mark_point(size=130, strokeWidth=1.5, opacity=1)
        .encode(x=x),
    ]
    return alt.layer(*layered, data=data(rows)).properties(width=_WIDTH, height=_HEIGHT)


def _batch_losses(records: Sequence[Record], x: alt.X) -> _Panel:
    rows = [{"step": record["step"], "loss": record["loss"]} for record in records if record.get("loss") is not None]
    y = alt.Y("loss:Q", title="batch loss, nats per token", scale=alt.Scale(zero=False), axis=alt.Axis(tickCount=5))
    base = alt.Chart().encode(x=x, y=y)
    tooltip = [alt.Tooltip("step:Q", format=","), alt.Tooltip("loss:Q", format=".4f")]
    layered = [
        base.mark_line(strokeWidth=1, color=GREY),
        base.mark_point(filled=True, size=16, color=GREY, opacity=1).encode(tooltip=tooltip),
    ]
    return alt.layer(*layered, data=data(rows)).properties(width=_WIDTH, height=_HEIGHT)


def _strengths(records: Sequence[Record], part: str, highest: float, x: alt.X) -> _Panel:
    layers = ordered(records, "layer")
    few = len(layers) <= len(CATEGORIES)
    scale = alt.Scale(domain=layers, range=CATEGORIES) if few else alt.Scale(scheme="viridis")
    legend = alt.Legend(symbolType="stroke", symbolLimit=0, columns=1 + len(layers) // 12)
    colour = alt.Color("layer:O", title="layer", sort=layers, scale=scale, legend=legend)
    title = f"alpha, {part}" if part else "alpha"
    # panels of parts are on one scale
    y = alt.Scale(domain=[0, highest], nice=True)
    base = alt.Chart().encode(x=x)
    tooltip = [
        alt.Tooltip("layer:O"),
        alt.Tooltip("step:Q", format=","),
        *(alt.Tooltip(f"{name}:Q", format=".4f") for name in ("alpha", "lowest", "highest")),
    ]
    layered = [
        # strengths that begin alike have one band between them
        base.transform_aggregate(low="min(lowest)", high="max(highest)", groupby=["step"])
        .mark_area(color=SHADE, opacity=0.6)
        .encode(y=alt.Y("low:Q", title=title, scale=y), y2="high:Q"),
        base.mark_line(strokeWidth=1.8).encode(y=alt.Y("alpha:Q", title=title), color=colour, tooltip=tooltip),
    ]
    return alt.layer(*layered, data=data(records)).properties(width=_WIDTH, height=_HEIGHT)


def _health(records: Sequence[Record], name: str, parts: Sequence[str], x: alt.X) -> _Panel:
    legend = alt.Legend(symbolType="stroke") if len(parts) > 1 else None
    # one colour for a part in all panels
    scale = alt.Scale(domain=parts, range=[CATEGORIES[place % len(CATEGORIES)] for place in range(len(parts))])
    colour = alt.Color("part:N", title=None, sort=parts, scale=scale, legend=legend)
    y = alt.Y("value:Q", title=name, scale=alt.Scale(zero=False), axis=alt.Axis(tickCount=5))
    tooltip = [
        alt.Tooltip("part:N"),
        alt.Tooltip("step:Q", format=","),
        alt.Tooltip("value:Q", title=name, format=".4g"),
    ]
    base = alt.Chart().encode(x=x, y=y, color=colour)
    layered = [
        base.mark_line(strokeWidth=1.8),
        base.mark_point(filled=True, size=34, opacity=1).encode(tooltip=tooltip),
    ]
    return alt.layer(*layered, data=data(records)).properties(width=_WIDTH, height=_HEIGHT)


def val_curves(records: Sequence[Record], title: str) -> _Panel:
    """Losses on val examples less the frozen model's over the steps, a line for each run.

    Runs that differ by their seed alone have one colour; the first ones lie on top. Where some differ by more than 0.01
    nats the scale is logarithmic beyond that (symlog), since some runs begin far above the others.

    records: `step`, `less_frozen`, `run` (what was trained), `seed`.
    """
    names = ordered(records, "run")
    hues = CATEGORIES if len(names) <= len(CATEGORIES) else MANY
    scale = alt.Scale(domain=names, range=[hues[place % len(hues)] for place in range(len(names))])
    chosen = alt.selection_point(name="chosen", fields=["run"], bind="legend")
    values = finite(records, "less_frozen")
    low, high = min([0.0, *values]), max([0.0, *values])
    y_scale, y_axis = alt.Scale(), alt.Axis(format="~g")
    if max(-low, high) > _LINEAR:
        y_scale = alt.Scale(type="symlog", constant=_LINEAR)
        y_axis = alt.Axis(values=[tick for tick in _TICKS if low * 1.2 <= tick <= high * 1.2], format="~g")
    base = alt.Chart().encode(
        x=alt.X("step:Q", title="step", axis=alt.Axis(tickCount=6, format="~s", grid=False)),
        y=alt.Y(
            "less_frozen:Q",
            title="val loss less the frozen model's, nats per token",
            scale=y_scale,
            axis=y_axis,
        ),
        color=alt.Color("run:N", title=None, sort=names, scale=scale),
        detail="seed:O",
        opacity=alt.when(chosen).then(alt.value(1.0)).otherwise(alt.value(0.15)),
    )
    tooltip = [
        alt.Tooltip("run:N"),
        alt.Tooltip("seed:O"),
        alt.Tooltip("step:Q", format=","),
        alt.Tooltip("less_frozen:Q", title="less frozen", format="+.4f"),
    ]
    layered = [
        alt.Chart(data([{"zero": 0}])).mark_rule(strokeDash=[5, 3], color=GREY).encode(y="zero:Q"),
        base.mark_line(strokeWidth=1.8),
        base.mark_point(filled=True, size=34).encode(tooltip=tooltip).add_params(chosen),
    ]
    on_top = data(reversed(records))
    return themed(alt.layer(*layered, data=on_top).properties(width=480, height=280), title)
