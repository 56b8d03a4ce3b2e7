"""measure_geometry.py analysis=simplices as a user runs it."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

import measure_geometry
from src.artifacts import Artifact
from src.config.geometry.stage import GeometryConfig
from src.errors import StrataError
from src.models.token_table import token_table
from src.report.artifact_report import read_report
from src.stage.entry import compose, run_stage
from tests.fixtures.tiny_project import make_project, tiny_tokenizer

QUICK = ("simplices.n_simplices=400", "simplices.null_draws=3", "simplices.resamples=100", "simplices.permutations=5")


def untie(module) -> None:
    module.config.tie_word_embeddings = False
    module.lm_head.weight = torch.nn.Parameter(module.lm_head.weight.detach().clone() * 2 + 0.1)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    project = make_project(tmp_path_factory.mktemp("simplices"), n_documents=60, change=untie)
    project.collect()
    return project


@pytest.fixture
def project(made, monkeypatch):
    monkeypatch.chdir(made.folder)
    monkeypatch.setattr("src.report.charts.draw_png", lambda _: b"\x89PNG\r\n\x1a\n" + bytes(24))
    return made


def run(*overrides: str) -> Artifact:
    words = ["model.path=model", "model.name=tiny", "dataset.dataset_name=text.jsonl", "dataset.dataset_split=null"]
    words = [*words, "analysis=simplices", "threads=1", *QUICK, *overrides]
    config = compose("measure_geometry", words)
    return run_stage(measure_geometry.run, GeometryConfig, "measure_geometry", config, words)


def document(artifact: Artifact, name: str = "simplices.json") -> dict:
    return json.loads((artifact.path / name).read_text())


def test_input_and_output_embeddings_and_a_layer(project, capsys):
    artifact = run("simplices.layer=1", "compat=notebook")
    found = document(artifact)
    n_tokens = len(token_table(tiny_tokenizer(), 97).counted)
    assert list(found["spaces"]) == ["input", "output", "layer_1"]
    assert found["spaces"]["input"]["n_points"] == n_tokens
    assert 50 < found["spaces"]["layer_1"]["n_points"] <= n_tokens
    assert found["settings"]["seed"] == 42
    for space in found["spaces"].values():
        assert space["volumes"]["n_valid"] == 400
        assert len(space["nulls"]["covariance_and_norms"]["draws"]) == 3
        assert space["cv"]["low"] < space["cv"]["value"] < space["cv"]["high"]
    assert {name: pair["n_joint"] for name, pair in found["joint"].items()} == {"output": 400, "layer_1": 400}
    notebook = document(artifact, "simplices_notebook.json")
    assert set(notebook["volumes"]) == {"input", "output"}
    assert notebook["volumes"]["input"]["n_valid"] == 1000
    report = read_report(artifact.path)
    assert [table.title for table in report.tables][:4] == [
        "How much volumes of 4-simplices vary",
        "Beside Gaussian clouds",
        "The same simplices in two spaces (input embeddings and another)",
        "As the notebook computes it",
    ]
    assert len(report.figures) == 1
    assert artifact.meta.parents[0].kind == "activations"
    assert pq.read_table(artifact.path / "simplex_nulls.parquet").num_rows == 3 * 4
    assert "vary" in capsys.readouterr().out


def test_the_same_command_finds_its_result_and_what_it_draws_follows_the_seed(project, capsys):
    first = run("name=one")
    assert run("name=one").meta.fingerprint == first.meta.fingerprint
    assert "reused" in capsys.readouterr().out
    again, other = run("name=two"), run("seed=7")
    assert document(again) == document(first)
    assert document(other)["spaces"]["input"]["cv"] != document(first)["spaces"]["input"]["cv"]


def test_tokens_are_drawn_by_weight(project, tmp_path):
    weights = np.zeros(97)
    weights[20:30] = 1.0
    np.save(tmp_path / "weights.npy", weights)
    found = document(run(f"simplices.weights={tmp_path}/weights.npy"))["spaces"]["input"]
    assert found["n_pool"] == 10
    assert found["n_points"] > 10, "the null is that of all tokens"


def test_float32_gives_the_same_to_its_precision(project):
    wide, narrow = (document(run(f"simplices.precision={name}")) for name in ("float64", "float32"))
    value = wide["spaces"]["input"]["cv"]["value"]
    assert narrow["spaces"]["input"]["cv"]["value"] == pytest.approx(value, rel=1e-4)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["simplices.k=17"], r"simplices\.k=17: simplices of 17 dimensions have no volume in 16"),
        (["simplices.layer=9"], r"has no resid_post\.9: it holds resid_post of layers \[0, 1, 2\]"),
        (["simplices.layer=0", "simplices.activations=nothing"], "simplices.*|activations=nothing: neither a path"),
        (["simplices.weights=missing.npy"], r"simplices\.weights=missing\.npy can't be read"),
        (["simplices.weights=short.npy"], r"needs one finite number of 0 or more for each of 97 rows"),
        (["simplices.weights=few.npy"], r"a simplex needs 5 tokens with a weight above 0; there are 3"),
        (["simplices.weights=pickle.npy"], r"pickle\.npy can't be read"),
    ],
)
def test_what_can_not_be_done_is_told_at_once(project, overrides, message):
    np.save("short.npy", np.ones(5))
    np.save("few.npy", np.r_[np.zeros(94), np.ones(3)])
    np.save("pickle.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(StrataError, match=message):
        run(*overrides)
