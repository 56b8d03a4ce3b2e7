import math

import pytest

from src.report.charts import chart_spec, draw_png
from src.report.figures.activations import keep_reasons
from src.report.figures.alpha_path import alpha_path
from src.report.figures.heatmap import pair_heatmap
from src.report.figures.transport import baseline_bars, bos_effect, dimension_quantiles


def rows_of(spec):
    """All inline rows of a specification."""
    sets = list(spec.get("datasets", {}).values())
    if "values" in spec.get("data", {}):
        sets.append(spec["data"]["values"])
    return [row for rows in sets for row in rows]


def encodings(spec):
    """The encodings of all layers, those inherited from the enclosing chart included."""
    inner = spec.get("spec", spec)
    shared = inner.get("encoding", {})
    return [{**shared, **layer.get("encoding", {})} for layer in inner["layer"]]


def pairs(num_layers, leaps):
    return [(layer, leap) for layer in range(num_layers) for leap in leaps if layer + leap <= num_layers]


def heatmap_records(num_layers, leaps, score=0.9):
    return [
        {"layer": layer, "leap": leap, "r2": score, "r2_low": score - 0.0123, "r2_high": score + 0.0123}
        for layer, leap in pairs(num_layers, leaps)
    ]


def png_size(png):
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    return int.from_bytes(png[16:20], "big"), int.from_bytes(png[20:24], "big")


def test_heat_map_cells_carry_number_interval_and_target():
    spec = chart_spec(pair_heatmap(heatmap_records(3, [1, 2]), "r2", "R2"))
    cells = {(row["layer"], row["leap"]): row for row in rows_of(spec)}
    assert set(cells) == set(pairs(3, [1, 2]))
    assert all(cell["target"] == layer + leap for (layer, leap), cell in cells.items())
    assert cells[0, 1]["text"] == "0.900"
    assert cells[0, 1]["small_text"] == "[0.888, 0.912]"
    assert cells[0, 1]["interval"] == "[0.8877, 0.9123]"
    shown = [encoding["text"]["field"] for encoding in encodings(spec) if "text" in encoding]
    assert shown == ["text", "small_text"]


@pytest.mark.parametrize(("num_layers", "has_text"), [(1, True), (12, True), (19, True), (26, False)])
def test_heat_map_drops_the_numbers_when_cells_get_too_small(num_layers, has_text):
    spec = chart_spec(pair_heatmap(heatmap_records(num_layers, range(1, num_layers + 1)), "r2", "R2"))
    assert any("text" in encoding for encoding in encodings(spec)) is has_text
    width, height = png_size(draw_png(spec))
    assert 200 < width < 2400
    assert 150 < height < 2000


def test_diverging_colours_are_centred_at_zero_and_bounded_by_one():
    records = [{"layer": 0, "leap": 1, "skill": 0.4}, {"layer": 0, "leap": 2, "skill": -30.0}]
    spec = chart_spec(pair_heatmap(records, "skill", "skill", diverging=True))
    scales = [encoding["color"]["scale"] for encoding in encodings(spec) if "scale" in encoding.get("color", {})]
    assert [(scale["domain"], scale["domainMid"]) for scale in scales] == [([-1.0, 1.0], 0)]
    assert encodings(spec)[0]["color"]["legend"]["values"] == [-1.0, -0.5, 0, 0.5, 1.0]
    mild = [{"layer": 0, "leap": 1, "skill": 0.36}, {"layer": 0, "leap": 2, "skill": -0.01}]
    assert encodings(chart_spec(pair_heatmap(mild, "skill", "skill", diverging=True)))[0]["color"]["scale"][
        "domain"
    ] == [-0.4, 0.4]


def test_a_skill_that_is_nowhere_negative_has_colours_from_zero():
    records = [{"layer": 0, "leap": 1, "skill": 0.33}, {"layer": 0, "leap": 2, "skill": 0.77}]
    colour = encodings(chart_spec(pair_heatmap(records, "skill", "skill", diverging=True)))[0]["color"]
    assert colour["scale"]["domain"] == [0.0, 0.8]
    assert "domainMid" not in colour["scale"]
    assert colour["legend"]["tickCount"] == 5


