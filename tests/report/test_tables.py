import io
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter
from rich.console import Console

from src.report.tables import CellText, Link, Table, cell_text, format_number, numeric_columns
from src.report.terminal import print_table


@pytest.mark.parametrize(
    ("cell", "text"),
    [
        (1234567, "1,234,567"),
        (0.93517, "0.9352"),
        (-20.3331, "-20.33"),
        (45210.337, "45,210"),
        (0.01, "0.01"),
        (2.0, "2"),
        (0.0, "0"),
        (0.00001234567, "1.235e-5"),
        (3.1e12, "3.100e12"),
        (True, "yes"),
        (None, "–"),
        ("1e-3 as words", "1e-3 as words"),
        (math.nan, "NaN"),
        (-math.inf, "-∞"),
    ],
)
def test_cells_are_written_as_a_reader_expects(cell, text):
    assert cell_text(cell).text == text


@given(st.floats(min_value=-1e12, max_value=1e12, allow_nan=False))
def test_a_number_keeps_four_significant_digits(value):
    assert float(format_number(value).replace(",", "")) == pytest.approx(value, rel=5.001e-4, abs=1e-300)


def test_the_three_numbers_of_an_interval_have_the_same_decimals():
    shown = cell_text({"value": 0.93517, "low": 0.9, "high": 0.971234})
    assert (shown.text, shown.interval) == ("0.9352", "[0.9000, 0.9712]")


def test_counts_are_whole_numbers_also_where_the_report_was_read_back():
    cell = {"value": 1_200, "low": 3.0, "high": 1_300.25}
    table = TypeAdapter(Table).validate_json(json.dumps({"title": "", "columns": ["n"], "rows": [[cell]]}))
    for each in (cell, table.rows[0][0]):
        shown = cell_text(each)
        assert (shown.text, shown.interval) == ("1,200", "[3, 1,300.2]")


def test_a_narrow_interval_is_told_apart_from_its_value():
    shown = cell_text({"value": 0.999912, "low": 0.999901, "high": 0.999923})
    assert (shown.text, shown.interval) == ("0.999912", "[0.999901, 0.999923]")


def test_an_interval_without_ends_is_shown_as_such():
    shown = cell_text({"value": 0.5, "low": math.nan, "high": math.nan})
    assert (shown.text, shown.interval) == ("0.5", "[NaN, NaN]")


def test_columns_of_numbers_and_gaps_are_numeric_and_columns_with_words_are_not():
    table = Table("t", ["number", "mixed", "flag", "empty"], [[1, 1, True, None], [None, "a", False, None]])
    assert numeric_columns(table) == [True, False, False, False]


def test_a_row_of_the_wrong_length_is_refused():
    with pytest.raises(ValueError, match=r"'scores': 1 cells in a row of 2 columns"):
        Table("scores", ["L", "k"], [[1]])


def test_the_terminal_aligns_numbers_and_prints_markup_as_it_is():
    table = Table("Scores", ["prompt", "R2"], [["[red]hello[/red]", 0.5], ["[/b]", -12.25]], "from [1, 2]")
    output = io.StringIO()
    print_table(table, Console(file=output, width=80, color_system=None))
    lines = output.getvalue().splitlines()
    first, second = (next(line for line in lines if start in line) for start in ("[red]hello[/red]", "[/b]"))
    assert len(first.rstrip()) == len(second.rstrip())
    assert first.rstrip().endswith(" 0.5")
    assert second.rstrip().endswith("-12.25")
    assert "from [1, 2]" in lines


@pytest.mark.parametrize("width", [40, 80, 100, 400])
def test_no_terminal_is_too_narrow_for_a_number(width):
    """Where there is no room for it beside its number, an interval stands below."""
    estimate = {"value": 0.8243, "low": 0.8194, "high": 0.8291}
    columns = ["L", "k", "R2", "skill", "cosine", "shift vw", "identity vw", "mean vw", "note"]
    row = [11, 12, estimate, estimate, 0.9323, 0.8274, 0.7227, -0.0005767, "word " * 40]
    table = Table("Scores", columns, [row])
    output = io.StringIO()
    print_table(table, Console(file=output, width=width, color_system=None))
    header, _, first, *folded = output.getvalue().splitlines()[1:]
    assert header.split("  ")[0] == " L"
    assert all(name in header for name in columns)
    numbers, below = (line.partition("word")[0].split() for line in (first, folded[0]))
    interval = ["[0.8194,", "0.8291]"]
    beside = interval if width == 400 else []
    assert numbers == ["11", "12", *2 * ["0.8243", *beside], "0.9323", "0.8274", "0.7227", "-0.0005767"]
    assert below == ([] if width == 400 else 2 * interval)
    assert first.count("word") + sum(line.count("word") for line in folded) == 40
    assert len(folded) > 2


def test_a_link_is_shown_as_words_and_leads_nowhere_but_into_the_artifacts_folder():
    inside: Link = {"text": "#7", "href": "explanations/a-1/feature_cards_2.html#feature-7"}
    assert cell_text(inside) == CellText("#7", href=inside["href"])
    for href in ("https://x.y/z", "//x.y", "javascript:alert(1)", "../a", "a/../b", "/etc/a", "a b", ""):
        assert cell_text({"text": "#7", "href": href}) == CellText("#7")
    assert numeric_columns(Table("t", ["a"], [[inside], [3]])) == [False]
