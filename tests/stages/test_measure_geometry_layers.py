"""measure_geometry.py analysis=layers as a user runs it: stores, a model that reads, both stacks of a T5."""

import json
import math
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from transformers import AutoConfig

import measure_geometry
from src.artifacts import Artifact
from src.config.geometry.stage import GeometryConfig
from src.errors import NotApplicableError, StrataError
from src.report.artifact_report import read_report
from src.stage.entry import compose, run_stage
from tests.fixtures.tiny_models import tiny_model
from tests.fixtures.tiny_project import TinyProject, make_project, tiny_tokenizer, write_text


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> TinyProject:
    """A tiny llama and its store, and a tiny T5 of the same tokenizer."""
    project = make_project(tmp_path_factory.mktemp("layers"), n_documents=60, longest=12)
    project.collect("hooks=[resid_pre,resid_post,attn_out,mlp_out]", "storage_dtype=float32")
    tiny_tokenizer().save_pretrained(project.folder / "t5")
    tiny_model("t5").save_pretrained(project.folder / "t5")
    return project


@pytest.fixture
def project(made, monkeypatch) -> TinyProject:
    monkeypatch.chdir(made.folder)
    monkeypatch.setattr("src.report.charts.draw_png", lambda _: b"\x89PNG\r\n\x1a\n" + bytes(24))
    return made


def run(*overrides: str) -> Artifact:
    words = ["analysis=layers", "model.path=model", "model.name=tiny", "dataset.dataset_name=text.jsonl"]
    words += ["dataset.dataset_split=null", "layers.bootstrap=20", "layers.positions=8", "threads=1", *overrides]
    return run_stage(
        measure_geometry.run, GeometryConfig, "measure_geometry", compose("measure_geometry", words), words
    )


def sites(artifact: Artifact) -> dict[str, dict]:
    rows = json.loads((artifact.path / "layers.json").read_text())["layers"]
    return {"/".join(part for part in (row["stack"], row["site"]) if part): row for row in rows}


def test_a_store_and_the_model_that_reads_the_same_text_agree(project):
    stored, read = (
        run("layers.activations=store", "name=stored"),
        run("name=read", "layers.source=model", "layers.batch_size=7"),
    )
    one, other = sites(stored), sites(read)
    assert one.keys() - other.keys() == {f"{hook}.{layer}" for hook in ("attn_out", "mlp_out") for layer in range(3)}
    assert other.keys() - one.keys() == {"final_norm"}
    for name in ("resid_pre.0", "resid_post.0", "resid_post.2"):
        assert one[name]["n_tokens"] == other[name]["n_tokens"]
        fields = ("norm_mean", "norm_median", "norm_std", "cosine_within", "cosine_across", "participation")
        for field in (*fields, "mean_share", "top_share", "cosine_across_low", "norm_median_high"):
            assert one[name][field] == pytest.approx(other[name][field], rel=2e-3), (name, field)
    # the last block's output and what the final norm makes of it are rows of their own
    assert other["final_norm"]["norm_median"] != pytest.approx(other["resid_post.2"]["norm_median"], rel=0.05)
    updates = pq.read_table(stored.path / "updates.parquet").to_pylist()
    assert [record["layer"] for record in updates] == [0, 1, 2]
    shares = pq.read_table(stored.path / "increments.parquet").to_pylist()
    assert all(0 < record["attention_share"] < 1 for record in shares)
    positions = pq.read_table(stored.path / "positions.parquet").to_pylist()
    assert {record["position"] for record in positions} == set(range(8))
    left_out = pq.read_table(stored.path / "left_out.parquet").to_pylist()
    assert {record["reason"] for record in left_out} == {"bos"}
    text = read_report(stored.path).text
    assert text.startswith("The median norm ")
    assert "60 texts" in text


def test_some_layers_of_a_store(project):
    found = sites(run("layers.activations=store", "layers.layers=[0,2]"))
    assert found.keys() >= {"resid_post.0", "resid_post.2"}
    assert not any(name.endswith(".1") for name in found)


def test_a_store_against_the_same_states_in_half_precision_has_cosine_and_cka_1(project):
    project.collect("name=half", "storage_dtype=bfloat16", "part_megabytes=1", "batch_size=8")
    artifact = run("layers.activations=store", "layers.second=half", "layers.layers=[0,1]")
    assert {row["stack"] for row in sites(artifact).values()} == {"store", "half"}
    pairs = pq.read_table(artifact.path / "stack_pairs.parquet").to_pylist()
    for pair in pairs:
        if pair["first"] == pair["second"]:
            assert pair["cosine"] == pytest.approx(1, abs=1e-4)
            assert pair["cka"] == pytest.approx(1, abs=1e-3)
            assert pair["shuffled_cosine"] < 0.9
            assert pair["shuffled_cka"] < 0.5


