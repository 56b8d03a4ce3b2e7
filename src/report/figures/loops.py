"""Figures of loops: a loop and its circular coordinate, the coordinate beside labels, loops over layers."""

from collections.abc import Sequence
from typing import Any

import altair as alt
import numpy as np
from jaxtyping import Float

from src.report.figures.theme import BLUE, FAINT_INK, GREY, INK, data, themed
from src.topology.loops.loops import Loop
from src.topology.loops.tracking import Track

# More names than this cover each other.
_MOST_NAMES = 60
_SIDE = 380
# Around the circle and back to the same colour.
_CYCLIC = alt.Scale(domain=[0, 1], scheme="sinebow")


def loop_chart(
    loop: Loop,
    plane: Float[np.ndarray, "point 2"],
    names: Sequence[str] | None = None,
    title: str = "A loop",
    subtitle: str | None = None,
) -> alt.LayerChart:
    """The points of a cloud in a plane, coloured by where they stand along a loop, with the edges of its cycle.

    Args:
        loop: of the cloud.
        plane: the points' places, as their first two principal components.
        names: of the points; written beside them where they are few, else beside those of the cycle alone.
        title: what the figure shows.
        subtitle: the loop's birth and death if None.
    """
    names = [str(point) for point in range(len(plane))] if names is None else names
    on_cycle = set(loop.points)
    points = [
        {
            "x": float(x),
            "y": float(y),
            "name": name,
            "turn": float(turn),
            "cycle": point in on_cycle,
        }
        for point, ((x, y), name, turn) in enumerate(zip(plane, names, loop.coordinate.turns, strict=True))
    ]
    edges = [
        {"x": float(plane[a, 0]), "y": float(plane[a, 1]), "x2": float(plane[b, 0]), "y2": float(plane[b, 1])}
        for walk in loop.walks
        for a, b in zip(walk, (*walk[1:], walk[0]), strict=True)
    ]
    named = points if len(points) <= _MOST_NAMES else [point for point in points if point["cycle"]][:_MOST_NAMES]
    x, y = _shown(plane[:, 0]), _shown(plane[:, 1])
    where = {"x": alt.X("x:Q", axis=None, scale=x), "y": alt.Y("y:Q", axis=None, scale=y)}
    tooltip = [alt.Tooltip("name:N", title="point"), alt.Tooltip("turn:Q", title="turn", format=".3f")]
    lines = alt.Chart(data(edges)).mark_rule(color=FAINT_INK, strokeWidth=1.2, opacity=0.7)
    colour = alt.Color("turn:Q", title="circular coordinate (turns)", scale=_CYCLIC)
    known = alt.Chart(data(point for point in points if np.isfinite(point["turn"])))
    unknown = alt.Chart(data(point for point in points if not np.isfinite(point["turn"])))
    text = alt.Chart(data(named)).mark_text(dy=-11, fontSize=11, color=INK)
    layers = [
        lines.encode(**where, x2="x2:Q", y2="y2:Q"),
        unknown.mark_point(size=26, color=GREY).encode(**where, tooltip=tooltip),
        known.mark_circle(size=62, opacity=1, stroke="white", strokeWidth=0.6).encode(
            **where, color=colour, tooltip=tooltip
        ),
        text.encode(**where, text="name:N"),
    ]
    words = subtitle or f"born at {loop.birth:.3g}, filled at {loop.death:.3g}, ratio {loop.ratio:.2f}{_p(loop.p)}"
    return themed(alt.layer(*layers).properties(width=_SIDE, height=_SIDE), title, words)


def coordinate_by_label(
    turns: Float[np.ndarray, "point"],
    labels: Sequence[str],
    order: Sequence[str],
    title: str = "Circular coordinate by label",
    subtitle: str | None = None,
) -> alt.LayerChart:
    """The coordinate of each point beside its label: a circle in order is one line that goes once around.

    Args:
        turns: of each point; NaN are left out.
        labels: of each point.
        order: of the labels along the axis. The zero and the direction of the coordinate are chosen so that it
            rises with the labels, the first of them half a label's width above 0.
        title: what the figure shows.
        subtitle: under it.
    """
    rising = _along(np.asarray(turns, dtype=np.float64), [list(order).index(label) for label in labels], len(order))
    rows = [
        {"label": label, "turn": float(turn)} for label, turn in zip(labels, rising, strict=True) if np.isfinite(turn)
    ]
    base = alt.Chart(data(rows)).encode(
        x=alt.X("label:N", sort=list(order), title=None, axis=alt.Axis(labelAngle=-40)),
        y=alt.Y("turn:Q", title="circular coordinate (turns)", scale=alt.Scale(domain=[0, 1])),
    )
    points = base.mark_circle(size=48, opacity=0.75).encode(color=alt.Color("turn:Q", scale=_CYCLIC, legend=None))
    chart = alt.layer(points).properties(width=max(260, 34 * len(order)), height=240)
    return themed(chart, title, subtitle)


