"""One look for all figures, and the few helpers that every figure needs."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import altair as alt

Record = Mapping[str, Any]

# vl-convert carries Liberation Sans, so PNGs look alike on machines without fonts; browsers take what they have
FONT = "Liberation Sans, Arial, Helvetica, sans-serif"
INK = "#1f2933"
FAINT_INK = "#5f6b7a"
GRID = "#e4e7eb"
EMPTY = "#f3f4f6"
# bands of what chance does
SHADE = "#cfd6df"

# Okabe and Ito (2008), "Color Universal Design": told apart with any colour vision
BLUE, ORANGE, SKY, GREY, GREEN, PINK, VERMILION = (
    "#0072b2",
    "#e69f00",
    "#56b4e9",
    "#8a8f98",
    "#009e73",
    "#cc79a7",
    "#d55e00",
)
CATEGORIES = [BLUE, ORANGE, SKY, GREY, GREEN, PINK, VERMILION]


def themed(chart: Any, title: str, subtitle: str | None = None) -> Any:
    """The chart with its title and the look of all figures, kept in its spec: the same wherever it is drawn."""
    heading = alt.TitleParams(title, subtitle=subtitle) if subtitle else alt.TitleParams(title)
    return chart.properties(title=heading).configure(
        background="white",
        font=FONT,
        padding=12,
        title=alt.TitleConfig(
            anchor="start", frame="group", fontSize=15, fontWeight=600, color=INK, offset=14,
            subtitleColor=FAINT_INK, subtitleFontSize=12, subtitlePadding=5,
        ),
        axis=alt.AxisConfig(
            labelColor=INK, titleColor=FAINT_INK, labelFontSize=11, titleFontSize=12, titleFontWeight="normal",
            gridColor=GRID, domainColor="#b8c0cc", tickColor="#b8c0cc", tickSize=4, labelPadding=4, titlePadding=8,
            labelAngle=0,
        ),
        header=alt.HeaderConfig(
            labelColor=INK, labelFontSize=12, labelFontWeight=600, titleColor=FAINT_INK, titleFontSize=12,
            titleFontWeight="normal",
        ),
        legend=alt.LegendConfig(
            labelColor=INK, titleColor=FAINT_INK, labelFontSize=11, titleFontSize=11, titleFontWeight="normal",
            gradientLength=140, labelLimit=260,
        ),
        view=alt.ViewConfig(stroke=None),
    )  # fmt: skip


def titled_further(chart: Any, more: str) -> Any:
    """A themed chart with words added to its title."""
    changed = chart.copy(deep=["title"])
    changed.title.text += more
    return changed


def data(records: Iterable[Record]) -> alt.Data:
    """Inline data; what JSON cannot hold (NaN, infinities) becomes null, which Vega leaves out."""
    return alt.Data(values=[{key: _plain(value) for key, value in record.items()} for record in records])


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def finite(records: Iterable[Record], *fields: str) -> list[float]:
    """All finite values of the given fields."""
    values = (record.get(field) for record in records for field in fields)
    return [float(value) for value in values if value is not None and math.isfinite(value)]


def ordered(records: Iterable[Record], field: str) -> list[Any]:
    """The distinct values of a field: numbers ascending, words in the order of the records."""
    values = list(dict.fromkeys(record[field] for record in records))
    return sorted(values) if all(isinstance(value, int | float) for value in values) else values


def bounded(values: Sequence[float], lowest: float) -> list[float]:
    """An axis domain over the values and 0, but not below `lowest`: one bad value shall not flatten the rest."""
    low = max(min([0.0, *values]), lowest)
    high = max([0.0, *values])
    return [low, high if high > low else low + 1.0]


def short_number(value: float, decimals: int) -> str:
    """Fixed decimals while the number is short, with a true minus sign."""
    text = f"{value:.{decimals}f}" if abs(value) < 10 else f"{value:.3g}"
    return text.replace("-", "\N{MINUS SIGN}")


def panels(
    layered: Sequence[Any], rows: Iterable[Record], by: str, name: str, columns: int, width: int, height: int
) -> alt.FacetChart:
    """Small multiples: one panel of the layered marks for each value of a field of the rows.

    by: the field with its type, as `leap:O`. name: what stands before the value, as in `leap k = 2`; empty: the value
    alone. columns: at most. width, height: of a panel, in pixels.
    """
    rows = list(rows)
    values = ordered(rows, by.partition(":")[0])
    heading = alt.Header(title=None, labelExpr=f"'{name} = ' + datum.value") if name else alt.Header(title=None)
    chart = alt.layer(*layered, data=data(rows)).properties(width=width, height=height)
    facet = alt.Facet(by, sort=values, header=heading)
    # a shared axis would also be drawn where the last row has no panel
    return chart.facet(facet=facet, columns=min(columns, len(values)), spacing=22).resolve_axis(x="independent")