def test_encoder_and_decoder_are_compared_token_by_token(project):
    # BUG C-1: at the embeddings, the same token is the same vector in both stacks
    artifact = run("model.path=t5", "model.name=t5", "compat=notebook", "name=t5")
    pairs = pq.read_table(artifact.path / "stack_pairs.parquet").to_pylist()
    at = {(pair["first"], pair["second"]): pair for pair in pairs}
    begin = at["resid_pre.0", "resid_pre.0"]
    assert begin["cosine"] == pytest.approx(1, abs=1e-6)
    assert begin["cka"] == pytest.approx(1, abs=1e-6)
    assert abs(begin["shuffled_cosine"]) < 0.5
    assert len(at) == 5 * 5  # embeddings, three blocks, after the final norm
    found = sites(artifact)
    assert {name.partition("/")[0] for name in found} == {"encoder", "decoder"}
    # a decoder never reads the last token of a text
    assert found["decoder/resid_pre.0"]["n_tokens"] == found["encoder/resid_pre.0"]["n_tokens"] - 60
    notebook = json.loads((artifact.path / "layers_notebook.json").read_text())
    assert len(notebook["layers"]) == 4
    assert notebook["stacks"]["cosines"].keys() == {"0", "1", "3"}


def test_texts_of_one_token_have_no_cosine_within(project, tmp_path):
    (tmp_path / "short.jsonl").write_text("".join(json.dumps({"text": f"w{i}"}) + "\n" for i in range(5, 12)))
    artifact = run("layers.source=model", f"dataset.dataset_name={tmp_path / 'short.jsonl'}")
    found = sites(artifact)["resid_post.0"]
    assert found["n_tokens"] == 7
    assert found["cosine_within"] is None
    assert found["cosine_across"] is not None
    text = read_report(artifact.path).text
    assert "no cosine within texts" in text
    assert "7 documents" in text
    assert "too narrow" in text


def test_one_text_has_no_intervals_and_no_cosine_across(project, tmp_path):
    (tmp_path / "one.jsonl").write_text(json.dumps({"text": "w5 w6 w7 w8"}) + "\n")
    artifact = run("layers.source=model", f"dataset.dataset_name={tmp_path / 'one.jsonl'}")
    found = sites(artifact)["resid_post.2"]
    assert found["cosine_within"] is not None
    assert found["cosine_within_low"] is found["cosine_across"] is None
    # four rows say nothing of 16 dimensions
    estimate = found["participation_unbiased"]
    assert estimate is None or estimate <= 1.1 * 16
    assert "NaN" not in read_report(artifact.path).text


def test_what_can_not_be_done_is_refused_with_a_remedy(project, tmp_path):
    with pytest.raises(StrataError, match=r"layers.source=model reads no store"):
        run("layers.source=model", "layers.second=store")
    with pytest.raises(StrataError, match=r"layers.layers: .* holds layers \[0, 1, 2\], not \[7\]"):
        run("layers.activations=store", "layers.layers=[7]")
    with pytest.raises(StrataError, match=r"no layer 7"):
        run("layers.layers=[7]", "layers.source=model")
    with pytest.raises(StrataError, match="the same store"):
        run("layers.activations=store", "layers.second=store")
    write_text(tmp_path / "other.jsonl", 20, 12, seed=5)
    project.collect("name=other", f"dataset.dataset_name={tmp_path / 'other.jsonl'}")
    with pytest.raises(StrataError, match="hold other tokens"):
        run("layers.activations=store", "layers.second=other")


def test_a_model_of_pictures_has_no_tokens(project, tmp_path):
    AutoConfig.for_model("vit", hidden_size=16, num_hidden_layers=2, num_attention_heads=4).save_pretrained(tmp_path)
    with pytest.raises(NotApplicableError, match="reads no text"):
        run(f"model.path={tmp_path}", "model.name=vit")


def test_a_second_run_is_reused_and_the_files_are_finite_json(project):
    first = run("layers.activations=store", "name=again")
    assert run("layers.activations=store", "name=again").meta.fingerprint == first.meta.fingerprint
    text = (Path(first.path) / "layers.json").read_text()
    assert "NaN" not in text
    assert math.isfinite(sites(first)["resid_post.2"]["participation_unbiased"])