def tracked_loops(
    tracks: Sequence[Track], names: Sequence[str], title: str = "Loops over layers", level: float = 0.05
) -> alt.LayerChart:
    """A line for each loop over the layers in which it lives, with its strength in each.

    Args:
        tracks: from `track_loops`.
        names: of the tracks, as the tokens on them.
        title: what the figure shows.
        level: loops with a p of at most this are filled.
    """
    order = list(dict.fromkeys(names))
    dots: list[dict[str, Any]] = [
        {
            "name": name,
            "layer": layer,
            "ratio": loop.ratio,
            "p": loop.p,
            "significant": bool(loop.p <= level),
            "size": len(loop.points),
        }
        for track, name in zip(tracks, names, strict=True)
        for layer, loop in zip(track.layers, track.loops, strict=True)
    ]
    spans = [
        {"name": name, "first": track.birth_layer, "last": track.death_layer}
        for track, name in zip(tracks, names, strict=True)
    ]
    layers = sorted({dot["layer"] for dot in dots})
    x = alt.X(
        "layer:Q",
        title="layer",
        axis=alt.Axis(values=layers, format="d", grid=False),
        scale=alt.Scale(domain=[min(layers, default=0) - 0.5, max(layers, default=0) + 0.5], nice=False),
    )
    y = alt.Y("name:N", title=None, sort=order, axis=alt.Axis(labelLimit=300))
    bars = alt.Chart(data(spans)).mark_rule(strokeWidth=9, opacity=0.22, color=BLUE, strokeCap="round")
    size = alt.Size(
        "ratio:Q",
        title="death / birth",
        scale=alt.Scale(domain=[1, max((dot["ratio"] for dot in dots), default=2)], range=[12, 320]),
    )
    tooltip = [
        alt.Tooltip("layer:Q"),
        alt.Tooltip("ratio:Q", title="death / birth", format=".3f"),
        alt.Tooltip("p:Q", title="p", format=".2g"),
        alt.Tooltip("size:Q", title="points on the cycle"),
    ]
    marks = alt.Chart(data(dots)).encode(x=x, y=y, size=size, tooltip=tooltip)
    chart = alt.layer(
        bars.encode(x=alt.X("first:Q"), x2="last:Q", y=y),
        marks.transform_filter("datum.significant").mark_point(filled=True, color=BLUE, opacity=1),
        marks.transform_filter("!datum.significant").mark_point(filled=True, color="white", stroke=BLUE, opacity=1),
    ).properties(width=max(300, 54 * len(layers)), height=max(60, 30 * len(order)))
    return themed(chart, title, f"filled: p at most {level:g}; an empty circle: the loop is there, but could be chance")


def _p(p: float) -> str:
    return "" if np.isnan(p) else f", p = {p:.2g}"


def _shown(values: Float[np.ndarray, "point"]) -> alt.Scale:
    """All values, with room for names."""
    low, high = float(values.min()), float(values.max())
    room = 0.12 * (high - low or 1.0)
    return alt.Scale(domain=[low - room, high + room], nice=False, zero=False)


def _along(turns: Float[np.ndarray, "point"], places: Sequence[int], n_labels: int) -> Float[np.ndarray, "point"]:
    """The coordinate with a zero and a direction that fit the order of the labels."""
    has = np.isfinite(turns)
    wheel, own = np.exp(2j * np.pi * np.array(places)[has] / n_labels), np.exp(2j * np.pi * turns[has])
    forwards, backwards = np.mean(own * wheel.conj()), np.mean(own.conj() * wheel.conj())
    mean, sign = (forwards, 1) if abs(forwards) >= abs(backwards) else (backwards, -1)
    return np.mod(sign * turns - np.angle(mean) / (2 * np.pi) + 0.5 / n_labels, 1.0)
