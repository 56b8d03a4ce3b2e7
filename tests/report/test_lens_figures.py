"""Figures of a run's analyses: hostile tokens are text, gaps stay gaps, long runs are cut and say so."""

import math

import pytest
import torch

from src.report.charts import chart_spec, draw_png
from src.report.figures.run_analysis import cell_map, layer_panels, neuron_lines, part_bars, state_paths
from src.report.lenses.attention import AttentionView, attention_finding
from src.report.lenses.logit_lens import LOGIT, TRANSPORT, LensView, lens_finding
from src.report.lenses.rows import MOST_DRAWN
from src.report.token_text import visible
from src.scenarios.lenses.items import Items
from src.scenarios.lenses.logit_lens import read_lens
from src.scenarios.states import Rows

HOSTILE = "</script><script>alert(1)</script>"


def rows_of(spec):
    """The records of all charts of a specification."""
    if isinstance(spec, list):
        return [row for part in spec for row in rows_of(part)]
    if not isinstance(spec, dict):
        return []
    own = spec["data"].get("values", []) if isinstance(spec.get("data"), dict) else []
    return own + [row for key, part in spec.items() if key != "data" for row in rows_of(part)]


def values(spec, key):
    return [row[key] for row in rows_of(spec) if key in row]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (" the", "·the"),
        ("\n\t", "↵⇥"),
        ("\x1b[31m", "⟨001B⟩[31m"),
        ("\u202egnp", "⟨202E⟩gnp"),
        ("a\u00a0b\u2028", "a⟨00A0⟩b⟨2028⟩"),
        ("日本 é", "日本·é"),
        ("", ""),
    ],
)
def test_what_can_not_be_seen_is_shown(text, shown):
    assert visible(text) == shown


def test_long_tokens_end_in_an_ellipsis():
    assert visible("abcdef", 6) == "abcdef"
    assert visible("abcdefg", 6) == "abcde…"


def view(n_rows, lens=LOGIT, kind="steps"):
    states = torch.randn(2, n_rows, 3, generator=torch.Generator().manual_seed(0))
    readings = read_lens(lambda x: x, states, states[-1], states[-1].argmax(-1), 2)
    items = Items(kind, Rows((0, 1), {}), [*range(n_rows)], [*range(n_rows)], [HOSTILE] * n_rows, [1] * n_rows)
    ids = states[-1].argmax(-1).tolist()
    return LensView(lens, items, [0, 1], readings, ids, ids)


STRINGS = {0: " a", 1: HOSTILE, 2: "\n"}


def test_a_long_run_is_cut_in_the_figure_alone():
    found = lens_finding([view(MOST_DRAWN + 6)], STRINGS, "tiny", None, None)
    spec = chart_spec(found.figures[0].chart)
    assert len(set(values(spec, "column"))) == MOST_DRAWN
    assert f"the first {MOST_DRAWN} of {MOST_DRAWN + 6} steps" in spec["title"]["subtitle"]
    assert len(found.records["logit_lens_rows"]) == 2 * (MOST_DRAWN + 6)


def test_the_lens_figure_says_the_likeliest_token_and_whether_it_is_the_target():
    found = lens_finding([view(5)], STRINGS, "tiny", "answer", 1e-5)
    spec = chart_spec(found.figures[0].chart)
    last = [row for row in rows_of(spec) if row["layer"] == 1]
    assert [row["hit"] for row in last] == [True] * 5
    assert {row["text"] for row in last} <= {"·a", "</script…", "↵"}
    assert "stored logits to 1.0e-05" in found.text
    draw_png(spec)


def test_both_lenses_are_set_side_by_side():
    found = lens_finding([view(5), view(5, TRANSPORT)], STRINGS, "tiny", None, None)
    assert "the lower mean KL(final || layer) at 0 of 1 layers" in found.text
    assert [figure.name for figure in found.figures] == ["logit_lens_steps", "transport_lens_steps", "lens_by_layer"]


def test_infinite_divergences_are_null_in_json_and_gaps_in_figures():
    one = view(3)
    one.readings.kl_layer_final[0, 0] = math.inf
    one.readings.top_logprobs[1, 0] = math.nan
    found = lens_finding([one], STRINGS, "tiny", None, None)
    assert found.files["logit_lens.json"]["frames"][0]["kl_from_final"] is None
    assert found.files["logit_lens.json"]["frames"][3]["argmax_logprob"] is None
    means = rows_of(chart_spec(found.figures[-1].chart))
    assert next(row for row in means if row["measure"].startswith("KL(layer") and row["layer"] == 0)["value"] is None


def test_all_other_figures_draw_hostile_names_and_gaps():
    neurons = [
        {"over": "step", "place": place, "name": f"{place} {HOSTILE}", "neuron": "layer 0, 1", "value": value}
        for place, value in enumerate([1.0, math.nan, 2.0])
    ]
    path = [
        {"panel": HOSTILE, "path": HOSTILE, "order": place, "name": HOSTILE, "about": "", "x": place, "y": 0.0}
        for place in range(3)
    ]
    lines = [
        {"measure": "m", "series": HOSTILE, "layer": layer, "value": value} for layer, value in ((0, 1.0), (3, None))
    ]
    bars = [{"part": HOSTILE, "kind": "k", "value": -1.0, "row": row} for row in (None, HOSTILE)]
    cells = [{"row": "a", "column": HOSTILE, "value": value} for value in (0.5, None)]
    for chart in (
        neuron_lines(neurons, "t"),
        state_paths(path, "t", along="layer"),
        layer_panels(lines, "t"),
        part_bars(bars, "t", label="l"),
        cell_map(cells, "t", rows="r", columns="c", label="l", diverging=True),
    ):
        draw_png(chart_spec(chart))
    assert values(chart_spec(neuron_lines(neurons, "t")), "value") == [1.0, None, 2.0]
    scale = chart_spec(cell_map(cells, "t", rows="r", columns="c", label="l", diverging=True))
    assert scale["layer"][0]["encoding"]["color"]["scale"]["domain"] == [-0.5, 0.5]


def test_the_attention_table_keeps_the_last_messages_and_says_what_it_leaves_out():
    places = ["first token", *(f"message {k}" for k in range(20))]
    shares = torch.full((1, 2, 1, 21), 1 / 21)
    rows = Items("steps", Rows((0,), {}), [0, 1], [0, 1], ["a", "b"], [20, 20])
    ones = torch.ones(1, 2, 1)
    view = AttentionView(rows, [0], torch.full((1, 2), 21), ones, ones, places, shares, torch.full((2, 21), 1 / 21))
    table = attention_finding([view], None).tables[0]
    assert [row[1] for row in table.rows] == [*places[:2], *places[-10:]]
    assert "9 in the middle" in table.caption
