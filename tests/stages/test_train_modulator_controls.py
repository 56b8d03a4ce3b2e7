"""train_modulator.py: controls, and what is said of the modulator beside them; on tiny models, as a user runs it."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

import train_modulator
from src.artifacts import list_artifacts
from src.config.modulators.train import TrainModulatorConfig
from src.modulators.saving import load_modulator
from src.stage.entry import compose, run_stage
from tests.fixtures.tiny_project import make_project

ALL = ("zero", "random", "shuffled", "constant", "shrink", "lora")
SHORT = ("training.steps=4", "training.batch_size=4", "training.evaluate_every=4", "training.record_every=4")
SHORT = (*SHORT, "modulator.init=random", "modulator.residual.width=4", "modulator.field.width=4", "threads=1")


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch):
    monkeypatch.setattr("src.report.charts.draw_png", lambda spec: b"\x89PNG\r\n\x1a\n" + bytes(16))


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    return make_project(tmp_path_factory.mktemp("texts"), n_documents=60).folder


def train(project: Path, artifacts: Path, *overrides: str):
    """The comparison that a command ends with."""
    dataset = [f"dataset.dataset_name={project}/text.jsonl", "dataset.dataset_split=null"]
    words = [f"model.path={project}/model", "model.name=tiny", *dataset, f"artifacts_dir={artifacts}", *SHORT]
    everything = [*words, *overrides]
    config = compose("train_modulator", everything)
    run_stage(train_modulator.run, TrainModulatorConfig, "train_modulator", config, everything)
    return list_artifacts(artifacts, "modulator_comparison")[-1]


@pytest.mark.parametrize("kind", ["residual", "field"])
def test_every_control_is_trained_and_compared(project, tmp_path, kind, capsys):
    found = train(project, tmp_path, f"modulator={kind}", f"controls=[{','.join(ALL)}]")
    comparison = json.loads((found.path / "comparison.json").read_text())
    assert [run["name"] for run in comparison["runs"]] == ["modulator", *ALL]
    shown = capsys.readouterr().out
    assert all(name in shown for name in ALL)
    assert "of its controls" in shown or "of its 6 controls" in shown
    kinds = {type(load_modulator(artifact.path)).__name__ for artifact in list_artifacts(tmp_path, "modulator")}
    residual = {"ResidualModulator", "ConstantTarget", "TokenScaling", "LoraAdapters"}
    field = {"FieldModulator", "ConstantGates", "RandomFeatureGates", "ShuffledField", "ActiveScaling", "LoraAdapters"}
    assert kinds == (field if kind == "field" else residual)
    modulator, lora = comparison["runs"][0], comparison["runs"][-1]
    assert lora["n_trained"] == pytest.approx(modulator["n_trained"], rel=0.1)


def test_differences_are_of_the_same_documents_and_seeds(project, tmp_path):
    found = train(project, tmp_path, "controls=[zero]", "repeats=2")
    comparison = json.loads((found.path / "comparison.json").read_text())
    rows = pq.read_table(found.path / "test_losses.parquet").to_pylist()
    sums = {
        (run, repeat): np.array([row["nll_sum"] for row in rows if (row["run"], row["repeat"]) == (run, repeat)])
        for run, repeat in [("frozen", 0), *((run, repeat) for run in ("modulator", "zero") for repeat in (0, 1))]
    }
    n_tokens = sum(row["n_tokens"] for row in rows if row["run"] == "frozen")
    assert comparison["n_tokens"] == n_tokens
    assert comparison["n_trainings"] == 2
    modulator, zero = comparison["runs"]
    expected = np.mean([sums["modulator", seed].sum() - sums["zero", seed].sum() for seed in (0, 1)]) / n_tokens
    assert zero["modulator_less"]["value"] == pytest.approx(expected)
    each = [(sums["modulator", seed].sum() - sums["frozen", 0].sum()) / n_tokens for seed in (0, 1)]
    assert modulator["each"] == pytest.approx(each)
    assert each[0] != each[1]


def test_a_repeat_of_another_seed_is_another_run(project, tmp_path, capsys):
    """The seed decides what is in which share too: a reused repeat would be judged on documents it was trained on."""
    train(project, tmp_path, "controls=[]", "repeats=3", "seed=41")
    train(project, tmp_path, "controls=[]", "repeats=2", "seed=42")
    assert "modulator/" not in "".join(line for line in capsys.readouterr().out.splitlines() if "reused" in line)
    runs = list_artifacts(tmp_path, "modulator")
    assert len(runs) == 5
    # checkpoints lie in a folder named by the fingerprint, whatever the label is
    assert len({artifact.meta.fingerprint for artifact in runs}) == 5


def test_the_frozen_models_loss_is_what_the_model_has_after_all_controls(project, tmp_path):
    """Whatever was attached is gone: LoRA's layers too."""
    found = train(project, tmp_path, "controls=[lora,shrink]")
    comparison = json.loads((found.path / "comparison.json").read_text())
    again = train(project, tmp_path / "again", "controls=[]")
    alone = json.loads((again.path / "comparison.json").read_text())
    assert comparison["frozen"] == alone["frozen"]
    assert comparison["runs"][0]["nll"] == alone["runs"][0]["nll"]
    assert "No control was trained" in json.loads((again.path / "report.json").read_text())["text"]
