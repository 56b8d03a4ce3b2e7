"""Figures of interventions: what edits of the residual stream do to next-token predictions.

A *record* is a mapping with at least `pair` (a text, as `L = 2, k = 1`) and `intervention`.
"""

from collections.abc import Sequence

import altair as alt

from src.report.figures.theme import CATEGORIES, FAINT_INK, GRID, INK, Record, ordered, panels, themed

_CHANGE = "change of log-perplexity (nats)"
# Edits of one token change its own prediction a thousand times as much as those after it: linear up to here, then log
_LINEAR = 0.01
_TICKS = [-10, -1, -0.1, -_LINEAR, 0, _LINEAR, 0.1, 1, 10]
NO_OPERATOR = "no operator"
_DASHES = [[1, 0], [6, 3], [2, 2], [8, 2, 2, 2], [4, 4], [1, 3]]
_SUBTITLE = f"scale: linear to {_LINEAR:g} nats, logarithmic beyond"


def change_bars(records: Sequence[Record], title: str = "What each intervention does to predictions") -> alt.FacetChart:
    """The change of log-perplexity of every intervention with its interval, one panel per pair of layers.

    Args:
        records: one per pair, intervention and set of positions: `pair`, `intervention`, `positions` (text),
            `change`, `change_low`, `change_high`. Interventions and positions keep the order of the records.
        title: what the figure shows.
    """
    interventions, positions = ordered(records, "intervention"), ordered(records, "positions")
    several = len(positions) > 1
    base = alt.Chart().encode(
        y=alt.Y("intervention:N", title=None, sort=interventions, scale=alt.Scale(paddingInner=0.25)),
        tooltip=_tooltip(alt.Tooltip("positions:N", title="positions")),
    )
    if several:
        base = base.encode(yOffset=alt.YOffset("positions:N", sort=positions, scale=alt.Scale(domain=positions)))
    colour = alt.Color(
        "positions:N",
        title="positions",
        scale=alt.Scale(domain=positions, range=_colours(len(positions))),
        legend=alt.Legend(orient="top", direction="horizontal", columns=5) if several else None,
    )
    x, low = (alt.X(f"{name}:Q", title=_CHANGE, axis=_zero_axis(), scale=_scale()) for name in ("change", "change_low"))
    layered = [
        base.mark_rule(strokeWidth=1.6).encode(x=low, x2="change_high:Q", color=colour),
        base.mark_point(filled=True, size=42, opacity=1).encode(x=x, color=colour),
    ]
    height = max(22, 11 * len(positions)) * len(interventions)
    return themed(panels(layered, records, "pair:N", "", 3, 300, height), title, _SUBTITLE)


def change_lines(records: Sequence[Record], title: str = "How far an edit reaches") -> alt.FacetChart:
    """The change of log-perplexity by distance from the first edited token, a line per intervention, a panel per pair.

    Args:
        records: one per pair, intervention and bin of distance: `pair`, `intervention` (its label), `kind` (transport,
            zero, ...: the colour) and `operator` (the dash, where there are several), `from`, `to` (None = no end),
            `change`, `change_low`, `change_high`.
        title: what the figure shows.
    """
    kinds, operators = ordered(records, "kind"), ordered(records, "operator")
    rows = [{**record, "distance": _bin(record)} for record in records]
    bins = ordered(rows, "distance")
    base = alt.Chart().encode(
        x=alt.X("distance:O", title="tokens after the first edited one", sort=bins),
        tooltip=_tooltip(alt.Tooltip("distance:N", title="distance")),
    )
    colour = alt.Color(
        "kind:N",
        title=None,
        scale=alt.Scale(domain=kinds, range=_colours(len(kinds))),
        legend=alt.Legend(orient="top", direction="horizontal", columns=4, symbolOpacity=1),
    )
    several = len(set(operators) - {NO_OPERATOR}) > 1
    dash = alt.StrokeDash(
        "operator:N",
        title=None,
        scale=alt.Scale(
            domain=operators, range=[_DASHES[i % len(_DASHES) if several else 0] for i in range(len(operators))]
        ),
        legend=alt.Legend(orient="top", direction="horizontal") if several else None,
    )
    base = base.encode(detail="intervention:N")
    layered = [
        base.mark_area(opacity=0.15).encode(
            y=alt.Y("change_low:Q", title=_CHANGE, axis=_zero_axis(), scale=_scale()), y2="change_high:Q", color=colour
        ),
        base.mark_line(strokeWidth=1.8, point=alt.OverlayMarkDef(size=22)).encode(
            y=alt.Y("change:Q", title=_CHANGE, axis=_zero_axis(), scale=_scale()), color=colour, strokeDash=dash
        ),
    ]
    width = max(300, 44 * len(bins))
    return themed(panels(layered, rows, "pair:N", "", 2, width, 220), title, _SUBTITLE)


def _bin(record: Record) -> str:
    first, last = record["from"], record["to"]
    return f"{first}+" if last is None else str(first) if first == last else f"{first}\N{EN DASH}{last}"


def _tooltip(own: alt.Tooltip) -> list[alt.Tooltip]:
    return [
        alt.Tooltip("pair:N", title="layers"),
        alt.Tooltip("intervention:N", title="intervention"),
        own,
        alt.Tooltip("change:Q", title="change", format=".4f"),
        alt.Tooltip("change_low:Q", title="low", format=".4f"),
        alt.Tooltip("change_high:Q", title="high", format=".4f"),
    ]


def _zero_axis() -> alt.Axis:
    """Zero stands out from the other grid lines: there an edit does nothing."""
    zero = alt.when("datum.value === 0")
    return alt.Axis(
        values=_TICKS,
        labelExpr="replace(toString(datum.value), '-', '\N{MINUS SIGN}')",
        gridColor=zero.then(alt.value(FAINT_INK)).otherwise(alt.value(GRID)),  # type: ignore[arg-type]
    )


def _scale() -> alt.Scale:
    return alt.Scale(type="symlog", constant=_LINEAR, nice=False)


def _colours(count: int) -> list[str]:
    colours = [*CATEGORIES, INK]
    return [colours[index % len(colours)] for index in range(count)]
