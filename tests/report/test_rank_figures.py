import math

import pytest

from src.report.charts import chart_spec, draw_png
from src.report.figures.rank import correlation_spectrum, efficiency_curves, rank_curves, shown_ranks


def rows_of(spec):
    return [row for rows in spec.get("datasets", {}).values() for row in rows] or spec["data"]["values"]


def y_domains(spec):
    return {
        tuple(layer["encoding"]["y"]["scale"]["domain"]) for layer in spec["spec"]["layer"] if "y" in layer["encoding"]
    }


def curve(name, values, layer=5, leap=1, field="r2", **fields):
    return [
        {"layer": layer, "leap": leap, "rank": rank, "curve": name, field: value, **fields}
        for rank, value in enumerate(values, 1)
    ]


def assert_drawn(spec):
    png = draw_png(spec)
    assert png.startswith(b"\x89PNG")
    assert int.from_bytes(png[16:20], "big") > 400


@pytest.mark.parametrize("d", [1, 2, 40, 768, 2304])
def test_shown_ranks_have_both_ends_and_are_few(d):
    ranks = shown_ranks(d)
    assert (ranks[0], ranks[-1]) == (1, d)
    assert ranks == sorted(set(ranks))
    assert len(ranks) <= 72
    assert set(range(1, min(d, 8) + 1)) <= set(ranks)


def test_curves_of_a_pair_share_a_panel_and_ceilings_are_dashed():
    records = [
        *(record for leap in (2, 1) for record in curve("reduced rank", [0.1, 0.4], leap=leap)),
        *(record for leap in (2, 1) for record in curve("ceiling", [0.2, 0.5], leap=leap, is_ceiling=True)),
    ]
    spec = chart_spec(rank_curves(records))
    assert spec["facet"]["sort"] == ["L = 5, k = 1", "L = 5, k = 2"]
    assert {(row["pair"], row["curve"], row["rank"], row["score"]) for row in rows_of(spec)} == {
        (f"L = 5, k = {leap}", name, rank, score)
        for leap in (1, 2)
        for name, scores in (("reduced rank", [0.1, 0.4]), ("ceiling", [0.2, 0.5]))
        for rank, score in enumerate(scores, 1)
    }
    dashes = spec["spec"]["layer"][0]["encoding"]["strokeDash"]["scale"]
    by_name = dict(zip(dashes["domain"], dashes["range"], strict=True))
    assert by_name["reduced rank"] == [1, 0]
    assert by_name["ceiling"] != [1, 0]
    assert_drawn(spec)


def test_a_fall_far_below_zero_does_not_flatten_the_other_curves():
    records = [*curve("reduced rank", [0.1, 0.4]), *curve("truncated SVD", [-7.0, 0.4])]
    spec = chart_spec(rank_curves(records, subtitle="raw metric"))
    ((low, high),) = y_domains(spec)
    assert high == 0.4
    assert -0.2 < low < 0
    assert spec["title"]["subtitle"] == "raw metric; drawn at the lower edge: values below −0.14"
    assert "subtitle" not in chart_spec(rank_curves(curve("reduced rank", [0.1, 0.4])))["title"]


def test_curves_that_are_all_below_zero_are_drawn():
    spec = chart_spec(rank_curves(curve("truncated SVD", [-0.5, -0.2])))
    assert y_domains(spec) == {(-0.5, 0.0)}
    assert_drawn(spec)


def test_efficiency_leaves_a_gap_where_it_is_no_number_and_is_bounded():
    records = curve("reduced rank", [math.nan, 0.5, 900.0], field="efficiency")
    spec = chart_spec(efficiency_curves(records))
    assert [row["score"] for row in rows_of(spec)] == [None, 0.5, 900.0]
    assert y_domains(spec) == {(0.0, 1.25)}
    assert "above 1.25" in spec["title"]["subtitle"]
    assert_drawn(spec)


def test_spectrum_carries_the_null_and_the_edge_when_they_are_known():
    pair = {"layer": 0, "leap": 2}
    records = [
        {**pair, "place": place, "kind": kind, "correlation": rho}
        for kind, values in (("in sample", [0.9, 0.3]), ("cross-fitted", [0.8, -0.1]))
        for place, rho in enumerate(values, 1)
    ]
    null = [{**pair, "place": place, "low": -0.2, "high": 0.1} for place in (1, 2)]
    bare = chart_spec(correlation_spectrum(records))
    assert [layer["mark"]["type"] for layer in bare["spec"]["layer"]] == ["line", "point"]
    assert y_domains(bare) == {(-0.1, 1.0)}
    spec = chart_spec(correlation_spectrum(records, null, [{**pair, "edge": 0.4}]))
    assert [layer["mark"]["type"] for layer in spec["spec"]["layer"]] == ["area", "rule", "line", "point"]
    assert y_domains(spec) == {(-0.2, 1.0)}
    assert [row["edge"] for row in rows_of(spec) if "edge" in row] == [0.4]
    assert "grey: shuffled documents" in spec["title"]["subtitle"]
    assert_drawn(spec)
