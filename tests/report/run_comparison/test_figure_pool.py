"""Charts that share numbers and specifications."""

import altair as alt
import numpy as np
import pytest

from src.report.charts import chart_spec
from src.report.cube import Cube
from src.report.figure_pool import FigurePool
from src.report.figures.grid import grid
from src.report.figures.layer_lines import layer_lines, message_lines, null_band
from src.report.figures.theme import data, themed

CUBE = Cube(
    {"source": ["resid_pre", "mlp_out"], "layer": [3, 5, 9]},
    {"cosine": np.array([[0.5, -0.25, np.nan], [1.0, 2 / 3, 1e-9]]), "mae": np.arange(6.0).reshape(2, 3)},
    {"source": {"colour": ["red", "blue"]}},
)


def test_records_are_the_cells_of_a_slice():
    assert CUBE.records({"source": 0}, {"value": "cosine"}) == [
        {"source": "resid_pre", "colour": "red", "layer": 3, "value": 0.5},
        {"source": "resid_pre", "colour": "red", "layer": 5, "value": -0.25},
        {"source": "resid_pre", "colour": "red", "layer": 9, "value": None},
    ]
    assert len(CUBE.records()) == 6
    assert CUBE.records()[-1]["mae"] == 5.0


def test_compact_numbers_lie_in_the_order_of_the_dimensions():
    compact = CUBE.compact()
    assert compact["values"]["cosine"] == [0.5, -0.25, None, 1, 0.66667, 1e-9]
    assert compact["dims"] == [["source", ["resid_pre", "mlp_out"]], ["layer", [3, 5, 9]]]


def test_a_cube_of_another_shape_is_refused():
    with pytest.raises(ValueError, match="mae has shape"):
        Cube({"layer": [0, 1]}, {"mae": np.zeros(3)})


def test_charts_of_one_kind_share_specification_and_numbers():
    pool = FigurePool()
    for place in range(2):
        for name in ("cosine", "mae"):
            pool.place(layer_lines, CUBE, "t", fields={"value": name}, at={"source": place}, label=name, series=["a"])
    found = pool.json()
    assert (len(found["specs"]), len(found["cubes"]), len(found["figures"])) == (2, 1, 4)
    assert found["figures"][3] == {"spec": 1, "cube": 0, "fields": {"value": "mae"}, "at": {"source": 1}}
    assert "config" not in found["specs"][0]


@pytest.mark.parametrize(
    ("chart", "options"),
    [
        (layer_lines, {"label": "cosine", "series": ["a", "b"], "band": True}),
        (message_lines, {"label": "cosine", "series": [str(i) for i in range(20)]}),
        (null_band, {"label": "share", "middle": True}),
        (grid, {"row": "label", "column": "message", "label": "cosine", "diverging": True}),
        (grid, {"row": "label", "column": "message", "label": "MAE", "reverse": True, "numbers": False}),
    ],
)
def test_the_specification_does_not_depend_on_the_records(chart, options):
    """What the pool takes for granted: a chart of real records is the chart of none with the records put in."""
    names = ("layer", "source", "label", "message", "preview", "low", "high", "null", "null_low", "null_high", "value")
    records = [dict.fromkeys(names, number) for number in (1.0, 2.0)]
    empty, full = chart_spec(chart([], "", **options)), chart_spec(chart(records, "", **options))
    assert (empty.pop("data"), full.pop("data")) == ({"values": []}, {"values": records})
    assert str(empty) == str(full)


def test_lines_are_straight_layers_whole_and_the_scale_the_datas_own():
    spec = str(chart_spec(layer_lines([], "", label="cosine", series=["a"])))
    assert "'interpolate': 'linear'" in spec
    assert "'tickMinStep': 1" in spec
    assert "monotone" not in spec
    assert "'domain': [0, 1]" not in spec


def test_a_chart_with_data_of_its_own_is_refused():
    def chart(records, title):
        return themed(alt.Chart(data([{"x": 1}])).mark_point().encode(x="x:Q"), title)

    with pytest.raises(ValueError, match="the records alone"):
        FigurePool().place(chart, CUBE, "t", fields={"value": "mae"})
