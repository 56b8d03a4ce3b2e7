"""train_modulator.py modulator=field and compat=notebook, on a tiny model, as a user runs it."""

import json
from pathlib import Path

import pytest
from safetensors.torch import load_file

import train_modulator
from src.artifacts import list_artifacts
from src.config.modulators.train import TrainModulatorConfig
from src.errors import StrataError
from src.modulators.notebook.field import NotebookField
from src.modulators.notebook.residual import NotebookResidual
from src.modulators.saving import load_modulator
from src.stage.entry import compose, run_stage
from tests.fixtures.tiny_project import make_project

SHORT = ("training.steps=6", "training.batch_size=4", "training.evaluate_every=6", "training.checkpoint_every=null")
SHORT = (*SHORT, "modulator.init=random", "modulator.residual.width=4", "modulator.field.width=4", "threads=1")


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """A tiny llama with texts."""
    return make_project(tmp_path_factory.mktemp("texts"), n_documents=80).folder


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch):
    def blank(_chart: object, stem: Path) -> dict[str, Path]:
        stem.parent.mkdir(parents=True, exist_ok=True)
        stem.with_suffix(".vl.json").write_text("{}")
        stem.with_suffix(".png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(16))
        return {"png": stem.with_suffix(".png")}

    monkeypatch.setattr("src.report.artifact_report.save_chart", blank)


def run(project: Path, artifacts: Path, *overrides: str) -> dict[str, Path]:
    """The folders of the trained runs by name."""
    dataset = [f"dataset.dataset_name={project}/text.jsonl", "dataset.dataset_split=null"]
    words = [f"model.path={project}/model", "model.name=tiny", *dataset, f"artifacts_dir={artifacts}", *SHORT]
    words += overrides
    run_stage(train_modulator.run, TrainModulatorConfig, "train_modulator", compose("train_modulator", words), words)
    folders = [artifact.path for artifact in list_artifacts(artifacts, "modulator")]
    return {json.loads((folder / "training.json").read_text())["run"]: folder for folder in folders}


def test_a_field_tells_of_its_simplices(project, tmp_path):
    folder = run(project, tmp_path, "modulator=field", "controls=[]")["modulator"]
    health = json.loads((folder / "health.json").read_text())
    assert [(each["layer"], each["k"]) for each in health["experts"]] == [(it, k) for it in range(3) for k in (1, 2, 4)]
    saved = load_file(folder / "modulator.safetensors")
    assert health["parts"][0]["deformation_weight"] == pytest.approx(float(saved["deform.weight"][:8].norm()))
    tracked = saved["health.sums"] / saved["health.weight"][:, None, None]
    assert health["tracked"]["log_volume"][1] == pytest.approx(tracked[1, :, 0].tolist())
    history = json.loads((folder / "history.json").read_text())
    assert history[-1]["log volume (mean), k = 4"] == pytest.approx(float(tracked[:, 2, 0].mean()), rel=1e-5)
    assert "simplices of" in json.loads((folder / "report.json").read_text())["text"]


def test_the_notebooks_modulators_are_trained_beside_the_same_controls(project, tmp_path):
    field = run(project, tmp_path / "field", "modulator=field", "compat=notebook", "controls=[zero]")
    assert isinstance(load_modulator(field["modulator"]), NotebookField)
    assert "notebook" in field["modulator"].name
    n_trained = {name: json.loads((it / "training.json").read_text())["parameters"] for name, it in field.items()}
    assert n_trained["zero"] == 9
    # 12 active of 16 dimensions, width 4: deformations, LayerNorms, validity and gates of 2, 4 and 11 features
    assert n_trained["modulator"] == (8 + 12 + 20) * 13 + (2 + 4 + 11) * 3 + 3 + (3 + 5 + 12) * 12 + 9
    residual = run(project, tmp_path / "residual", "modulator=residual", "compat=notebook", "controls=[shuffled]")
    assert isinstance(load_modulator(residual["modulator"]), NotebookResidual)
    assert isinstance(load_modulator(residual["shuffled"]), NotebookResidual)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("modulator.field.null_place=random", r"compat=notebook.*null_place=random.*use tail"),
        ("modulator.init=lexicon", r"compat=notebook has no modulator.init=lexicon.*use init=random"),
        ("modulator.field.dimensions=[8]", r"k up to 4.*\[8\]"),
    ],
)
def test_what_the_notebook_can_not_do_is_refused(project, tmp_path, override, message):
    with pytest.raises(StrataError, match=message):
        run(project, tmp_path, "modulator=field", "compat=notebook", "modulator.field.width=8", override)
    assert not (tmp_path / "modulator").exists()
