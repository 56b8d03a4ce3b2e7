"""What the report of a captured scenario says and draws."""

import math
from dataclasses import replace

import pytest
import torch

from src.report.charts import chart_spec, draw_png
from src.report.figures.capture import entropy_by_step, norms_by_message
from src.report.scenarios.capture import (
    capture_figures,
    capture_metrics,
    capture_text,
    reference_table,
    run_table,
    summarise,
    transcript_tables,
)
from src.report.scenarios.notes import note_lines
from src.report.token_text import one_line
from tests.fixtures.scenario_runs import random_conversation, random_references


@pytest.fixture(scope="module")
def conversation():
    return replace(random_conversation("talk"), order=None)


@pytest.fixture(scope="module")
def summary(conversation):
    return summarise(conversation, 2_500_000)


def test_runs_are_told_with_their_replies(summary):
    table = run_table("small", [summary])
    assert table.title == "Runs of small"
    rows = [dict(zip(table.columns, row, strict=True)) for row in table.rows]
    assert [row["run"] for row in rows] == ["talk_msg1of2", "talk_msg2of2"]
    assert [row["tokens"] for row in rows] == [5, 9]
    assert [row["MB"] for row in rows] == [2.5, None]
    assert [row["generated text"] for row in rows] == ["so so so", "so so so"]
    assert [row["ended by"] for row in rows] == ["limit", "limit"]
    assert [row["mean entropy"] for row in rows] == [None, None]  # one of its steps is not finite


def test_norms_are_those_of_the_states(conversation, summary):
    assert summary.position == "end"
    states = conversation.snapshot_rows.get("resid_post")
    ends = [row for row, shot in enumerate(conversation.snapshots) if shot.position == "end"]
    expected = {
        (layer, place): float(states[layer, row].square().sum().sqrt())
        for layer in range(3)
        for place, row in enumerate(ends)
    }
    found = {}
    messages = list(dict.fromkeys(record["message"] for record in summary.norms))
    assert messages == ["0 system", "1 user", "reply after 1", "reply after 2"]
    for record in summary.norms:
        found[record["layer"], messages.index(record["message"])] = record["norm"]
    assert found == pytest.approx(expected)


def test_transcripts_hold_every_message_and_no_shuffled_conversation(conversation, summary):
    shuffled = summarise(random_conversation("turned"), 0)
    (table,) = transcript_tables([summary, shuffled])
    assert table.title == "Transcript of talk"
    assert [row[3] for row in table.rows] == [message.content for message in conversation.messages]
    assert [row[2] for row in table.rows] == ["", "sad", "", ""]
    text = capture_text("small", "tiny", [summary, shuffled], ["talk: a note"])
    assert text.startswith(
        "tiny has read 1 conversation of small, 1 time with shuffled turns too, and gone on 4 times."
    )
    assert text.endswith("\n\ntalk: a note")


def test_references_are_told_by_label():
    table = reference_table(random_references())
    assert table is not None
    assert [list(row) for row in table.rows] == [
        ["sad", "", 2, "2 to 4", "i am </script> sad"],
        ["plain", "neutral", 1, "3", "a table"],
    ]
    assert reference_table(None) is None


def test_figures_are_drawn_with_gaps_where_values_are_not_finite(summary):
    figures = capture_figures([summary])
    assert [figure.name for figure in figures] == ["entropy", "norms-0"]
    for figure in figures:
        assert len(draw_png(chart_spec(figure.chart))) > 5000
    values = chart_spec(figures[0].chart)["data"]["values"]
    assert [value["entropy"] for value in values] == [1.25, 1.25, None] * 2
    assert values[0]["probability"] == pytest.approx(math.exp(-0.5))
    assert capture_metrics([summary])["generated_tokens"] == 6


def test_a_conversation_without_snapshots_or_runs_has_no_empty_charts(conversation):
    bare = replace(conversation, snapshots=[], snapshot_rows=conversation.snapshot_rows.take([]))
    assert [figure.name for figure in capture_figures([summarise(bare, 0)])] == ["entropy"]
    read_only = replace(
        conversation, generations=[], messages=conversation.messages[:2], snapshots=conversation.snapshots[:4]
    )
    assert [figure.name for figure in capture_figures([summarise(read_only, 0)])] == ["norms-0"]


def test_many_runs_and_layers_still_make_a_chart():
    steps = [
        {"run": f"r{run}", "step": step, "entropy": 1.0, "token": "x", "probability": 0.5}
        for run in range(12)
        for step in range(3)
    ]
    norms = [
        {"layer": layer, "message": f"{m} user", "text": "x", "norm": 1.0 + layer}
        for layer in range(40)
        for m in range(20)
    ]
    for chart in (entropy_by_step(steps, "a"), norms_by_message(norms, "b")):
        assert len(draw_png(chart_spec(chart))) > 5000


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("two\nlines", r"two\nlines"),
        ("\x1b[2J\u202egone", r"\x1b[2J\u202egone"),
        ("日本 naïve", "日本 naïve"),
        ("[red]<b>", "[red]<b>"),
        ("a" * 30, "a" * 19 + "…"),
        ("a" * 20, "a" * 20),
        ("", ""),
    ],
)
def test_a_text_is_shown_on_one_line_without_what_could_move_a_cursor(text, shown):
    assert one_line(text, 20) == shown


def test_notes_become_one_line_for_all_conversations_that_share_them():
    notes = {
        "left_out": ["the template refuses messages 0..0 alone (no user)"],
        "not_finite": {"snapshots": {"resid_post": {"1": 3, "2": 1200}}},
        "kept_in_float32": {"snapshots": ["mlp_act"]},
        "not_offered": {"mlp_gate": "there is no gate", "mlp_up": "there are experts"},
        "repetition_penalty": 1.2,
    }
    lines = note_lines({name: notes for name in ("a", "b", "c", "d")} | {"e": {}})
    assert lines == [
        "a, b, c and 1 more: snapshots left out: the template refuses messages 0..0 alone (no user)",
        "a, b, c and 1 more: values that are not finite, snapshots: resid_post at layer 1 (3), 2 (1,200)",
        "a, b, c and 1 more: too large for capture.store_dtype, so kept in float32, snapshots: mlp_act",
        "a, b, c and 1 more: the model does not offer mlp_gate: there is no gate",
        "a, b, c and 1 more: the model does not offer mlp_up: there are experts",
        "a, b, c and 1 more: repetition_penalty: 1.2",
    ]
    assert note_lines({"a": {"not_offered": {"mlp_gate": "there is no gate"}}}) == []  # the shape of other MLPs


def test_a_note_that_quotes_a_message_moves_no_cursor():
    assert note_lines({"a": {"left_out": ["no \x1b[2J\n"]}}) == [r"a: snapshots left out: no \x1b[2J\n"]


def test_norms_of_states_that_are_not_finite_are_gaps(conversation):
    rows = conversation.snapshot_rows
    arrays = dict(rows.arrays) | {"resid_post": torch.full_like(rows.arrays["resid_post"], torch.inf)}
    chart = capture_figures([summarise(replace(conversation, snapshot_rows=replace(rows, arrays=arrays)), 0)])[1].chart
    assert all(value["norm"] is None for value in chart_spec(chart)["data"]["values"])
    assert len(draw_png(chart_spec(chart))) > 1000
