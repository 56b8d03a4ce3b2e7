import math
from statistics import median

import pytest

from src.report.charts import chart_spec, draw_png
from src.report.figures.decay import decay_with_leap
from src.report.figures.heatmap import pair_heatmap
from src.report.figures.rank import rank_curves
from src.report.figures.transport import baseline_bars, dimension_quantiles


def rows_of(spec):
    return [row for rows in spec.get("datasets", {}).values() for row in rows] or spec["data"]["values"]


def records(n_layers, **more):
    return [
        {"layer": layer, "leap": leap, "r2": 1 / leap, "r2_low": 1 / leap - 0.1, "r2_high": 1 / leap + 0.1, **more}
        for layer in range(n_layers)
        for leap in range(1, n_layers - layer)
    ]


@pytest.mark.parametrize(("by", "lines"), [("source", [0, 1, 2, 3]), ("target", [1, 2, 3, 4])])
def test_few_lines_share_a_panel_with_their_intervals(by, lines):
    spec = chart_spec(decay_with_leap(records(5), "r2", "decay", label="R²", by=by))
    assert [layer["mark"]["type"] for layer in spec["layer"]] == ["area", "line", "point"]
    assert spec["layer"][1]["encoding"]["color"]["scale"]["domain"] == lines
    for row in rows_of(spec):
        assert row["line"] == (row["layer"] if by == "source" else row["layer"] + row["leap"])
        assert (row["score"], row["low"], row["high"]) == (
            1 / row["leap"],
            1 / row["leap"] - 0.1,
            1 / row["leap"] + 0.1,
        )
    assert draw_png(spec).startswith(b"\x89PNG")


def test_a_deep_model_has_a_panel_per_layer_and_the_median_of_all():
    deep = [{**record, "r2": record["r2"] + record["layer"]} for record in records(26)]
    spec = chart_spec(decay_with_leap(deep, "r2", "decay", label="R²"))
    assert spec["facet"]["field"] == "line"
    medians = {(row["line"], row["leap"]): row["median"] for row in rows_of(spec) if "median" in row}
    assert len(medians) == 25 * 25
    assert medians[3, 2] == medians[20, 2] == median(0.5 + layer for layer in range(24))
    assert "grey: median of all panels" in spec["title"]["subtitle"]
    png = draw_png(spec)
    assert max(int.from_bytes(png[16:20], "big"), int.from_bytes(png[20:24], "big")) < 3000


def test_a_score_far_below_zero_is_cut_and_said_so():
    low = [*records(4), {"layer": 0, "leap": 4, "r2": -20.0}]
    spec = chart_spec(decay_with_leap(low, "r2", "decay", label="R²"))
    assert spec["layer"][1]["encoding"]["y"]["scale"]["domain"][0] == -1
    assert spec["title"]["subtitle"] == "cut at −1"


def test_alphas_are_coloured_by_powers_of_ten():
    alphas = [3e-5, 1e-3, 0.2, math.nan]
    cells = [{"layer": 0, "leap": leap, "alpha": alpha} for leap, alpha in enumerate(alphas, 1)]
    spec = chart_spec(pair_heatmap(cells, "alpha", "alpha", log=True))
    colour = next(
        layer["encoding"]["color"] for layer in spec["layer"] if "scale" in layer["encoding"].get("color", {})
    )
    assert (colour["scale"]["type"], colour["scale"]["domain"]) == ("log", [1e-5, 1.0])
    assert colour["legend"]["values"] == pytest.approx([1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1])
    cells = {row["leap"]: row for row in rows_of(spec)}
    assert [cells[leap]["text"] for leap in (1, 2, 3, 4)] == ["3e−5", "1e−3", "2e−1", "n/a"]
    assert [cells[leap]["dark"] for leap in (1, 2, 3)] == [False, False, True]
    assert draw_png(spec).startswith(b"\x89PNG")


def test_one_alpha_everywhere_is_drawn():
    cells = [{"layer": 0, "leap": leap, "alpha": 1e-3} for leap in (1, 2)]
    spec = chart_spec(pair_heatmap(cells, "alpha", "alpha", log=True))
    assert draw_png(spec).startswith(b"\x89PNG")
    assert {row["text"] for row in rows_of(spec)} == {"1e−3"}


@pytest.mark.parametrize("draw", [baseline_bars, dimension_quantiles])
def test_panels_of_a_deep_model_are_of_some_leaps(draw):
    quantiles = {f"q{place:02d}": 0.5 for place in (5, 25, 50, 75, 95)}
    spec = chart_spec(draw(records(26, predictor="operator", **quantiles)))
    leaps = {row["leap"] for row in rows_of(spec)}
    assert {1, 2, 3, 25} <= leaps
    assert len(leaps) <= 9
    assert f"{len(leaps)} of 25 leaps" in spec["title"]["subtitle"]
    few = chart_spec(draw(records(6, predictor="operator", **quantiles)))
    assert {row["leap"] for row in rows_of(few)} == {1, 2, 3, 4, 5}
    assert "leaps" not in few["title"].get("subtitle", "")


def test_curves_over_the_ranks_have_bands_where_intervals_are_known():
    curve = [
        {
            "layer": 0,
            "leap": 1,
            "rank": rank,
            "curve": "reduced rank",
            "r2": rank / 9,
            "r2_low": rank / 10,
            "r2_high": 1,
        }
        for rank in range(1, 9)
    ]
    spec = chart_spec(rank_curves(curve))
    assert next(layer["mark"]["type"] for layer in spec["spec"]["layer"]) == "area"
    assert {(row["low"], row["high"]) for row in rows_of(spec)} == {(rank / 10, 1) for rank in range(1, 9)}
    bare = [{key: value for key, value in record.items() if key not in ("r2_low", "r2_high")} for record in curve]
    assert next(layer["mark"]["type"] for layer in chart_spec(rank_curves(bare))["spec"]["layer"]) == "line"
