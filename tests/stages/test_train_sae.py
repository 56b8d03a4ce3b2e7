"""train_sae.py on the testbed, as a user runs it."""

import json
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

import collect_activations
import train_sae
from src.activations.store import ActivationStore
from src.artifacts import list_artifacts, verify
from src.config.stages import CollectConfig, SplitConfig
from src.config.train_sae import TrainSaeConfig
from src.errors import StrataError
from src.features.pairing import check_pairing
from src.features.sae import load_sae
from src.hook_points import HookPoint
from src.stage.checkpoints import FOLDER, Checkpoints
from src.stage.entry import compose, run_stage
from src.stage.stores import split_store
from tests.fixtures.saes import sae_config
from tests.fixtures.stored_rows import counted_rows

ROOT = Path(__file__).parents[2]
STAGES = {
    "collect_activations": (collect_activations.run, CollectConfig),
    "train_sae": (train_sae.run, TrainSaeConfig),
}
SMALL = ("tokens=20000", "batch_size=256", "d_sae=64", "buffer_tokens=3000", "eval_tokens=2500", "evaluate_every=10000")
SMALL = (*SMALL, "architecture=topk", "k=12", "dead_feature_window=40", "checkpoint_every=5000")


def run(stage: str, artifacts: Path, *overrides: str):
    words = [f"artifacts_dir={artifacts}", "threads=1", *overrides]
    function, schema = STAGES[stage]
    return run_stage(function, schema, stage, compose(stage, words), words)


@pytest.fixture(scope="module")
def collected(tmp_path_factory):
    artifacts = tmp_path_factory.mktemp("project") / "artifacts"
    words = ("num_tokens=12000", "layers=[1,2]", "storage_dtype=float32", "part_megabytes=1")
    return run("collect_activations", artifacts, *words)


@pytest.fixture(scope="module")
def artifacts(collected):
    return collected.path.parents[1]


@pytest.fixture(scope="module")
def made(artifacts):
    return run("train_sae", artifacts, *SMALL)


@pytest.fixture
def no_pictures(monkeypatch):
    monkeypatch.setattr("src.report.charts.draw_png", lambda spec: b"\x89PNG\r\n\x1a\n" + bytes(16))


def weights(artifact, layer: int = 2) -> dict[str, torch.Tensor]:
    return load_file(artifact.path / f"layer_{layer}" / "sae_weights.safetensors")


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return set(one) == set(other) and all(torch.equal(one[name], other[name]) for name in one)


def test_the_saes_load_and_fit_their_layers(collected, made):
    store = ActivationStore(collected)
    for layer in (1, 2):
        sae = load_sae(sae_config(path=str(made.path / "layer_{layer}")), layer=layer)
        assert (sae.point, sae.n_features, sae.model_name) == (HookPoint("resid_post", layer), 64, "testbed")
        assert check_pairing(sae, store, max_fvu=0.9).fvu.value < 0.7
    assert verify(made.path) == []
    assert not (made.path.parents[1] / FOLDER).exists() or not any((made.path.parents[1] / FOLDER).iterdir())


def test_scores_are_of_test_documents_alone(collected, made):
    store = ActivationStore(collected)
    split = split_store(store, SplitConfig(train=0.6, val=0.2, test=0.2), 1, 42)
    rows, sequence = counted_rows(collected.path, [1, 2])
    in_test = split.groups[sequence] == 2
    records = {record["layer"]: record for record in json.loads((made.path / "scores.json").read_text())}
    for layer, record in records.items():
        x = torch.from_numpy(rows[layer][in_test]).float()
        features, reconstruction = load_sae(sae_config(path=str(made.path / f"layer_{layer}"))).reconstruct(x)
        fvu = (x - reconstruction).square().sum() / (x - x.mean(0)).square().sum()
        assert record["held_out_tokens"] == len(x)  # all of test, for there is less of it than eval_tokens
        assert record["fvu"] == pytest.approx(float(fvu), rel=1e-4)
        assert record["l0"] == pytest.approx(float((features != 0).sum(1).double().mean()))
        assert record["dead"] == pytest.approx(float((features == 0).all(0).double().mean()))
        assert record["fvu_low"] < record["fvu"] < record["fvu_high"]
        assert record["recovered_zero_low"] < record["recovered_zero"] < record["recovered_zero_high"] < 1
        assert record["nll_clean"] < record["nll_spliced"] < min(record["nll_zero"], record["nll_mean"])
    assert list(records) == [1, 2]
    assert pq.read_table(made.path / "scores.parquet").to_pylist() == list(records.values())


def test_curves_tell_of_the_training(made):
    curve = json.loads((made.path / "curves.json").read_text())
    of_layer = [record for record in curve if record["layer"] == 2]
    assert [record["tokens"] for record in of_layer] == [10240, 20224]
    assert of_layer[1]["fvu"] < of_layer[0]["fvu"]
    report = json.loads((made.path / "report.json").read_text())
    assert [table["title"] for table in report["tables"]] == ["SAEs"]
    assert {path.name for path in (made.path / "figures").glob("*.png")} == {"training.png"}


