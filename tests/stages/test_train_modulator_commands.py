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
    found = {
        artifact.meta.config["modulator"]["kind"] + " " + artifact.meta.config["modulator"]["init"]: artifact
        for artifact in made(tmp_path, "modulator")
    }
    assert set(found) == {"residual random", "residual lexicon", "field random", "field lexicon"}
    assert len(made(tmp_path, "modulator_comparison")) == 4
    for name, artifact in found.items():
        assert verify(artifact.path) == []
        expected = FieldModulator if name.startswith("field") else ResidualModulator
        assert type(load_modulator(artifact.path)) is expected
    assert "Traceback" not in done.stderr


def test_a_repeated_command_reuses_what_is_there(tmp_path: Path, no_pictures: None, capsys: pytest.CaptureFixture[str]):
    first = run(tmp_path, *FEW)
    trained = {artifact.path: artifact.meta.ended_at for artifact in made(tmp_path, "modulator")}
    assert len(trained) == 2
    capsys.readouterr()
    again = run(tmp_path, *FEW)
    shown = capsys.readouterr().out
    assert (again.path, again.meta.ended_at) == (first.path, first.meta.ended_at)
    assert shown.count("reused") == 4  # sequences, two modulators, comparison
    assert "zero" in shown
    # another control keeps what is trained; another rate does not
    other = run(tmp_path, *FEW, "controls=[zero,shrink]")
    assert other.path != first.path
    assert {artifact.path for artifact in made(tmp_path, "modulator")} > set(trained)
    assert len(made(tmp_path, "modulator")) == 3
    run(tmp_path, *FEW, "training.lr=0.01", "controls=[]")
    assert len(made(tmp_path, "modulator")) == 4
    assert {path: open_ended(path, tmp_path) for path in trained} == trained


def open_ended(path: Path, artifacts: Path) -> str:
    return next(artifact.meta.ended_at for artifact in made(artifacts, "modulator") if artifact.path == path)


def test_a_damaged_modulator_is_trained_again(tmp_path: Path, no_pictures: None, capsys: pytest.CaptureFixture[str]):
    run(tmp_path, *FEW, "controls=[]")
    (artifact,) = made(tmp_path, "modulator")
    before = load_file(artifact.path / TENSORS)
    content = bytearray((artifact.path / TENSORS).read_bytes())
    content[-1] ^= 1
    (artifact.path / TENSORS).write_bytes(content)
    run(tmp_path, *FEW, "controls=[]")
    assert "damaged" in capsys.readouterr().err
    after = load_file(artifact.path / TENSORS)
    assert all(torch.equal(before[name], after[name]) for name in before)


class Killed(Exception):
    """As if the process ended here."""


def test_a_run_killed_in_a_control_goes_on_to_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """What is finished is not trained again, and what was under way goes on from its checkpoint."""
    monkeypatch.setattr("src.report.charts.draw_png", lambda spec: b"\x89PNG\r\n\x1a\n" + bytes(16))
    words = (*FEW, "training.steps=4", "training.checkpoint_every=1")
    whole = tmp_path / "whole"
    run(whole, *words)
    saved = Checkpoints.save
    killed = tmp_path / "killed"
    n_saved = 0

    def save_and_die(self: Checkpoints, training, curve) -> None:
        nonlocal n_saved
        saved(self, training, curve)
        n_saved += 1
        if n_saved == 5:  # three of the modulator, then the second of the control
            raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(Checkpoints, "save", save_and_die)
        with pytest.raises(Killed):
            run(killed, *words)
    assert len(made(killed, "modulator")) == 1
    (under_way,) = (killed / FOLDER).iterdir()
    assert [path.name for path in under_way.iterdir()] == ["step-000000000002"]
    steps: list[int] = []
    monkeypatch.setattr(Checkpoints, "save", lambda self, training, curve: steps.append(training.step))
    run(killed, *words)
    assert steps == [3]  # of the control alone
    weights = {
        folder: {artifact.path.name: load_file(artifact.path / TENSORS) for artifact in made(folder, "modulator")}
        for folder in (whole, killed)
    }
    assert set(weights[whole]) == set(weights[killed])
    for name, tensors in weights[whole].items():
        assert all(torch.equal(value, weights[killed][name][key]) for key, value in tensors.items())
    assert not list((killed / FOLDER).glob("*/step-*"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("modulator.alhpa=0.1",), r"modulator\.alhpa.*modulator\.alpha"),
        (("modulator=feild",), r"modulator=feild: there is no such config; did you mean field"),
        (("controls.zero=1",), "controls"),
    ],
)
def test_an_unknown_key_is_named_with_what_was_meant(words: tuple[str, ...], message: str):
    with pytest.raises(StrataError, match=message):
        check_overrides(list(words), TrainModulatorConfig)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("modulator.layers=[0,6]",), r"modulator\.layers=\[0, 6\].*has layers 0\.\.5"),
        (("modulator.layers=[-1]",), r"modulator\.layers"),
        (("modulator.layers=[]",), r"modulator\.layers"),
        (("modulator.alpha=1",), r"modulator\.alpha"),
        (("modulator=field", "modulator.alpha=0.5"), r"modulator\.alpha=0\.5 is not between"),
        (("modulator=field", "modulator.init=relational"), "is for modulator=residual"),
        (("modulator=field", "modulator.field.dimensions=[9]"), "does not fit into width=8"),
        (("controls=[zro]",), "controls"),
        (("training.steps=0",), r"training\.steps"),
        (("modulator.init=lexicon", "lexicon.taxonomy=nowhere.json"), r"nowhere\.json"),
        (("num_sequences=3",), "(?i)too few|fewer|only"),
        (("training.batch_size=4000",), "training.batch_size=4000"),
        (("model.path=nowhere",), r"model\.path=nowhere: no such folder"),
    ],
)
def test_bad_input_is_one_message_before_anything_is_trained(tmp_path: Path, words: tuple[str, ...], message: str):
    with pytest.raises(StrataError, match=message) as caught:
        run(tmp_path, *FEW, *words)
    assert "Traceback" not in str(caught.value)
    assert made(tmp_path, "modulator") == []


def test_a_model_with_nan_weights_is_refused_before_training(tmp_path: Path):
    folder = tmp_path / "broken"
    shutil.copytree(ROOT / "testbed/models/small", folder)
    tensors = load_file(folder / "model.safetensors")
    tensors["model.layers.2.mlp.up_proj.weight"][3, 4] = torch.nan
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(StrataError, match=r"(?i)nan"):
        run(tmp_path / "artifacts", *FEW, f"model.path={folder}")
    assert made(tmp_path / "artifacts", "modulator") == []


def test_an_encoder_alone_predicts_nothing_to_train_on(tmp_path: Path):
    tiny_model("bert").save_pretrained(tmp_path / "bert")
    tiny_tokenizer().save_pretrained(tmp_path / "bert")
    with pytest.raises(NotApplicableError, match="predicts no text: choose a causal LM or an encoder-decoder"):
        run(tmp_path / "artifacts", *FEW, f"model.path={tmp_path / 'bert'}")


def test_an_encoder_decoder_does_not_go_on_with_texts(tmp_path: Path):
    tiny_model("t5_with_head").save_pretrained(tmp_path / "t5")
    tiny_tokenizer().save_pretrained(tmp_path / "t5")
    with pytest.raises(StrataError, match="use objective=definitions"):
        run(tmp_path / "artifacts", *FEW, f"model.path={tmp_path / 't5'}", "objective=text")
