"""What is shown of the loops of clouds: which points are on them, whether labels go around them, figures."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Float

from src.report.artifact_report import NamedChart
from src.report.figures.loops import coordinate_by_label, loop_chart, tracked_loops
from src.report.tables import Cell, Table
from src.topology.loops.loops import Loop
from src.topology.loops.tracking import track_loops
from src.topology.profile import CloudProfile, CycleSummary

_MOST_WORDS = 12
# loops with a figure of their own
_MOST_FIGURES = 3
_LISTED = 60


def loop_table(
    profiles: Sequence[CloudProfile], tables: Mapping[str, pa.Table], level: float, one_each: bool = False
) -> Table | None:
    """One row for each loop that is told: its strength, and the points on it; None where there are no loops.

    one_each: the longest of each cloud alone, which is chosen without a look at labels.
    """
    rows: list[list[Cell]] = []
    has_cycles = any(cycle is not None for profile in profiles for cycle in profile.cycles)
    for profile in profiles:
        names = point_names(tables[profile.name], profile)
        for place, loop in enumerate(profile.loops[:1] if one_each else profile.loops):
            row: list[Cell] = [profile.name, loop.ratio, (loop.death - loop.birth) / (profile.scale or 1.0)]
            row += [_known(loop.p), bool(loop.p <= level), len(loop.points)]
            if has_cycles:
                row += _cycle_cells(profile.cycles[place] if profile.cycles else None)
            rows.append([*row, _walk(loop, names)])
    if not rows:
        return None
    columns = ["cloud", "death / birth", "length", "p", "significant", "points"]
    columns += [*(["in order", "p with order", "correlation"] if has_cycles else []), "on the loop"]
    which = "" if one_each else "The longest loops of each cloud, and the significant ones. "
    caption = (
        f"{which}length: in units of the scale. p: of the loop, for all bars of "
        f"the cloud together; significant: at most {level:g}. on the loop: points in walking order."
    )
    if has_cycles:
        caption += (
            " in order: whether the labels stand around the loop in their order, one way or the other; p with order: "
            "of loop and order together (Fisher); correlation: circular, of points' places with those of their labels."
        )
    title = "The longest loop of each cloud" if one_each else "Loops"
    return Table(title, columns, rows[:_LISTED], caption)


def point_names(table: pa.Table, profile: CloudProfile) -> list[str]:
    """What the analysed points are called: labels where points are means, else tokens or names, else numbers."""
    some = table.take(profile.rows).to_pylist()
    return [_name(row, place) for row, place in zip(some, profile.rows.tolist(), strict=True)]


def _name(row: Mapping[str, Any], place: int) -> str:
    if row.get("label") is not None:
        return str(row["label"])
    return str(row.get("text", place))


def _walk(loop: Loop, names: Sequence[str]) -> str:
    walk = [names[point] for point in loop.walks[0]]
    short = [name for place, name in enumerate(walk) if not place or name != walk[place - 1]]
    more = f" ... ({len(short)} in all)" if len(short) > _MOST_WORDS else ""
    return " – ".join(short[:_MOST_WORDS]) + more


def _cycle_cells(cycle: CycleSummary | None) -> list[Cell]:
    if cycle is None:
        return [None, None, None]
    return [cycle.in_order, _known(cycle.p), _known(abs(cycle.correlation))]


def loop_figures(
    profiles: Sequence[CloudProfile],
    tables: Mapping[str, pa.Table],
    points: Mapping[str, Float[np.ndarray, "available d"]],
    level: float,
) -> list[NamedChart]:
    """Loops over layers, and the strongest loops with circular coordinates; of labels in a cycle, one per cloud."""
    figures = []
    chosen = [
        (profile, place)
        for profile in profiles
        for place, loop in enumerate(profile.loops)
        if loop.p <= level or (profile.cycles and place == 0)
    ]
    chosen.sort(key=lambda item: (_strength(*item), -item[0].loops[item[1]].ratio))
    for number, (profile, place) in enumerate(chosen[:_MOST_FIGURES], start=1):
        loop, names = profile.loops[place], point_names(tables[profile.name], profile)
        plane = _plane(points[profile.name][profile.rows])
        title = f"Loop of {profile.name}"
        chart = loop_chart(loop, plane, names, title)
        caption = "First two principal components; coloured by the place along the loop, with the edges of its cycle."
        figures.append(NamedChart(f"loop_{number}", f"{title} ({number})", chart, caption))
        if profile.cycles:
            order = _labels_in_order(tables[profile.name])
            chart = coordinate_by_label(loop.coordinate.turns, names, order, f"Circular coordinate, {profile.name}")
            caption = "A circle in the order of the labels is one line that rises once around."
            figures.append(NamedChart(f"coordinate_{number}", f"Circular coordinate ({number})", chart, caption))
    return [*_tracks(profiles, tables, level), *figures]


def _strength(profile: CloudProfile, place: int) -> float:
    cycle = profile.cycles[place] if profile.cycles else None
    return profile.loops[place].p if cycle is None else cycle.p


def _tracks(profiles: Sequence[CloudProfile], tables: Mapping[str, pa.Table], level: float) -> list[NamedChart]:
    layered = [profile for profile in profiles if profile.layer is not None]
    same = {(len(profile.rows), profile.rows.tobytes()) for profile in layered}
    if len(layered) < 2 or len(same) > 1 or not any(profile.loops for profile in layered):
        return []
    tracks = track_loops([profile.layer or 0 for profile in layered], [profile.loops for profile in layered])
    wanted = [track for track in tracks if len(track.layers) > 1 or any(loop.p <= level for loop in track.loops)]
    if not wanted:
        return []
    names = point_names(tables[layered[0].name], layered[0])
    called = [f"{number}. {_walk(track.loops[0], names)[:48]}" for number, track in enumerate(wanted, start=1)]
    chart = tracked_loops(wanted, called, level=level)
    caption = "Loops of successive layers are joined where their circular coordinates agree on the same points."
    return [NamedChart("tracked_loops", "Loops over layers", chart, caption)]


def _labels_in_order(table: pa.Table) -> list[str]:
    pairs = zip(table.column("label_index").to_pylist(), table.column("label").to_pylist(), strict=True)
    return [label for _, label in sorted(set(pairs))]


def _plane(points: Float[np.ndarray, "point d"]) -> Float[np.ndarray, "point 2"]:
    centred = points - points.mean(axis=0)
    left, lengths, _ = np.linalg.svd(centred.astype(np.float64), full_matrices=False)
    scores = (left * lengths)[:, :2]
    return np.pad(scores, ((0, 0), (0, 2 - scores.shape[1])))


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None
