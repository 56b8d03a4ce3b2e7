"""measure_geometry.py analysis=weights as a user runs it: any family, from files; what it writes; what it refuses."""

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file, save_file

import measure_geometry
from src.artifacts import Artifact, verify
from src.config.geometry.stage import GeometryConfig
from src.errors import NotApplicableError, StrataError
from src.report.artifact_report import read_report
from src.stage.entry import compose, run_stage
from tests.fixtures.tiny_models import tiny_model

ROOT = Path(__file__).resolve().parents[2]
QUICK = ("analysis=weights", "threads=1", "device=cpu", "weights.subspace_rank=4", "circuits.null_draws=19")


@pytest.fixture(autouse=True)
def project(tmp_path, monkeypatch) -> Path:
    """Artifacts go below a folder of the test; drawing takes longer than all else."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("src.report.charts.draw_png", lambda _: b"\x89PNG\r\n\x1a\n" + bytes(24))
    return tmp_path


def run(folder: Path | str, *overrides: str) -> Artifact:
    words = [*QUICK, f"model.path={folder}", "model.name=tiny", *overrides]
    config = compose("measure_geometry", words)
    return run_stage(measure_geometry.run, GeometryConfig, "measure_geometry", config, words)


def saved(family: str, folder: Path, **keys: Any) -> Path:
    module = tiny_model(family, **keys)
    module.save_pretrained(folder / family)
    return folder / family


def read(artifact: Artifact, name: str) -> Any:
    return json.loads((artifact.path / name).read_text(encoding="utf-8"))


@pytest.mark.parametrize("family", ["gpt2", "t5_gated", "clip", "qwen3_moe", "qwen3_5"])
def test_any_family(family: str, tmp_path: Path) -> None:
    """Decoders, encoder-decoders, images, experts, linear attention: no tokenizer, no data, no inference."""
    artifact = run(saved(family, tmp_path), "weights.circuits=false")
    found = read(artifact, "weights.json")
    matrices = pq.read_table(artifact.path / "matrices.parquet").to_pylist()
    parameters = sum(parameter.numel() for parameter in tiny_model(family).parameters())
    assert found["parameters"] == parameters
    assert found["not_recognised"] == found["unread"] == found["missing"] == []
    assert {"q", "k", "v", "o", "up", "down"} <= {matrix["role"] for matrix in matrices}
    values = load_file(artifact.path / "singular_values.safetensors")
    assert set(values) == {matrix["name"] for matrix in matrices}
    for matrix in matrices[:4]:
        assert matrix["largest"] == pytest.approx(float(values[matrix["name"]][0]))
        assert matrix["stable_rank_random"] > 1
    linear = ["decoder layer 0 (linear attention)"] if family == "qwen3_5" else []
    assert found["layers_without_attention_matrices"] == linear
    assert verify(artifact.path) == []


def test_the_testbed(tmp_path: Path) -> None:
    """A trained model: more structure than chance on the side of the residual stream, none entry by entry."""
    artifact = run(ROOT / "testbed/models/base", "compat=notebook", "weights.circuits=true", "weights.subspace_rank=16")
    found = read(artifact, "weights.json")
    assert set(found["nulls"]) <= set(found["metrics"])
    for comparison in found["comparisons"]:
        assert abs(comparison["entries"]["z_adjacent_pair"]) < 4
        assert comparison["grams"]["z_adjacent_pair"] > 4
    for role in ("q", "k", "v"):  # BUG E-5: the absolute share is that of Gaussian entries of the same scale
        share, null = (found[which][f"small_{role}_share"] for which in ("metrics", "nulls"))
        assert share == pytest.approx(null, abs=0.02)
    assert found["metrics"]["q_stable_rank"] < found["nulls"]["q_stable_rank"]
    report = read_report(artifact.path)
    titles = [table.title for table in report.tables]
    assert titles[:5] == ["Spectra", "Sparsity", "Layers against each other", "MLP neurons", "Norms"]
    assert "As the notebook computes it" in titles
    assert report.text.startswith("37 of 42 matrices of the layers have directions that random entries would not have")
    assert len(pq.read_table(artifact.path / "layer_pairs.parquet")) == 7 * 15
    assert {record["type"] for record in read(artifact, "weights_notebook.json")["types"]} >= {"self_attn_q", "mlp_up"}
    assert (artifact.path / "circuits.json").is_file()
    written = (artifact.path / "weights.json").stat().st_mtime_ns
    again = run(ROOT / "testbed/models/base", "compat=notebook", "weights.subspace_rank=16")
    assert (again.path, (again.path / "weights.json").stat().st_mtime_ns) == (artifact.path, written)  # reused


def test_two_runs_are_the_same_and_other_weights_another_artifact(tmp_path: Path) -> None:
    folder = saved("gpt2", tmp_path)
    first = run(folder, "weights.circuits=false")
    texts = [(first.path / name).read_text() for name in ("weights.json", "matrices.json", "layer_pairs.json")]
    second = run(folder, "weights.circuits=false", "overwrite=true")
    assert [(second.path / name).read_text() for name in ("weights.json", "matrices.json", "layer_pairs.json")] == texts
    tensors = load_file(folder / "model.safetensors")
    tensors["transformer.h.1.mlp.c_fc.weight"][0, 0] += 1
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    assert run(folder, "weights.circuits=false").path != first.path


def test_equal_weights_with_other_heads_or_a_foreign_tensor_are_another_artifact(tmp_path: Path) -> None:
    """Heads, rotary frequencies and the rest of config.json decide circuits as much as weights do."""
    folder = saved("llama", tmp_path)
    first = run(folder)
    config = json.loads((folder / "config.json").read_text())
    fewer = config | {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8}
    (folder / "config.json").write_text(json.dumps(fewer))
    other = run(folder)
    assert other.path != first.path
    assert (read(first, "circuits.json")["n_heads"], read(other, "circuits.json")["n_heads"]) == (12, 6)
    (folder / "config.json").write_text(json.dumps(config))
    assert run(folder).path == first.path
    save_file(load_file(folder / "model.safetensors") | {"foreign": torch.ones(3)}, folder / "model.safetensors")
    assert run(folder).path != first.path


def test_what_is_not_recognised_is_said(tmp_path: Path) -> None:
    folder = saved("gpt2", tmp_path)
    tensors = load_file(folder / "model.safetensors") | {"adapter.<b>x</b>": torch.ones(3, 4)}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    artifact = run(folder, "weights.circuits=false")
    assert read(artifact, "weights.json")["unread"] == ["adapter.<b>x</b>"]
    assert "1 tensors of the files belong to no parameter" in read_report(artifact.path).text
    rows = [
        row
        for table in read_report(artifact.path).tables
        if table.title == "What was not measured"
        for row in table.rows
    ]
    assert any("no place for it" in str(row[2]) for row in rows)


def test_quantised_weights_are_refused_before_work(tmp_path: Path) -> None:
    folder = saved("llama", tmp_path)
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "gptq", "bits": 4}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(StrataError, match="quantised"):
        run(folder)
    assert not (tmp_path / "artifacts/geometry").exists()


@pytest.mark.parametrize(
    ("dtype", "value", "message"),
    [
        (torch.float32, float("nan"), "holds NaN or infinite values"),
        (torch.float16, float("inf"), "holds NaN or infinite values"),
        (torch.int8, 3, "is stored as int8, as quantised weights are"),
        (torch.float8_e4m3fn, 1.0, "is stored as float8_e4m3fn, as quantised weights are"),
    ],
)
def test_weights_that_are_no_numbers_are_refused_before_work(
    dtype: torch.dtype, value: float, message: str, tmp_path: Path
) -> None:
    folder, name = saved("llama", tmp_path), "model.layers.1.mlp.up_proj.weight"
    tensors = load_file(folder / "model.safetensors")
    tensors[name][2, 3] = value
    save_file(tensors | {name: tensors[name].to(dtype)}, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(StrataError, match=f"tiny: {name} {message}"):
        run(folder)


def test_zeros_missing_embeddings_and_whole_subspaces_are_measured(tmp_path: Path) -> None:
    """What is not defined (ranks' null of the whole space, conditions of zeros) is null in JSON."""
    folder = saved("llama", tmp_path)
    tensors = load_file(folder / "model.safetensors")
    kept = {name: value for name, value in tensors.items() if name != "model.embed_tokens.weight"}
    kept = {name: torch.zeros_like(value) if ".layers.1." in name else value for name, value in kept.items()}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    artifact = run(folder, "weights.subspace_rank=32", "compat=notebook")
    found = read(artifact, "weights.json")
    assert found["missing"] == ["model.embed_tokens.weight"]
    assert "1 parameters of the model class are not in the files (model.embed_tokens.weight)" in (
        read_report(artifact.path).text
    )
    assert found["comparisons"][0]["overlaps"]["z_mean_pair"] is None
    zeros = [record for record in read(artifact, "matrices.json") if record["layer"] == 1]
    assert {record["stable_rank"] for record in zeros} == {0}


def test_a_model_without_matrices(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("src.stage.geometry.weights.is_measured", lambda _: False)
    with pytest.raises(NotApplicableError, match="no matrices"):
        run(saved("llama", tmp_path))


def test_models_narrower_than_the_subspace_are_measured(tmp_path):
    """All 32 directions of matrices that have 16: every overlap is 1, and has no spread to be judged by."""
    artifact = run(saved("gpt_neox", tmp_path), "weights.subspace_rank=32", "weights.circuits=false")
    assert read(artifact, "weights.json")["comparisons"][0]["overlaps"]["z_mean_pair"] is None
