import math

import pytest

from src.report.charts import chart_spec, draw_png
from src.report.figures.scaling import scaling_alpha, scaling_curves, scaling_panels


def rows_of(spec):
    return [row for rows in spec.get("datasets", {}).values() for row in rows] or spec["data"]["values"]


def curve(layer, leap, *scores, **fields):
    """Points of 1000, 2000, ... tokens with a band of 0.01 to either side."""
    return [
        {
            "layer": layer,
            "leap": leap,
            "tokens": 1000.0 * 2**place,
            "r2": score,
            "lowest": score - 0.01,
            "highest": score + 0.01,
            "low": score - 0.03,
            "high": score + 0.03,
            **fields,
        }
        for place, score in enumerate(scores)
    ]


def encodings(spec, channel):
    return [layer["encoding"][channel] for layer in spec["spec"]["layer"] if channel in layer["encoding"]]


def assert_drawn(spec):
    png = draw_png(spec)
    assert png.startswith(b"\x89PNG")
    assert int.from_bytes(png[16:20], "big") > 400


def test_curves_have_a_panel_per_layer_a_colour_per_leap_and_an_interval_at_their_end():
    # in any order; the second pair ends earlier
    records = [*reversed(curve(0, 2, 0.3, 0.4, 0.45)), *curve(4, 1, 0.5, 0.6)]
    spec = chart_spec(scaling_curves(records))
    assert spec["facet"]["sort"] == [0, 4]
    assert encodings(spec, "color")[0]["scale"]["domain"] == [1, 2]
    ends = {(row["layer"], row["tokens"]) for row in rows_of(spec) if row["is_last"]}
    assert ends == {(0, 4000.0), (4, 2000.0)}
    assert {each["scale"]["type"] for each in encodings(spec, "x")} == {"log"}
    assert_drawn(spec)


def test_a_fit_that_fails_does_not_flatten_the_others_and_a_flat_curve_is_not_blown_up():
    spec = chart_spec(scaling_curves([*curve(0, 1, -30.0, 0.4, 0.5), *curve(1, 1, 0.2, 0.3, 0.35)]))
    low, high = encodings(spec, "y")[0]["scale"]["domain"]
    assert low == -1
    assert 0.5 < high < 0.7
    assert spec["title"]["subtitle"].endswith("cut at −1")
    flat = [{**record, "lowest": record["r2"], "highest": record["r2"]} for record in curve(0, 1, 0.5, 0.5001)]
    low, high = encodings(chart_spec(scaling_curves(flat)), "y")[0]["scale"]["domain"]
    assert high - low >= 0.02
    assert_drawn(spec)


def test_curves_that_all_fail_are_drawn():
    spec = chart_spec(scaling_curves(curve(0, 1, -30.0, -5.0)))
    low, high = encodings(spec, "y")[0]["scale"]["domain"]
    assert low < high
    assert_drawn(spec)


def test_sixteen_pairs_are_four_panels_of_four_lines():
    records = [r for layer in (5, 10, 12, 13) for leap in (1, 2, 5, 8) for r in curve(layer, leap, 0.3, 0.4, 0.5)]
    spec = chart_spec(scaling_curves(records))
    assert spec["facet"]["sort"] == [5, 10, 12, 13]
    assert len(set(encodings(spec, "color")[0]["scale"]["range"])) == 4
    assert_drawn(spec)


def test_alpha_has_a_logarithmic_axis_over_whole_powers():
    records = [
        {"layer": 0, "leap": 1, "tokens": tokens, "alpha": alpha, "lowest": alpha / 2, "highest": alpha}
        for tokens, alpha in ((1000.0, 0.3), (2000.0, 0.02))
    ]
    spec = chart_spec(scaling_alpha(records, label="alpha, relative"))
    scale = encodings(spec, "y")[0]["scale"]
    assert scale["type"] == "log"
    assert scale["domain"] == pytest.approx([0.01, 1.0])
    assert_drawn(spec)
    same = chart_spec(scaling_alpha([{**record, "lowest": 1.0, "highest": 1.0} for record in records]))
    assert encodings(same, "y")[0]["scale"]["domain"] == [1.0, 10.0]


def test_panels_dash_the_baselines_and_cut_what_lies_far_below():
    records = [
        *curve(0, 1, 0.3, 0.4, predictor="operator"),
        *curve(0, 1, -20.0, -20.0, predictor="identity", is_baseline=True),
        *curve(2, 1, 0.5, math.nan, predictor="operator"),
    ]
    spec = chart_spec(scaling_panels(records))
    dashes = encodings(spec, "strokeDash")[0]["scale"]
    assert dict(zip(dashes["domain"], dashes["range"], strict=True)) == {"operator": [1, 0], "identity": [5, 3]}
    assert spec["facet"]["sort"] == ["L = 0, k = 1", "L = 2, k = 1"]
    assert min(row["r2_drawn"] for row in rows_of(spec) if row["r2_drawn"] is not None) == -1
    assert spec["title"]["subtitle"] == "cut at −1"
    assert_drawn(spec)
