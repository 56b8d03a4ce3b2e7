"""train_modulator.py as a user calls it: the sweep, what is reused, what is refused, what a kill leaves."""

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra.core.global_hydra import GlobalHydra
from safetensors.torch import load_file, save_file
from torch import Tensor

import train_modulator
from src.artifacts import Artifact, list_artifacts, verify
from src.config.modulators.train import TrainModulatorConfig
from src.errors import NotApplicableError, StrataError
from src.modulators.field import FieldModulator
from src.modulators.residual import ResidualModulator
from src.modulators.saving import TENSORS, load_modulator
from src.stage.checkpoints import FOLDER, Checkpoints, Training
from src.stage.entry import check_overrides, compose, run_stage
from tests.fixtures.tiny_models import tiny_model
from tests.fixtures.tiny_project import tiny_tokenizer

ROOT = Path(__file__).parents[2]
SMALL = ("training.batch_size=4", "num_sequences=40", "max_length=16", "training.evaluate_every=2", "training.steps=4")
FEW = (*SMALL, "modulator=residual", "modulator.init=random", "controls=[zero]")


def run(artifacts: Path, *overrides: str) -> Artifact:
    words = [f"artifacts_dir={artifacts}", "threads=1", *overrides]
    config = compose("train_modulator", words)
    return run_stage(train_modulator.run, TrainModulatorConfig, "train_modulator", config, words)


def made(artifacts: Path, kind: str) -> list[Artifact]:
    return list_artifacts(artifacts, kind)


@pytest.fixture(scope="module", autouse=True)
def no_pictures() -> Iterator[None]:
    """Drawing them takes longer than training."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("src.report.charts.draw_png", lambda _: b"\x89PNG\r\n\x1a\n" + bytes(16))
        yield


def test_the_command_of_the_issue_trains_four_modulators_and_compares_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    words = ["-m", "modulator=residual,field", "modulator.init=random,lexicon", *SMALL, "controls=[]", "threads=1"]
    words += [f"artifacts_dir={tmp_path}", f"hydra.sweep.dir={tmp_path}/multirun"]
    monkeypatch.setattr(sys, "argv", [str(ROOT / "train_modulator.py"), *words])
    GlobalHydra.instance().clear()
    train_modulator.main()
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
        parameters = load_modulator(artifact.path).state_dict()
        assert all(bool(value.isfinite().all()) for value in parameters.values())


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Artifacts of one finished command."""
    artifacts = tmp_path_factory.mktemp("whole")
    run(artifacts, *FEW)
    return artifacts


@pytest.fixture
def finished(whole: Path, tmp_path: Path) -> Path:
    """A copy of them."""
    return Path(shutil.copytree(whole, tmp_path / "artifacts"))


def weights(artifacts: Path) -> dict[str, dict[str, Tensor]]:
    """Of every trained modulator, by name."""
    found = {artifact.path.name: artifact.path / TENSORS for artifact in made(artifacts, "modulator")}
    return {name: {key: value.clone() for key, value in load_file(path).items()} for name, path in found.items()}


def assert_equal_weights(found: dict[str, dict[str, Tensor]], expected: dict[str, dict[str, Tensor]]) -> None:
    assert set(found) == set(expected)
    for name, tensors in expected.items():
        for key, value in tensors.items():
            assert torch.equal(found[name][key], value), f"{key} of {name}"


def ends(artifacts: Path) -> dict[str, str | None]:
    """When each modulator was made."""
    return {artifact.path.name: artifact.meta.ended_at for artifact in made(artifacts, "modulator")}


def test_a_repeated_command_reuses_what_is_there(finished: Path, capsys: pytest.CaptureFixture[str]):
    before, (comparison,) = ends(finished), made(finished, "modulator_comparison")
    assert len(before) == 2
    run(finished, *FEW)
    shown = capsys.readouterr().out
    assert shown.count("reused") == 4  # sequences, two modulators, comparison
    assert "zero" in shown  # the table is shown again
    (again,) = made(finished, "modulator_comparison")
    assert again.meta.ended_at == comparison.meta.ended_at
    # one control more is one training more, and another comparison
    run(finished, *FEW, "controls=[zero,shrink]")
    after = ends(finished)
    assert len(after) == 3
    assert before.items() < after.items()
    assert len(made(finished, "modulator_comparison")) == 2


def test_a_damaged_modulator_is_trained_again(finished: Path, capsys: pytest.CaptureFixture[str]):
    before = weights(finished)
    path = next(artifact.path / TENSORS for artifact in made(finished, "modulator") if "zero" not in artifact.path.name)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    run(finished, *FEW)
    assert "damaged" in capsys.readouterr().err
    assert_equal_weights(weights(finished), before)


class Killed(Exception):
    """As if the process ended here."""


def test_a_run_killed_in_a_control_goes_on_to_the_same_bits(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """What is finished is not trained again, and what was under way goes on from its checkpoint."""
    words = (*FEW, "training.checkpoint_every=1")
    saved, n_saved = Checkpoints.save, 0

    def save_and_die(self: Checkpoints, training: Training, curve: list[dict[str, Any]]) -> None:
        nonlocal n_saved
        saved(self, training, curve)
        n_saved += 1
        if n_saved == 5:  # three of the modulator, then the second of the control
            raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(Checkpoints, "save", save_and_die)
        with pytest.raises(Killed):
            run(tmp_path, *words)
    assert len(made(tmp_path, "modulator")) == 1
    places = [path.name for path in (tmp_path / FOLDER).glob("*/step-*")]
    assert places == ["step-000000000002"]
    steps: list[int] = []
    monkeypatch.setattr(Checkpoints, "save", lambda self, training, curve: steps.append(training.step))
    run(tmp_path, *words)
    assert steps == [3]  # of the control alone
    assert_equal_weights(weights(tmp_path), weights(whole))
    assert not list((tmp_path / FOLDER).glob("*/step-*"))


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
        (("controls=[zro]",), "zro.*expected list of zero"),
        (("training.steps=0",), r"training\.steps"),
        (("modulator.init=lexicon", "lexicon.taxonomy=nowhere.json"), r"nowhere\.json"),
        (("num_sequences=3",), "5 are enough"),
        (("training.batch_size=4000",), "fewer than training.batch_size=4000"),
        (("model.path=nowhere",), r"model\.path=nowhere: no such folder"),
    ],
)
def test_bad_input_is_one_message_before_anything_is_trained(tmp_path: Path, words: tuple[str, ...], message: str):
    with pytest.raises(StrataError, match=message) as caught:
        run(tmp_path, *FEW, *words)
    assert "\n" not in str(caught.value)
    assert made(tmp_path, "modulator") == []


def test_a_model_with_nan_weights_is_refused_before_training(tmp_path: Path):
    folder = tmp_path / "broken"
    shutil.copytree(ROOT / "testbed/models/small", folder)
    tensors = load_file(folder / "model.safetensors")
    tensors["model.layers.2.mlp.up_proj.weight"][3, 4] = torch.nan
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(StrataError, match=r"itself, frozen, is nan.*hold NaN"):
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