def test_a_finished_run_is_reused_and_one_layer_alone_is_the_same_sae(artifacts, made, capsys, no_pictures):
    again = run("train_sae", artifacts, *SMALL)
    assert (again.path, again.meta.ended_at) == (made.path, made.meta.ended_at)
    shown = capsys.readouterr().out
    assert "reused" in shown
    assert "resid_post.2" in shown
    alone = run("train_sae", artifacts, *SMALL, "layers=2")
    assert alone.path != made.path
    assert equal(weights(alone), weights(made))


class Killed(Exception):
    """As if the process ended here."""


def test_a_killed_run_goes_on_and_ends_with_the_same_weights(artifacts, made, monkeypatch, capsys, no_pictures):
    saved = Checkpoints.save

    def save_and_die(self, training, curve):
        saved(self, training, curve)
        if training.step >= 40:
            raise Killed

    monkeypatch.setattr(Checkpoints, "save", save_and_die)
    with pytest.raises(Killed):
        run("train_sae", artifacts, *SMALL, "name=killed")
    (folder,) = (artifacts / FOLDER).iterdir()
    assert [path.name for path in folder.iterdir()] == ["step-000000000040"]
    assert not (artifacts / "sae" / "killed").exists()
    monkeypatch.undo()
    monkeypatch.setattr("src.report.charts.draw_png", lambda spec: b"\x89PNG\r\n\x1a\n" + bytes(16))
    resumed = run("train_sae", artifacts, *SMALL, "name=killed")
    assert "going on at step 40 of 79" in capsys.readouterr().out
    assert equal(weights(resumed), weights(made))
    for name in ("curves.json", "scores.json"):
        assert (resumed.path / name).read_text() == (made.path / name).read_text()
    assert not folder.exists()


def test_the_model_itself_can_be_the_source(artifacts, no_pictures):
    words = ("source=model", "num_tokens=6000", "layers=[0,2]", "tokens=9000", "lr=0.02")
    words = (*SMALL, *words, "eval_tokens=1000", "buffer_tokens=1000", "evaluate_every=null")
    made = run("train_sae", artifacts, *words)
    assert [parent.kind for parent in made.meta.parents] == ["sequences"]
    records = json.loads((made.path / "scores.json").read_text())
    assert [record["layer"] for record in records] == [0, 2]
    assert all(record["recovered_zero"] > 0 and record["fvu"] < 0.9 for record in records)
    again = run("train_sae", artifacts, *words, "name=again")
    assert equal(weights(again), weights(made))
    assert len(list_artifacts(artifacts, "activations")) == 1


def test_without_loss_recovered_no_model_is_loaded(artifacts, monkeypatch, no_pictures):
    monkeypatch.setattr("src.stage.sae_inputs.load_model_of", lambda *_: pytest.fail("the model was loaded"))
    words = ("layers=2", "loss_recovered=false", "tokens=2000", "evaluate_every=null", "storage_dtype=float16")
    made = run("train_sae", artifacts, *SMALL, *words)
    (record,) = json.loads((made.path / "scores.json").read_text())
    assert record["recovered_zero"] is None
    assert {weight.dtype for weight in weights(made).values()} == {torch.float16}


def test_what_decides_the_weights_decides_the_folder(artifacts, no_pictures):
    base = ("layers=2", "loss_recovered=false", "tokens=512", "evaluate_every=null")
    changes = ("lr=0.1", "k=5", "seed=7", "options={decoder_init_norm: 0.5}")
    folders = [run("train_sae", artifacts, *SMALL, *base, change) for change in ("k=12", *changes)]
    assert len({folder.path for folder in folders}) == len(changes) + 1
    assert not any(equal(weights(folders[0]), weights(other)) for other in folders[1:])
    assert run("train_sae", artifacts, *SMALL, *base, "checkpoint_every=null").path == folders[0].path


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("layers=0",), r"has no resid_post\.0: it holds resid_post of layers \[1, 2\]"),
        (("layers=9",), r"^layers: testbed has no layer 9; choose from its layers 0 to 5$"),
        (("k=64",), r"^k=64 must be below the number of features, 64 "),
        (("batch_size=9000", "buffer_tokens=20000"), r"^\d,\d+ counted tokens to train on are not enough for a step"),
        (("options={jumprelu_bandwidth: 1}", "loss_recovered=false"), r"^options\.jumprelu_bandwidth means nothing to"),
        (("lr=1.0e+30", "normalize_activations=none"), r"^the loss of the SAE of resid_post\.1 is (nan|inf) at step"),
    ],
)
def test_what_can_t_be_trained_is_told_in_one_message(artifacts, overrides, message):
    with pytest.raises(StrataError, match=message) as error:
        run("train_sae", artifacts, *SMALL, *overrides, "overwrite=true")
    assert len(str(error.value).splitlines()) == 1


def test_the_script_tells_of_a_bad_key_before_it_works(tmp_path):
    command = [sys.executable, str(ROOT / "train_sae.py"), "architecture=topkk", f"artifacts_dir={tmp_path}/none"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    assert done.stderr.strip().startswith("train_sae: architecture=topkk: there is no such config; did you mean topk")
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "none").exists()
