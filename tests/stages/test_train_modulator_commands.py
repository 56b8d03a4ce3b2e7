"""train_modulator.py as a user calls it: the sweep, what is reused, what is refused, what a kill leaves."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import train_modulator
from src.artifacts import Artifact, list_artifacts, verify
from src.config.modulators.train import TrainModulatorConfig
from src.errors import NotApplicableError, StrataError
from src.modulators.field import FieldModulator
from src.modulators.residual import ResidualModulator
from src.modulators.saving import TENSORS, load_modulator
from src.stage.checkpoints import FOLDER, Checkpoints
from src.stage.entry import check_overrides, compose, run_stage
from tests.fixtures.tiny_models import tiny_model
from tests.fixtures.tiny_project import tiny_tokenizer

ROOT = Path(__file__).parents[2]
SMALL = ("training.steps=2", "training.batch_size=4", "num_sequences=40", "max_length=16", "training.evaluate_every=2")
FEW = (*SMALL, "modulator=residual", "modulator.init=random", "controls=[zero]")


def run(artifacts: Path, *overrides: str) -> Artifact:
    words = [f"artifacts_dir={artifacts}", "threads=1", *overrides]
    config = compose("train_modulator", words)
    return run_stage(train_modulator.run, TrainModulatorConfig, "train_modulator", config, words)


def made(artifacts: Path, kind: str) -> list[Artifact]:
    return [artifact for artifact in list_artifacts(artifacts) if artifact.meta.kind == kind]


@pytest.fixture
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("src.report.charts.draw_png", lambda spec: b"\x89PNG\r\n\x1a\n" + bytes(16))


def test_the_command_of_the_issue_trains_four_modulators_and_compares_them(tmp_path: Path):
    command = [sys.executable, "train_modulator.py", "-m", "modulator=residual,field", "modulator.init=random,lexicon"]
    command += [*SMALL, "controls=[]", f"artifacts_dir={tmp_path}", f"hydra.sweep.dir={tmp_path}/multirun", "threads=1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = {artifact.meta.config["modulator"]["kind"] + " " + artifact.meta.config["modulator"]["init"]: artifact
             for artifact in made(tmp_path, "modulator")}
    assert set(found) == {"residual random", "residual lexicon", "field random", "field lexicon"}
    assert len(made(tmp_path, "modulator_comparison")) == 4
    for name, artifact in found.items():
        assert verify(artifact.path) == []
        expected = FieldModulator if name.startswith("field") else ResidualModulator
        assert type(load_modulator(artifact.path)) is expected
    assert "Traceback" not in done.stderr
