import json
import math

import pytest

from src.report.finding import Finding, joined, write_finding
from src.report.findings import lead, span
from src.report.tables import Table


def test_a_span_names_where_its_ends_are():
    assert span({"L0_k1": 0.5, "L0_k2": math.nan, "L1_k1": 0.25}) == "0.25 (L1_k1) to 0.5 (L0_k1)"
    assert span({"L0_k1": 0.5}) == "0.5 (L0_k1)"
    assert span({"L0_k1": 0.0, "L0_k2": 0.0}) == "0 (all 2)"
    assert span({"L0_k1": math.nan}) == "unknown"


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("R² is 0.5 (L0_k1), to 0.75. More.", "R² is 0.5 (L0_k1), to 0.75."),
        ("No cloud has a loop (resid_post.5 neither). 3 more.", "No cloud has a loop (resid_post.5 neither)."),
        ("A heading\n\nAnd a paragraph.", "A heading"),
        ("", ""),
    ],
)
def test_the_lead_is_the_first_sentence(text, first):
    assert lead(text) == first


def test_a_lead_without_end_is_cut_at_a_word():
    found = lead("word " * 200)
    assert len(found) < 270
    assert found.endswith("word …")


def test_a_number_that_is_undefined_costs_nobody_the_others(tmp_path):
    """Weights narrower than the subspace that is compared have an overlap without spread, whose z is NaN."""
    values = {"overlaps": [{"mean": 1.0, "z": math.nan}], "range": (math.inf, 2), "name": "nan"}
    write_finding(tmp_path, Finding("text", files={"weights.json": values}))
    written = json.loads((tmp_path / "weights.json").read_text())
    assert written == {"overlaps": [{"mean": 1.0, "z": None}], "range": [None, 2], "name": "nan"}


def test_joined_findings_keep_everything_in_order():
    first = Finding("One.", records={"a": [{"x": 1}]}, files={"a.json": 1}, metrics={"m": 1.0})
    second = Finding("", files={"b.json": 2}, metrics={"n": 2.0})
    third = Finding("Three.", tables=[Table("t", ["x"], [[1]])])
    whole = joined([first, second, third])
    assert whole.text == "One.\n\nThree."
    assert [table.title for table in whole.tables] == ["t"]
    assert (dict(whole.records), dict(whole.files)) == ({"a": [{"x": 1}]}, {"a.json": 1, "b.json": 2})
    assert dict(whole.metrics) == {"m": 1.0, "n": 2.0}
