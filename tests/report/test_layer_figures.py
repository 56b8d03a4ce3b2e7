"""Figures of layers: panels that have something to show, gaps where numbers are missing, maps of two stacks."""

import math

from src.report.charts import chart_spec, draw_png
from src.report.figures.layer_states import Panel, StackMap, line_panels, stack_maps

LINE = [
    {"x": -1, "series": "a", "value": 1.0, "low": 0.5, "high": 2.0},
    {"x": 0, "series": "a", "value": math.nan, "low": math.nan, "high": math.nan},
    {"x": 1, "series": "<b>", "value": 30.0},
]


def test_panels_without_records_are_left_out_and_missing_numbers_are_gaps():
    chart = line_panels([Panel("one", LINE, log=True), Panel("none", []), Panel("two", LINE[:1], rule=0)], "t", "s")
    spec = chart_spec(chart)
    assert [panel["title"]["text"] for panel in spec["concat"]] == ["one", "two"]
    values = spec["concat"][0]["data"]["values"]
    assert values[1]["value"] is None
    assert draw_png(spec).startswith(b"\x89PNG")


def test_maps_keep_the_order_of_the_layers():
    records = [
        {"row": row, "column": column, "value": value}
        for row, column, value in [("b", "z", 1.0), ("b", "y", -0.5), ("a", "z", math.nan), ("a", "y", 0.1)]
    ]
    spec = chart_spec(stack_maps([StackMap("m", records), StackMap("n", records[:1])], "t", "s", "first", "second"))
    assert [record["row"] for record in spec["concat"][0]["data"]["values"]] == ["b", "b", "a", "a"]
    for layer in spec["concat"][0]["layer"]:
        assert layer["encoding"]["y"]["sort"] is None
    assert draw_png(spec).startswith(b"\x89PNG")
