import math

import pytest

from src.report.charts import chart_spec, draw_png
from src.report.figures.persistence import (
    MOST_DRAWN,
    MOST_IN_BARCODE,
    SIGNIFICANT,
    barcodes,
    persistence_diagrams,
    scale_curves,
)
from src.report.figures.topology_profile import layer_profile, sample_size_curves


def rows_of(spec):
    return [row for rows in spec["datasets"].values() for row in rows] if "datasets" in spec else spec["data"]["values"]


def bar(birth, death, dimension=1, cloud="layer 0", **more):
    return {"cloud": cloud, "dimension": dimension, "birth": birth, "death": death, **more}


def test_a_bar_that_never_dies_stands_above_all_others_and_says_so():
    spec = chart_spec(persistence_diagrams([bar(0.0, math.inf, 0), bar(0.0, 3.0, 0), bar(1.0, 2.0)]))
    dots = [row for row in rows_of(spec) if row["part"] == "bar"]
    endless = next(row for row in dots if row["end"] == "never")
    assert endless["death"] > 3.0
    assert sorted(row["end"] for row in dots) == ["2", "3", "never"]


def test_each_cloud_has_its_own_null_band_and_unknown_clouds_have_none():
    bars = [bar(1.0, 2.0), bar(1.0, 4.0, cloud="layer 1")]
    rows = rows_of(chart_spec(persistence_diagrams(bars, {"layer 1": 0.5})))
    bands = [row for row in rows if row["part"] == "band"]
    assert {row["cloud"] for row in bands} == {"layer 1"}
    widths = [row["upper"] - row["death"] for row in bands]
    assert widths == pytest.approx([0.5, 0.5, 0.0])  # cut at the upper edge


def test_the_longest_bars_are_drawn_and_the_cut_is_said():
    bars = [bar(1.0, 1.0 + place / 1000) for place in range(1, MOST_DRAWN + 101)]
    spec = chart_spec(persistence_diagrams(bars))
    dots = [row for row in rows_of(spec) if row["part"] == "bar"]
    assert len(dots) == MOST_DRAWN
    assert min(row["length"] for row in dots) == pytest.approx(0.101)
    assert str(MOST_DRAWN) in spec["title"]["subtitle"]


def test_a_barcode_is_sorted_by_length_and_marks_what_is_significant():
    bars = [bar(0.0, 1.0), bar(2.0, 5.0, significant=True, p=0.001), bar(0.0, math.inf, 0)]
    spec = chart_spec(barcodes(bars, {"layer 0": 2.0}))
    rows = sorted(rows_of(spec), key=lambda row: row["place"])
    assert [(row["birth"], row["kind"], row["null_end"]) for row in rows] == [
        (2.0, SIGNIFICANT, 4.0),
        (0.0, "loop (H1)", 2.0),
    ]
    assert len(rows_of(chart_spec(barcodes([bar(0.0, place + 1.0) for place in range(99)])))) == MOST_IN_BARCODE
    draw_png(spec)


def test_figures_without_any_loop_are_drawn():
    only_components = [bar(0.0, 1.0, 0), bar(0.0, math.inf, 0)]
    for chart in (persistence_diagrams(only_components), barcodes(only_components)):
        assert draw_png(chart_spec(chart)).startswith(b"\x89PNG")


def test_curves_keep_every_point_and_their_null_band():
    points = [
        {"cloud": "layer 0", "scale": place / 10, "value": place, "null_low": 0, "null_high": place + 1}
        for place in range(11)
    ]
    spec = chart_spec(scale_curves(points, "Betti curves", label="loops alive"))
    assert [(row["scale"], row["value"], row["null_high"]) for row in rows_of(spec)] == [
        (point["scale"], point["value"], point["null_high"]) for point in points
    ]
    assert "null model" in spec["title"]["subtitle"]
    bare = [{key: point[key] for key in ("cloud", "scale", "value")} for point in points]
    assert "subtitle" not in chart_spec(scale_curves(bare, "Betti curves", label="loops alive"))["title"]


@pytest.mark.parametrize("models", [["testbed"], ["testbed", "testbed_chat"]])
@pytest.mark.parametrize("layers", [1, 6, 26])
def test_a_profile_has_a_panel_per_statistic_in_their_order(models, layers):
    records = [
        {"statistic": name, "layer": layer, "value": float(layer), "low": 0.0, "high": layer + 1.0, "model": model}
        for name in ("β₁", "hubness", "dimension")
        for layer in range(layers)
        for model in models
    ]
    records[-1]["value"] = math.nan
    spec = chart_spec(layer_profile(records))
    assert [panel["title"]["text"] for panel in spec["concat"]] == ["β₁", "hubness", "dimension"]
    coloured = "field" in spec["concat"][0]["layer"][2]["encoding"]["color"]
    assert coloured is (len(models) > 1)
    assert draw_png(spec).startswith(b"\x89PNG")


def test_sample_size_curves_draw_one_line_per_cloud():
    records = [
        {"statistic": "β₁", "cloud": f"layer {layer}", "n_points": size, "value": 1.0, "low": 0.0, "high": 2.0}
        for layer in range(9)
        for size in (50, 100)
    ]
    spec = chart_spec(sample_size_curves(records))
    assert len(spec["concat"]) == 1
    assert spec["concat"][0]["layer"][1]["encoding"]["color"]["scale"] == {"scheme": "viridis"}
    assert draw_png(spec).startswith(b"\x89PNG")
