"""What is said of a training: where it began, ended and could have been, what a step costs, what it is set against."""

import math

import pytest

from src.modulators.training.cost import StepCost
from src.modulators.training.record import TrainingRecord
from src.report.charts import chart_spec, draw_png
from src.report.modulators.starts import curves_finding, starts_finding
from src.report.modulators.training import training_finding, training_summary

COST = StepCost(0.12, 0.1, 3 * 2**20, 2 * 2**20, False, 16, 128, 5)


def sigmoid(logit: float) -> float:
    return 1 / (1 + math.exp(-logit))


def record(moves=(0.0, 0.5, 0.9), vals=(1.0, 0.8, 0.9), n_steps=20, frozen=0.95, parts=1) -> TrainingRecord:
    """Logits begin at -2; at steps 0, 10, 20 reach is 0, 1, 1.5; layer 0 moves by `moves`, layer 1 by half of it."""
    history, trajectory = [], []
    for step, within, move, val in zip((0, 10, 20), (0.0, 1.0, 1.5), moves, vals, strict=True):
        loss = {} if step == 0 else {"loss": val + 0.05}
        history.append(
            {
                "step": step,
                "reach": within,
                "val": val,
                "log volume, k = 1": 0.0,
                "log volume, k = 2": -0.1 * step,
                **loss,
            }
        )
        for layer in range(2):
            for part in range(parts):
                logit = -2 + move / (1 + layer)
                ends = {"lowest": sigmoid(-2 - within), "highest": sigmoid(-2 + within)}
                trajectory.append({"step": step, "layer": layer, "part": part, "alpha": sigmoid(logit), **ends})
    best = history[vals.index(min(vals))]["step"]
    names = [f"k = {part}" for part in range(parts)] if parts > 1 else [""]
    return TrainingRecord("modulator", 123, n_steps, history, trajectory, names, best, frozen, COST)


def test_the_first_sentence_tells_the_loss_and_what_it_is_to_be_compared_with():
    text = training_finding(record()).text
    assert text.startswith(
        "Training of modulator took the loss on val examples from 1.0000 to 0.8000 nats per token, 0.1500 below the "
        "frozen model's 0.9500. It was lowest at step 10, whose state is kept."
    )
    assert "0.0500 above" in training_finding(record(frozen=0.75)).text
    assert "0.000040 above" in training_finding(record(frozen=0.79996)).text
    assert "nats per token, the same as the frozen model's 0.8000." in training_finding(record(frozen=0.8)).text
    assert "training stopped at step 20 of 50" in training_finding(record(n_steps=50)).text


def test_the_reach_stands_beside_the_alpha_that_was_kept():
    """BUG G-11: an alpha that went as far as its rates let it is no finding of the training."""
    text = training_finding(record()).text
    assert f"Alpha is {sigmoid(-1.75):.3g} to {sigmoid(-1.5):.3g} at step 10, and began at {sigmoid(-2):.3g}." in text
    assert f"could have carried it to {sigmoid(-3):.3g} or {sigmoid(-1):.3g}." in text
    assert "of their reach" not in text
    assert f"within reach {sigmoid(-3):.3g} to {sigmoid(-1):.3g}" in training_summary(record())
    spent = training_finding(record(moves=(0, -0.99, -1.4))).text
    assert "1 of 2 used more than 80% of their reach: they say where training stopped" in spent


def test_the_table_has_each_strength_and_plain_distances_to_the_notebooks_numbers():
    (table,) = training_finding(record()).details
    first, second = table.rows
    assert first[:5] == pytest.approx(["layer 0", *map(sigmoid, (-2, -1.5, -3, -1))])
    assert first[5] == pytest.approx((sigmoid(-1.5) - sigmoid(-2)) / (sigmoid(-1) - sigmoid(-2)))
    assert second[0] == "layer 1"
    assert first[6:] == pytest.approx([sigmoid(-1.5) - number for number in (0.29154, 0.5, 0.70846)])
    assert "no derivation" in table.caption
    (several,) = training_finding(record(parts=2)).details
    assert [row[0] for row in several.rows][:2] == ["layer 0, k = 0", "layer 0, k = 1"]


def test_time_and_memory_are_told_beside_the_bare_pass():
    found = training_finding(record())
    assert (
        "takes 1.20 times the CPU time of the frozen model's own (120 and 100 ms) and 1.50 times the memory"
        in found.text
    )
    assert found.files["training.json"]["cost"]["time_ratio"] == pytest.approx(1.2)
    assert found.metrics["modulator/less frozen on val"] == pytest.approx(-0.15)