def test_negative_scores_stand_out_and_say_so():
    records = [*heatmap_records(2, [1]), {"layer": 5, "leap": 1, "r2": -3.0}]
    spec = chart_spec(pair_heatmap(records, "r2", "R2"))
    assert {"filter": "datum.score < 0"} in [step for layer in spec["layer"] for step in layer.get("transform", [])]
    assert "below 0" in spec["title"]["subtitle"]
    text = next(row["text"] for row in rows_of(spec) if row["layer"] == 5)
    assert text == "\N{MINUS SIGN}3.000"
    assert "subtitle" not in chart_spec(pair_heatmap(records[:-1], "r2", "R2"))["title"]


def test_a_score_that_is_not_a_number_is_shown_as_missing():
    records = [{"layer": 0, "leap": 1, "r2": math.nan}, {"layer": 1, "leap": 1, "r2": 0.5}]
    spec = chart_spec(pair_heatmap(records, "r2", "R2"))
    missing = next(row for row in rows_of(spec) if row["layer"] == 0)
    assert missing["score"] is None
    assert missing["text"] == "n/a"
    assert png_size(draw_png(spec))[0] > 100


def baseline_records(identity_score=0.5):
    scores = {"operator": 0.9, "identity": identity_score, "mean": 0.0}
    return [
        {"layer": layer, "leap": leap, "predictor": name, "r2": score, "r2_low": score - 0.1, "r2_high": score + 0.1}
        for layer, leap in pairs(4, [1, 2, 3])
        for name, score in scores.items()
    ]


def test_baselines_stand_side_by_side_in_one_panel_per_leap():
    spec = chart_spec(baseline_bars(baseline_records()))
    assert spec["facet"]["field"] == "leap"
    # a shared axis is drawn under places without a panel too
    assert spec["resolve"] == {"axis": {"x": "independent"}}
    bars, intervals = encodings(spec)[:2]
    assert (bars["x"]["field"], bars["xOffset"]["field"], bars["y"]["field"]) == ("layer", "group", "score")
    assert bars["color"]["scale"]["domain"] == ["operator", "identity", "mean"]
    assert (intervals["y"]["field"], intervals["y2"]["field"]) == ("low", "high")
    operator = [row for row in rows_of(spec) if row["group"] == "operator"]
    assert len(operator) == len(pairs(4, [1, 2, 3]))
    assert operator[0]["low"] == pytest.approx(0.8)


def test_one_terrible_baseline_does_not_flatten_the_others():
    spec = chart_spec(baseline_bars(baseline_records(identity_score=-40.0)))
    low, high = encodings(spec)[0]["y"]["scale"]["domain"]
    assert low == -1.0
    assert high == pytest.approx(1.0)
    assert "cut at" in spec["title"]["subtitle"]
    assert -40.0 in [row["score"] for row in rows_of(spec)]
    assert png_size(draw_png(spec))[0] > 300


def test_bos_effect_compares_the_two_choices_of_rows():
    records = [
        {"layer": 0, "leap": 1, "rows": rows, "r2": score} for rows, score in (("without BOS", 0.8), ("with BOS", 0.99))
    ]
    spec = chart_spec(bos_effect(records))
    assert encodings(spec)[0]["color"]["scale"]["domain"] == ["without BOS", "with BOS"]
    assert {row["group"]: row["score"] for row in rows_of(spec)} == {"without BOS": 0.8, "with BOS": 0.99}


def path_records(scores, chosen, leap=1):
    return [
        {"layer": 2, "leap": leap, "alpha": 10.0**index, "score": score, "folds": [score - 0.01, score + 0.01]}
        | {"chosen": index == chosen}
        for index, score in enumerate(scores)
    ]


@pytest.mark.parametrize(("chosen", "at_edge"), [(0, True), (1, False), (3, True)])
def test_a_chosen_alpha_at_the_edge_of_the_grid_is_marked_as_such(chosen, at_edge):
    spec = chart_spec(alpha_path(path_records([0.1, 0.2, 0.3, 0.4], chosen)))
    marked = [row for row in rows_of(spec) if row["choice"]]
    assert [row["alpha"] for row in marked] == [10.0**chosen]
    assert ("end of the grid" in marked[0]["choice"]) is at_edge
    curve = encodings(spec)[1]
    assert curve["x"]["scale"]["type"] == "log"
    assert png_size(draw_png(spec))[0] > 300


def test_a_grid_of_one_alpha_has_no_edge():
    spec = chart_spec(alpha_path(path_records([0.5], 0)))
    assert [row["choice"] for row in rows_of(spec)] == ["chosen alpha"]


