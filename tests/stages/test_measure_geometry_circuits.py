"""Circuits in measure_geometry.py analysis=weights: what is written, and that planted heads are found."""

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file
from transformers import PreTrainedModel

import measure_geometry
from src.artifacts import Artifact
from src.config.geometry.stage import GeometryConfig
from src.report.artifact_report import read_report
from src.stage.entry import compose, run_stage
from tests.fixtures.tiny_models import tiny_model

QUICK = ("analysis=weights", "threads=1", "device=cpu", "weights.subspace_rank=4", "model.name=tiny")


@pytest.fixture(autouse=True)
def _project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("src.report.charts.draw_png", lambda _: b"\x89PNG\r\n\x1a\n" + bytes(24))


def run(module: PreTrainedModel, folder: Path, *overrides: str) -> Artifact:
    module.save_pretrained(folder)
    words = [*QUICK, f"model.path={folder}", *overrides]
    config = compose("measure_geometry", words)
    return run_stage(measure_geometry.run, GeometryConfig, "measure_geometry", config, words)


def read(artifact: Artifact, name: str) -> Any:
    return json.loads((artifact.path / name).read_text(encoding="utf-8"))


def test_heads_that_match_their_own_keys_are_found(tmp_path):
    """Q = K in every head of a llama: symmetric, all mass positive; with other heads' keys it is not."""
    module = tiny_model("llama", hidden_size=32, num_attention_heads=4, num_key_value_heads=4)
    for layer in module.model.layers:
        layer.self_attn.k_proj.weight.data.copy_(layer.self_attn.q_proj.weight)
        layer.self_attn.o_proj.weight.data.copy_(-layer.self_attn.v_proj.weight.T)
        layer.input_layernorm.weight.data.fill_(1.0)
    artifact = run(module, tmp_path / "model", "circuits.null_draws=199", "circuits.offsets=[0,1]")
    heads = pq.read_table(artifact.path / "circuit_heads.parquet").to_pylist()
    assert len(heads) == 12
    for head in heads:
        assert head["positive_mass"] == pytest.approx(1, abs=1e-6)
        assert head["symmetry"] == pytest.approx(1, abs=1e-6)
        assert head["symmetry_offset_0"] == pytest.approx(1, abs=1e-6)
        assert head["symmetry_offset_1"] < 0.99
        assert head["copying"] == pytest.approx(-1, abs=1e-6)
        assert head["positive_mass_random_p"] == pytest.approx(1 / 200)
        assert abs(head["positive_mass_others"] - 0.5) < 0.2
    found = read(artifact, "circuits.json")["statistics"]["positive_mass"]["strength_others"]
    assert found["value"] == pytest.approx(0.5)
    assert found["mean"] < 0.4
    assert found["p"] <= 0.01
    report = read_report(artifact.path)
    assert "100.0% of the eigenvalue mass" in report.text
    titles = {figure.title for figure in report.figures}
    assert {"Circuits of heads by layer", "Symmetry of QK by offset", "Composition of layers"} <= titles


def test_position_heads_of_t5_beside_the_notebooks_classes(tmp_path):
    """BUG E-9, through the whole stage: the next token and the far past are mixed for the notebook."""
    module = tiny_model("t5")
    table = module.encoder.block[0].layer[0].SelfAttention.relative_attention_bias.weight
    table.data.zero_()
    table.data[17, 0] = 12.0
    table.data[13:16, 1] = 6.0
    table.data[0, 2] = 12.0
    artifact = run(module, tmp_path / "model", "compat=notebook", "circuits.null_draws=19")
    heads = pq.read_table(artifact.path / "distance_bias_heads.parquet").to_pylist()
    kinds = [head["kind"] for head in heads if head["stack"] == "encoder"]
    assert kinds == ["directional future", "global past", "local", "flat"]
    notebook = read(artifact, "distance_bias_notebook.json")["encoder"]
    assert [head["kind"] for head in notebook][:3] == ["mixed", "mixed", "local"]
    circuits = read(artifact, "circuits_notebook.json")["layers"]
    assert [layer["place"] for layer in circuits].count("decoder 0 cross") == 1
    assert all(layer["units"]["n_positive"] + layer["units"]["n_negative"] == 16 for layer in circuits)


def test_grouped_queries_have_nothing_for_the_notebook_and_everything_for_us(tmp_path):
    artifact = run(tiny_model("qwen2"), tmp_path / "model", "compat=notebook", "circuits.null_draws=19")
    notebook = read(artifact, "circuits_notebook.json")
    assert [layer["units"] for layer in notebook["layers"]] == [None] * 3
    heads = pq.read_table(artifact.path / "circuit_heads.parquet").to_pylist()
    assert [head["kv_head"] for head in heads] == [0, 0, 1, 1] * 3
    assert all(head["q_bias_share"] > 0 for head in heads)
    scores = load_file(artifact.path / "composition.safetensors")
    assert set(scores) == {f"{kind}.decoder.{i}.{j}" for kind in "QKV" for i, j in ((1, 0), (2, 0), (2, 1))}
    assert bool(torch.stack(list(scores.values())).isfinite().all())


def test_a_model_without_softmax_attention_has_no_circuits(tmp_path):
    artifact = run(tiny_model("deepseek_v3"), tmp_path / "model", "circuits.null_draws=19")
    assert "no circuits" in read_report(artifact.path).text
