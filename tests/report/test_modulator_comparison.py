"""What is said of a modulator beside its controls."""

import json

import pytest
import torch

from src.modulators.comparison import compare_losses
from src.report.charts import chart_spec
from src.report.modulators.comparison import comparison_finding, verdict

N_DOCUMENTS = 30
N_TOKENS = torch.full((N_DOCUMENTS,), 10.0, dtype=torch.float64)


def compared(modulator, n_trainings=1, **controls):
    """Runs that lie so many nats per token off the frozen model, give or take a little."""
    draws = torch.Generator().manual_seed(0)
    frozen = 10 * torch.rand(N_DOCUMENTS, generator=draws, dtype=torch.float64) + 20

    def run(shift):
        noise = torch.randn(n_trainings, N_DOCUMENTS, generator=draws, dtype=torch.float64)
        return frozen + 10 * shift + 0.05 * noise

    runs = {"modulator": run(modulator), **{name: run(shift) for name, shift in controls.items()}}
    return compare_losses(frozen, runs, dict.fromkeys(runs, 7), N_TOKENS)


@pytest.mark.parametrize(
    ("modulator", "controls", "said"),
    [
        (-0.1, {"zero": 0, "lora": -0.05}, "below every one of its 2 controls (zero and lora): it helps beyond"),
        (
            -0.1,
            {"zero": 0, "lora": -0.1},
            "below 1 of its 2 controls (zero) and can't be told from lora: it helps",
        ),
        (
            -0.1,
            {"zero": 0, "lora": -0.2},
            "below 1 of its 2 controls (zero) and is above lora: it helps, but",
        ),
        (
            -0.1,
            {"zero": -0.1},
            "below none of its controls and can't be told from zero: it helps, but is not shown to help beyond what",
        ),
        (-0.1, {"zero": -0.2}, "below none of its controls and is above zero: it helps less than what is simpler"),
        (0.1, {"zero": 0.2}, "below its only control (zero): but it does not help"),
        (0.0, {"zero": -0.1}, "below none of its controls and is above zero: it is not shown to help"),
        (0.0, {"zero": 0.1}, "below its only control (zero): but it is not shown to help"),
        (0.1, {"zero": -0.1}, "below none of its controls and is above zero: it does not help"),
        (-0.1, {}, "No control was trained, so that what it is due to is not known"),
    ],
)
def test_the_verdict_says_what_the_intervals_say(modulator, controls, said):
    assert said in verdict(compared(modulator, **controls))


def test_the_first_sentence_compares_with_the_frozen_model():
    below, above, same = (verdict(compared(shift, zero=0)) for shift in (-0.1, 0.1, 0))
    assert "on 300 tokens of 30 test documents, 0.10" in below
    assert "below the frozen model's" in below
    assert "above the frozen model's" in above
    assert "can't be told from the frozen model's" in same


def test_what_trained_vectors_leave_to_shuffled_is_said():
    found = compared(-0.1, shuffled=-0.1)
    assert "whether the beginning matters" in comparison_finding(found, "residual", True, []).text
    assert "whether each token's own vector matters" in comparison_finding(found, "residual", False, []).text
    assert "beginning" not in comparison_finding(found, "field", True, []).text


def test_a_control_that_is_only_another_draw_is_named():
    """With init=random, shuffled is the modulator from another seed: a difference to it claims nothing."""
    found = compared(-0.1, zero=0, shuffled=-0.1)
    said = comparison_finding(found, "residual", False, [], init="random").text
    assert "shuffled is another draw of the same beginning" in said
    assert "another draw" not in comparison_finding(found, "residual", False, [], init="lexicon").text
    assert "another draw" not in comparison_finding(found, "field", True, [], init="random").text


def test_what_intervals_are_over_is_said():
    one, three = (comparison_finding(compared(-0.1, n, zero=0), "field", True, []) for n in (1, 3))
    assert "these very trainings" in one.text
    assert "over 3 trainings of each" in three.text
    assert "documents and trainings" in three.tables[0].caption


def test_tables_figures_and_files_hold_the_same_numbers():
    found = compared(-0.1, 2, zero=0, lora=-0.3)
    finding = comparison_finding(found, "residual", True, [{"run": "frozen"}], "synset")
    losses, paired = finding.tables
    assert [row[0] for row in losses.rows] == ["frozen", "modulator", "zero", "lora"]
    zero = found.controls[0].modulator_less
    assert zero is not None
    assert paired.rows[0][1] == {"value": zero.value, "low": zero.low, "high": zero.high}
    assert [row[3] for row in paired.rows] == ["better", "worse"]
    assert finding.metrics["zero/modulator_less"] == zero.value
    stored = json.loads(json.dumps(finding.files["comparison.json"]))
    assert stored["runs"][1]["modulator_less"]["value"] == zero.value
    gains, beyond = finding.figures
    shown = json.dumps(chart_spec(gains.chart)), json.dumps(chart_spec(beyond.chart))
    assert all(str(value) in shown[0] for value in found.modulator.each)
    assert str(zero.low) in shown[1]
    assert "synsets" in losses.caption


def test_one_document_has_no_intervals_and_no_claim():
    one = torch.tensor([12.0], dtype=torch.float64)
    found = compare_losses(one, {"modulator": one[None] - 1, "zero": one[None]}, {"modulator": 1, "zero": 1}, one / 4)
    finding = comparison_finding(found, "residual", True, [])
    assert "one document: no interval" in finding.text
    assert "below none" in finding.text
    assert finding.tables[1].rows[0][2] is None