def test_a_disastrous_alpha_does_not_hide_the_optimum():
    spec = chart_spec(alpha_path(path_records([-1e6, 0.8, 0.85, 0.7], 2)))
    low, high = encodings(spec)[1]["y"]["scale"]["domain"]
    assert -0.4 < low < -0.15
    assert 0.0 < high < 0.1
    assert "a zoom" in spec["title"]["subtitle"]


def test_pairs_far_apart_still_show_how_close_their_alphas_are():
    records = [*path_records([0.829, 0.830, 0.828, 0.5], 1), *path_records([0.329, 0.330, 0.331, 0.3], 2, leap=2)]
    spec = chart_spec(alpha_path(records))
    drawn = {(row["leap"], row["alpha"]): row for row in rows_of(spec)}
    assert [drawn[1, 10.0**index]["difference"] for index in range(4)] == pytest.approx([-0.001, 0, -0.002, -0.33])
    assert drawn[2, 100.0]["difference"] == 0
    # folds are compared with themselves: they all agree here
    assert (drawn[1, 1.0]["low"], drawn[1, 1.0]["high"]) == pytest.approx((-0.001, -0.001))
    curve = encodings(spec)[1]["y"]
    assert curve["field"] == "difference"
    # the deepest neighbour of a best alpha is that of leap 2, 0.031 below it
    assert -0.07 < curve["scale"]["domain"][0] < -0.062
    assert "a zoom" in spec["title"]["subtitle"]


def test_leaps_that_choose_the_same_alpha_show_as_rings():
    records = [*path_records([0.1, 0.3, 0.2], 1, leap=2), *path_records([0.1, 0.3, 0.2], 1)]
    marked = [row for row in rows_of(chart_spec(alpha_path(records))) if row["choice"]]
    assert [row["leap"] for row in marked] == [1, 2]
    assert marked[0]["size"] > marked[1]["size"]


def test_a_path_that_fits_is_not_called_a_zoom():
    spec = chart_spec(alpha_path(path_records([0.7, 0.8, 0.75], 1)))
    assert spec["title"]["subtitle"] == "difference to each pair's best alpha"


def test_differences_of_a_millionth_are_not_blown_up():
    spec = chart_spec(alpha_path(path_records([0.829999, 0.83, 0.829998, 0.5], 1)))
    low, high = encodings(spec)[1]["y"]["scale"]["domain"]
    assert high - low > 1e-3


@pytest.mark.parametrize(
    ("unit", "title"), [("tr(X'X)/d_model", "alpha, in units of tr(X'X)/d_model"), (None, "alpha (scikit-learn's)")]
)
def test_the_axis_of_alpha_tells_its_unit(unit, title):
    spec = chart_spec(alpha_path(path_records([0.1, 0.3, 0.2], 1), unit=unit))
    assert encodings(spec)[1]["x"]["title"] == title


def test_more_leaps_than_hues_become_shades():
    records = [
        {"layer": 0, "leap": leap, "alpha": alpha, "score": 0.5, "chosen": False}
        for leap in range(1, 20)
        for alpha in (0.1, 1.0)
    ]
    assert encodings(chart_spec(alpha_path(records)))[1]["color"]["scale"] == {"scheme": "viridis"}


def test_quantiles_become_boxes_and_whiskers():
    quantiles = {"q05": -0.2, "q25": 0.3, "q50": 0.5, "q75": 0.7, "q95": 0.9}
    spec = chart_spec(dimension_quantiles([{"layer": 1, "leap": 2, **quantiles}]))
    whisker, box, median = encodings(spec)
    assert (whisker["y"]["field"], whisker["y2"]["field"]) == ("q05", "q95")
    assert (box["y"]["field"], box["y2"]["field"]) == ("q25", "q75")
    assert median["y"]["field"] == "q50"
    assert "white line: the median" in spec["title"]["subtitle"]
    assert rows_of(spec) == [{"layer": 1, "leap": 2, "target": 3, **quantiles}]
    assert whisker["y"]["scale"]["domain"] == [-0.2, 0.9]


def test_keep_reasons_count_what_is_left_out():
    spec = chart_spec(keep_reasons([{"reason": "BOS", "tokens": 1500}, {"reason": "NaN", "tokens": 0}], 60_000))
    assert spec["title"]["subtitle"] == "1,500 of 60,000 tokens (2.50%) are left out"
    assert [(row["text"], row["share"]) for row in rows_of(spec)] == [("1,500", 0.025), ("0", 0.0)]
    assert png_size(draw_png(spec))[1] > 100
