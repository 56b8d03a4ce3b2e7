"""Figures of edits of SAE features: what each does to predictions, and what transport wins back of it.

A *record* is a mapping with at least `pair` (a text, as `L = 2, k = 1`), `feature` (its name) and `kind` (the
intervention); features and kinds keep the order of the records.
"""

from collections.abc import Sequence

import altair as alt

from src.report.figures.theme import CATEGORIES, FAINT_INK, INK, Record, data, finite, ordered, panels, themed

_LOWEST, _HIGHEST = -1.0, 1.5  # of recovered shares: beyond them intervals are cut off
_LINEAR = 0.01
_TICKS = [-10, -1, -0.1, -_LINEAR, 0, _LINEAR, 0.1, 1, 10]


def feature_changes(records: Sequence[Record], title: str = "What edits of single features cost") -> alt.FacetChart:
    """The change of the NLL per firing of each feature under each intervention, with intervals, a panel per pair.

    Args:
        records: one per pair, feature and kind: `change`, `change_low`, `change_high` (nats per firing).
        title: what the figure shows.
    """
    subtitle = f"scale: linear to {_LINEAR:g} nats, logarithmic beyond"
    return _dots(records, "change", title, "change of NLL per firing (nats)", None, subtitle)


def feature_shares(
    records: Sequence[Record], title: str = "What the transported latent wins back of a feature's ablation"
) -> alt.FacetChart:
    """The share of each feature's ablation that its transported latent recovers, with intervals, a panel per pair.

    Args:
        records: one per pair, feature and kind: `share`, `share_low`, `share_high`.
        title: what the figure shows.
    """
    values = finite(records, "share", "share_low", "share_high")
    domain = [max(min([*values, 0.0]), _LOWEST), min(max([*values, 1.0]), _HIGHEST)]
    is_cut = any(not domain[0] <= value <= domain[1] for value in values)
    subtitle = "1: transported; 0: as bad as ablation, so synthesised after the source layer"
    subtitle += f"; cut at {domain[0]:g} and {domain[1]:g}".replace("-", "\N{MINUS SIGN}") if is_cut else ""
    return _dots(records, "share", title, "recovered share", domain, subtitle)


def _dots(
    records: Sequence[Record], value: str, title: str, label: str, domain: list[float] | None, subtitle: str | None
) -> alt.FacetChart:
    features, kinds = ordered(records, "feature"), ordered(records, "kind")
    several = len(kinds) > 1
    symlog = alt.Scale(type="symlog", constant=_LINEAR, nice=False)
    scale = symlog if domain is None else alt.Scale(domain=domain, nice=False, clamp=True)
    axis = alt.Axis(values=_TICKS) if domain is None else alt.Axis()
    colours = [*CATEGORIES, INK]
    colour = alt.Color(
        "kind:N",
        title=None,
        scale=alt.Scale(domain=kinds, range=[colours[index % len(colours)] for index in range(len(kinds))]),
        legend=alt.Legend(orient="top", direction="horizontal", columns=4) if several else None,
    )
    base = alt.Chart().encode(
        y=alt.Y("feature:N", title="feature", sort=features, scale=alt.Scale(paddingInner=0.3)),
        tooltip=[
            alt.Tooltip("pair:N", title="layers"),
            alt.Tooltip("feature:N", title="feature"),
            alt.Tooltip("kind:N", title="intervention"),
            *(
                alt.Tooltip(f"{value}{end}:Q", title=f"{value}{end.replace('_', ' ')}", format=".4f")
                for end in ("", "_low", "_high")
            ),
        ],
    )
    if several:
        base = base.encode(yOffset=alt.YOffset("kind:N", sort=kinds, scale=alt.Scale(domain=kinds)))
    x, low = (alt.X(f"{field}:Q", title=label, scale=scale, axis=axis) for field in (value, f"{value}_low"))
    marks = [0.0] if domain is None else [0.0, 1.0]
    layered = [
        alt.Chart(data([{"mark": mark} for mark in marks])).mark_rule(color=FAINT_INK).encode(x="mark:Q"),
        base.mark_rule(strokeWidth=1.4).encode(x=low, x2=f"{value}_high:Q", color=colour),
        base.mark_point(filled=True, size=38, opacity=1).encode(x=x, color=colour),
    ]
    n_rows = max(len({row["feature"] for row in records if row["pair"] == pair}) for pair in ordered(records, "pair"))
    height = max(20, 9 * len(kinds)) * n_rows
    chart = panels(layered, records, "pair:N", "", 3, 280, height).resolve_scale(y="independent", yOffset="independent")
    return themed(chart, title, subtitle)