def test_a_run_without_strengths_has_none_to_tell_of():
    whole = record()
    lora = TrainingRecord("lora", 9, 20, whole.history, [], [], 10, 0.95, COST)
    found = training_finding(lora)
    assert "lpha" not in found.text
    assert not found.details
    assert "strengths" not in found.records


def test_the_figure_has_losses_strengths_and_health():
    (named,) = training_finding(record()).figures
    spec = chart_spec(named.chart)
    titles = [
        {layer["encoding"]["y"].get("title") for layer in panel["layer"] if "y" in layer["encoding"]}
        for panel in spec["concat"]
    ]
    expected = ["val loss, nats per token", "batch loss, nats per token", "alpha", "log volume"]
    assert [title in drawn for title, drawn in zip(expected, titles, strict=True)] == [True] * 4
    several = chart_spec(training_finding(record(parts=2)).figures[0].chart)
    drawn = [layer["encoding"]["y"] for panel in several["concat"] for layer in panel["layer"]]
    assert [y["title"] for y in drawn if "scale" in y and "domain" in y["scale"]] == ["alpha, k = 0", "alpha, k = 1"]
    assert draw_png(spec).startswith(b"\x89PNG")


def training(start: float, end: float, val: float, reach: float = 3.0) -> dict:
    logit = math.log(start / (1 - start))

    def strengths(alpha, within):
        ends = {"lowest": sigmoid(logit - within), "highest": sigmoid(logit + within)}
        return [{"layer": layer, "part": 0, "alpha": alpha, **ends} for layer in range(2)]

    kept = strengths(end, reach)
    return {"strengths_at_start": strengths(start, 0), "strengths": kept, "val": val, "best_step": 5, "reach": reach}


def test_starts_that_meet_and_starts_that_do_not_are_told_apart():
    met = starts_finding([training(0.01, 0.1, 0.9, 5), training(0.3, 0.101, 0.91, 5)])
    assert met.text.startswith("Strengths from 2 starts (0.01, 0.3) meet: ")
    assert "depends on where it began" not in met.text
    apart = starts_finding([training(0.01, 0.0102, 0.9), training(0.3, 0.29, 0.95)])
    assert "(0.01, 0.3) do not meet: 3.68 of 3.75 logits between them are left" in apart.text
    assert "the lowest is that of the start at 0.01." in apart.text
    assert "Where alpha ends depends on where it began" in apart.text
    closer = starts_finding([training(0.01, 0.05, 0.9), training(0.3, 0.2, 0.95)])
    assert "come closer but do not meet" in closer.text
    # BUG G-11: too few steps to meet are no evidence that they would not
    spent = starts_finding([training(0.01, 0.0163, 0.9, 0.5), training(0.3, 0.21, 0.95, 0.5)])
    assert "2 of 2 are near the end of their reach, though" in spent.text
    fixed = starts_finding([training(0.01, 0.01, 0.9, 0), training(0.3, 0.3, 0.95, 0)])
    assert fixed.text.startswith("Strengths were held at 0.01, 0.3")


def test_val_curves_are_less_the_frozen_models():
    histories = {("modulator", 42): [{"step": 0, "val": 1.5}, {"step": 5, "loss": 1.0}, {"step": 10, "val": 0.9}]}
    (named,) = curves_finding(histories, frozen=1.0).figures
    spec = chart_spec(named.chart)
    assert [row["less_frozen"] for row in spec["data"]["values"]] == pytest.approx([-0.1, 0.5])


@pytest.mark.parametrize(("val", "scale"), [(1.004, None), (1.04, "symlog")])
def test_differences_of_val_losses_are_on_an_axis_with_numbers(val, scale):
    (named,) = curves_finding({("modulator", 42): [{"step": 0, "val": 1.0}, {"step": 5, "val": val}]}, 1.0).figures
    y = chart_spec(named.chart)["layer"][1]["encoding"]["y"]
    assert y["scale"].get("type") == scale
    assert scale is None or len(y["axis"]["values"]) > 2
    assert scale or "values" not in y["axis"]


def test_val_curves_of_one_run_have_one_colour_and_the_modulators_lie_on_top():
    runs = [(run, seed) for run in ("modulator", "zero") for seed in (42, 43)]
    histories = {run: [{"step": step, "val": 1.0} for step in (0, 10)] for run in runs}
    (named,) = curves_finding(histories, frozen=1.0).figures
    spec = chart_spec(named.chart)
    encoding = spec["layer"][1]["encoding"]
    assert encoding["color"]["scale"]["domain"] == ["modulator", "zero"]
    assert encoding["detail"]["field"] == "seed"
    assert [row["run"] for row in spec["data"]["values"]] == ["zero"] * 4 + ["modulator"] * 4
    assert draw_png(spec).startswith(b"\x89PNG")
