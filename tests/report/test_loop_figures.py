import numpy as np
import pytest

from src.report.charts import chart_spec, draw_png
from src.report.figures.loops import coordinate_by_label, loop_chart, tracked_loops
from src.topology.homology.distances import Distances
from src.topology.homology.persistence import persistence
from src.topology.loops.loops import loops_of
from src.topology.loops.tracking import track_loops
from tests.fixtures.planted_loops import circle, noisy_circle

DAYS = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"]


def rows_with(spec, field):
    tables = [source["data"]["values"] for source in (spec, *spec["layer"]) if "data" in source]
    return [row for place, table in enumerate(tables) if table not in tables[:place] for row in table if field in row]


def first_loop(points, p=0.01):
    distances = Distances.from_points(points)
    found = persistence(distances)
    return loops_of(distances, found, np.where(np.arange(len(found.bars[1])) == 0, p, np.nan))[0]


def test_a_loop_is_drawn_with_its_cycle_and_coordinate():
    points = circle(np.arange(7) / 7)
    loop = first_loop(points)
    spec = chart_spec(loop_chart(loop, points, DAYS, "weekdays"))
    drawn = {row["name"]: row for row in rows_with(spec, "turn")}
    assert sorted(drawn) == sorted(DAYS)
    assert [drawn[day]["turn"] for day in DAYS] == loop.coordinate.turns.tolist()
    assert len(rows_with(spec, "x2")) == len(loop.points)
    assert spec["title"]["text"] == "weekdays"
    assert "p = 0.01" in spec["title"]["subtitle"]
    assert draw_png(spec).startswith(b"\x89PNG")


def test_points_without_a_coordinate_are_drawn_apart_and_long_lists_of_names_are_not_written():
    _, points = noisy_circle(n=100, noise=0.02, d=2)
    points = np.concatenate([points, [[9.0, 9.0]]])
    loop = first_loop(points)
    spec = chart_spec(loop_chart(loop, points))
    assert [row["name"] for row in rows_with(spec, "turn") if row["turn"] is None] == ["100"]
    written = spec["layer"][3]["data"]["values"]
    assert {int(row["name"]) for row in written} == set(loop.points)
    assert draw_png(spec).startswith(b"\x89PNG")


@pytest.mark.parametrize("sign", [1, -1])
def test_a_coordinate_in_the_order_of_its_labels_rises(sign):
    turns = np.append(np.mod(sign * np.arange(7) / 7 + 0.6, 1), np.nan)
    spec = chart_spec(coordinate_by_label(turns, [*DAYS, "mon"], DAYS))
    assert [row["turn"] for row in rows_with(spec, "turn")] == pytest.approx([(place + 0.5) / 7 for place in range(7)])
    assert draw_png(spec).startswith(b"\x89PNG")


def test_tracks_span_their_layers():
    _, points = noisy_circle(n=30, noise=0.02)
    loop, weak = first_loop(points), first_loop(points, 0.04)
    tracks = track_loops([2, 3, 4], [[loop], [weak], []])
    spec = chart_spec(tracked_loops(tracks, ["the circle"], level=0.02))
    assert [(row["name"], row["first"], row["last"]) for row in rows_with(spec, "first")] == [("the circle", 2, 3)]
    assert [(row["layer"], row["significant"]) for row in rows_with(spec, "ratio")] == [(2, True), (3, False)]
    assert draw_png(spec).startswith(b"\x89PNG")


def test_no_track_is_an_empty_figure():
    assert draw_png(chart_spec(tracked_loops([], []))).startswith(b"\x89PNG")
