import csv
import io
from dataclasses import replace

import pyarrow.csv
import pytest
import torch

from src.errors import StrataError
from src.scenarios.comparing.pair_metrics import pair_metrics
from src.scenarios.comparing.runs import ComparedRun, RunComparisons, between_runs, within_run
from src.scenarios.comparing.tables import SCHEMAS, run_tables
from src.scenarios.comparing.to_references import compare_with_references
from src.scenarios.states import References, ReferenceText, Rows, SpokenMessage
from tests.fixtures.planted_conversations import LAYERS, WIDTH, Planted, rows, talk

TINY = {"path": "tiny", "d_model": WIDTH}


def a_run(seed, messages=2, layers=range(LAYERS), width=WIDTH):
    states = torch.randn(LAYERS, messages, width, generator=torch.Generator().manual_seed(seed))[list(layers)]
    conversation = talk([SpokenMessage("user", f"message {i}") for i in range(messages)], states)
    steps = Rows(tuple(layers), {"resid_post": states})  # as many steps as there are messages
    return next(replace(conversation, generations=[replace(conversation.generations[0], rows=steps)]).runs())


def test_within_a_run_the_first_step_is_compared_with_the_last():
    run = a_run(0, messages=3)
    found = within_run(run)
    assert list(found) == ["resid_post"]
    states = run.steps("resid_post")
    expected = pair_metrics(run.layers, states[:, 0], states[:, 2])
    torch.testing.assert_close(found["resid_post"].cosine, expected.cosine)


def test_all_pairs_of_runs_at_both_states():
    runs = [ComparedRun(name, a_run(seed), TINY) for seed, name in enumerate("abc")]
    found = between_runs(runs)
    assert [(pair.state, pair.name) for pair in found.pairs] == [
        (state, name) for name in ("a vs b", "a vs c", "b vs c") for state in ("initial", "final")
    ]
    assert found.left_out == []
    last = found.pairs[-1]
    expected = pair_metrics((0, 1, 2), runs[1].run.final("resid_post"), runs[2].run.final("resid_post"))
    for name in ("cosine", "mae", "overlap"):
        torch.testing.assert_close(getattr(last.by_source["resid_post"], name), getattr(expected, name))


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({"path": None}, True),  # as an imported run's
        ({"path": None, "name": "other"}, False),
        ({"path": "moved", "weights": "abc"}, True),
        ({"weights": "def"}, False),
    ],
)
def test_models_are_told_apart_by_what_both_know(change, same):
    known = TINY | {"name": "tiny", "weights": "abc" if "weights" in change else None}
    found = between_runs([ComparedRun("a", a_run(0), known), ComparedRun("b", a_run(1), known | change)])
    assert bool(found.pairs) == same
    assert same or "different models" in found.left_out[0].reason


def test_runs_that_can_not_be_compared_are_left_out_with_a_reason():
    runs = [
        ComparedRun("a", a_run(0), TINY),
        ComparedRun("other model", a_run(1), TINY | {"path": "large"}),
        ComparedRun("some layers", a_run(2, layers=(1, 2)), TINY),
        ComparedRun("wide", a_run(3, width=30), TINY),
    ]
    found = between_runs(runs)
    assert {pair.name for pair in found.pairs} == {"a vs some layers"}
    assert found.pairs[0].by_source["resid_post"].layers == (1, 2)
    reasons = {(one.first, one.second): one.reason for one in found.left_out}
    assert "different models (path: tiny and large)" in reasons["a", "other model"]
    assert "only layers that both have are compared: 1, 2" in reasons["a", "some layers"]
    assert "different widths (24 and 30)" in reasons["a", "wide"]
    across = between_runs(runs[:2], across_models=True)
    assert [pair.name for pair in across.pairs] == ["a vs other model"] * 2


def test_tables_have_activation_labs_columns_even_when_empty():
    tables = run_tables([], RunComparisons([], []))
    assert {name: table.num_rows for name, table in tables.items()} == dict.fromkeys(SCHEMAS, 0)
    written = io.BytesIO()
    pyarrow.csv.write_csv(tables["comparison_report"], written)
    header = next(csv.reader([written.getvalue().decode()]))
    texts = ["generated_a", "generated_b", "prompt_a", "prompt_b"]
    assert header[:9] == ["state", "pair", "run_a", "run_b", *texts, "source"]
    assert len(header) == 9 + 14


def test_tables_have_a_row_for_each_run_source_and_layer():
    runs = [ComparedRun(name, a_run(seed), TINY) for seed, name in enumerate("ab")]
    tables = run_tables([(one, within_run(one.run)) for one in runs], between_runs(runs))
    assert {name: table.num_rows for name, table in tables.items()} == {
        "comparison_report": 2, "comparison_cosines": 2 * LAYERS,
        "intra_run_report": 2, "intra_run_cosines": 2 * LAYERS,
    }  # fmt: skip
    row = tables["intra_run_report"].to_pylist()[0]
    assert (row["run"], row["generated"], row["prompt"], row["source"]) == ("a", "x", "message 1", "hidden_out")
    cosine = within_run(runs[0].run)["resid_post"].cosine
    assert row["mean_cosine"] == round(float(cosine.mean()), 4)
    assert tables["intra_run_cosines"].column("cosine").to_pylist()[:LAYERS] == [round(v, 4) for v in cosine.tolist()]


def test_a_message_against_labels_of_one_and_of_several_texts():
    planted = Planted(0, labels=("joy", "fear"))
    run = next(planted.conversation(["joy", None]).runs())
    states = run.snapshots("resid_post", "end")
    texts = torch.cat([states[:, :1], -states[:, :1], states[:, 1:2]], 1)
    references = References(
        [
            ReferenceText("joy", 0, False, "", 1),
            ReferenceText("joy", 1, False, "", 1),
            ReferenceText("plain", 0, True, "", 1),
        ],
        {"end": rows(texts)},
    )
    found = compare_with_references(run, references, "end")
    assert (found.labels, found.neutral) == (["joy", "plain"], [False, True])
    assert found.roles == ["user", "user", "assistant"]
    cosine = found.over_texts["resid_post"].cosine
    assert cosine.shape == (LAYERS, 3, 2)
    torch.testing.assert_close(cosine[:, 0, 0], torch.zeros(LAYERS), atol=1e-6, rtol=0)  # of 1 and -1
    torch.testing.assert_close(cosine[:, 1, 1], torch.ones(LAYERS))
    # the mean state of a text and its negative is 0
    assert (found.to_mean["resid_post"].cosine[:, :, 0] == 0).all()
    by_role = found.of_role("user")["resid_post"]
    torch.testing.assert_close(by_role.mae, found.over_texts["resid_post"].mae[:, :2].mean(1))
    torch.testing.assert_close(found.over_layers("resid_post")["cosine"], cosine.mean(0))
    with pytest.raises(StrataError, match="no message of system"):
        found.of_role("system")


def test_nan_in_one_text_stays_with_its_label():
    planted = Planted(0)
    references = planted.references(2)
    references.rows["end"].arrays["resid_post"][1, 0, 0] = float("nan")
    cosine = compare_with_references(next(planted.conversation(["joy"]).runs()), references, "end").over_texts
    assert cosine["resid_post"].cosine.isnan().nonzero().tolist() == [[1, message, 0] for message in (0, 1)]


def test_a_position_that_was_not_captured_is_named():
    planted = Planted(0)
    with pytest.raises(StrataError, match="position 'answer' of the references was not captured"):
        compare_with_references(next(planted.conversation(["joy"]).runs()), planted.references(1), "answer")
