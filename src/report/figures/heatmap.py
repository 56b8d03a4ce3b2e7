"""Heat maps over pairs: source layer L and leap k."""

import math
from collections.abc import Sequence
from typing import Any

import altair as alt

from src.report.figures.theme import EMPTY, INK, Record, data, finite, ordered, short_number, themed

BELOW_ZERO = "#d6604d"


def pair_heatmap(
    records: Sequence[Record],
    value: str,
    title: str,
    *,
    label: str | None = None,
    diverging: bool = False,
    log: bool = False,
    subtitle: str | None = None,
) -> alt.LayerChart:
    """A heat map over source layer L (rows) and leap k (columns), the number in each cell while it fits.

    Args:
        records: one per pair: `layer` (L), `leap` (k), the field named by `value`, and if known `<value>_low` and
            `<value>_high`.
        value: the field that is drawn.
        title: what the figure shows.
        label: what the colour means; the name of the field if not given.
        diverging: for a score whose sign matters (a skill): colours centred at 0 if any value is negative, else light
            to dark from 0. Otherwise light to dark over the values (an R2), with cells below 0 in red.
        log: for positive values over orders of magnitude (an alpha): colours by powers of ten.
        subtitle: a second, fainter line.
    """
    layers, leaps = ordered(records, "layer"), ordered(records, "leap")
    column_step, row_step, font_size, decimals = _cell_size(len(leaps), len(layers))
    has_interval = any(record.get(f"{value}_low") is not None for record in records)
    values = finite(records, value)
    from_zero, diverging = diverging, diverging and any(score < 0 for score in values)
    low, high = _decades(values) if log else _colour_domain(values, diverging, from_zero)
    rows = [_cell(record, value, low, high, decimals, diverging, log) for record in records]
    label = label or value

    tooltip = [
        alt.Tooltip("layer:Q", title="source layer L"),
        alt.Tooltip("leap:Q", title="leap k"),
        alt.Tooltip("target:Q", title="target layer L + k"),
        alt.Tooltip("score:Q", title=label, format=".3e" if log else ".4f"),
        *([alt.Tooltip("interval:N", title="interval")] if has_interval else []),
    ]
    base = alt.Chart(data(rows)).encode(
        x=alt.X("leap:O", title="leap k", sort=leaps, axis=alt.Axis(orient="top", domain=False, ticks=False)),
        y=alt.Y("layer:O", title="source layer L", sort=layers, axis=alt.Axis(domain=False, ticks=False)),
        tooltip=tooltip,
    )
    scale = (
        alt.Scale(scheme="redblue", domain=[low, high], domainMid=0, clamp=True)
        if diverging
        else alt.Scale(type="log" if log else "linear", scheme="blues", domain=[low, high], clamp=True, nice=False)
    )
    gradient = min(max(row_step * len(layers), 60), 140)
    # of a diverging scale Vega would label the ends alone
    ticks = [low, low / 2, 0, high / 2, high] if diverging else alt.Undefined
    if log:
        ticks = [low * 10**power for power in range(round(math.log10(high / low)) + 1)]
    legend = alt.Legend(format="~e" if log else ".2~f", gradientLength=gradient, values=ticks, tickCount=5)
    colour = alt.Color("score:Q", title=label, scale=scale, legend=legend)
    cell = base.mark_rect(stroke="white", strokeWidth=1)
    layered = [
        cell.encode(color=colour),
        cell.encode(color=alt.value(EMPTY)).transform_filter("!isValid(datum.score)"),
    ]
    if not diverging:
        layered.append(cell.encode(color=alt.value(BELOW_ZERO)).transform_filter("datum.score < 0"))
    if font_size:
        two_lines = has_interval and column_step >= 78
        ink = alt.when("datum.dark").then(alt.value("white")).otherwise(alt.value(INK))
        number = base.mark_text(fontSize=font_size, dy=-6 if two_lines else 0)
        layered.append(number.encode(text="text:N", color=ink))
        if two_lines:
            small = base.mark_text(fontSize=9, dy=9, opacity=0.85)
            layered.append(small.encode(text="small_text:N", color=ink))
    chart = alt.layer(*layered).properties(width=alt.Step(column_step), height=alt.Step(row_step))
    if subtitle is None and not diverging and any(score < 0 for score in values):
        subtitle = "red: below 0, worse than predicting the mean"
    return themed(chart, title, subtitle)


def _cell_size(columns: int, rows: int) -> tuple[int, int, int, int]:
    """Step of columns and rows in pixels, font size (0 = no text) and decimals of the numbers in the cells."""
    if columns <= 8 and rows <= 12:
        return 78, 44, 13, 3
    if columns <= 14:
        return 46, 26, 11, 2
    if columns <= 20:
        return 32, 22, 9, 2
    return 24, 18, 0, 2


def _colour_domain(values: Sequence[float], diverging: bool, from_zero: bool) -> tuple[float, float]:
    """Rounded outwards to tenths. Diverging: symmetric, at most 1. Sequential: the values >= 0, or from 0 on."""
    if diverging:
        limit = min(1.0, math.ceil(max(abs(value) for value in values) * 10) / 10)
        return -limit, limit
    shown = [max(value, 0.0) for value in values] or [0.0, 1.0]
    low = 0.0 if from_zero else math.floor(min(shown) * 10) / 10
    high = max(math.ceil(max(shown) * 10) / 10, low + 0.1)
    return low, high


def _decades(values: Sequence[float]) -> tuple[float, float]:
    """Powers of ten around the values above 0."""
    exponents = [math.log10(value) for value in values if value > 0] or [0.0]
    low, high = math.floor(min(exponents)), math.ceil(max(exponents))
    return 10.0**low, 10.0 ** max(high, low + 1)


def _power(value: float) -> str:
    """Two digits at most and the exponent, as in 3.2e-4."""
    mantissa, exponent = f"{value:.1e}".split("e")
    return f"{mantissa.removesuffix('.0')}e{int(exponent)}".replace("-", "\N{MINUS SIGN}")


def _cell(
    record: Record, value: str, low: float, high: float, decimals: int, diverging: bool, log: bool
) -> dict[str, Any]:
    score = next(iter(finite([record], value)), None)
    cell: dict[str, Any] = {
        "layer": record["layer"],
        "leap": record["leap"],
        "target": record["layer"] + record["leap"],
        "score": score,
        "text": "n/a" if score is None else _power(score) if log else short_number(score, decimals),
        "small_text": "",
        "interval": "",
        "dark": False,
    }
    if score is None:
        return cell
    share = math.log(max(score, low) / low) / math.log(high / low) if log else (score - low) / (high - low)
    cell["dark"] = abs(share - 0.5) > 0.33 if diverging else score < 0 or share > 0.6
    ends = finite([record], f"{value}_low", f"{value}_high")
    if len(ends) == 2:
        cell["small_text"] = f"[{', '.join(short_number(end, decimals) for end in ends)}]"
        cell["interval"] = f"[{', '.join(short_number(end, 4) for end in ends)}]"
    return cell
