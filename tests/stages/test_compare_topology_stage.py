"""compare_topology.py as a user runs it: a model and its fine-tune, prompts of two kinds, clouds of files, refusals."""

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from transformers import AutoModelForCausalLM

import compare_topology
import measure_topology
from src.artifacts import Artifact, verify
from src.config.compare_topology import CompareTopologyConfig
from src.config.topology import TopologyConfig
from src.errors import StrataError
from src.report.artifact_report import read_report
from src.report.topology.reading import read_topology
from src.stage.entry import compose, run_stage
from src.stage.topology_comparison.matching import _by_depth
from src.topology.comparisons.paired import linear_cka
from tests.fixtures.tiny_models import tiny_model
from tests.fixtures.tiny_project import TinyProject, make_project, tiny_tokenizer, write_text

NULLS = ("nulls.draws=19", "nulls.models=[]", "subsamples.draws=3", "level=0.06")
QUICK = ("draws.union=99", "draws.paired=19", "draws.halves=6", "draws.loops=3", "threads=1")


PNG = b"\x89PNG\r\n\x1a\n" + bytes(24)


def no_chart(_: object, stem: Path) -> dict[str, Path]:
    """In place of save_chart, which takes longer than all else."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    paths = {suffix: stem.with_name(f"{stem.name}.{suffix}") for suffix in ("png", "html", "vl.json")}
    for suffix, path in paths.items():
        path.write_bytes(PNG if suffix == "png" else b"{}")
    return paths


def measure(*overrides: str) -> Artifact:
    words = [*overrides, *NULLS, "threads=1"]
    config = compose("measure_topology", words)
    return run_stage(measure_topology.run, TopologyConfig, "measure_topology", config, words)


def compare(*overrides: str) -> Artifact:
    words = ["dataset.dataset_name=text.jsonl", "dataset.dataset_split=null", *QUICK, *overrides]
    config = compose("compare_topology", words)
    return run_stage(compare_topology.run, CompareTopologyConfig, "compare_topology", config, words)


def circle(n: int, seed: int, radius: float = 1.0, centre: float = 0.0) -> np.ndarray:
    random = np.random.default_rng(seed)
    angle = random.random(n) * 2 * np.pi
    plane = np.stack([np.cos(angle), np.sin(angle)], 1) * radius
    return np.concatenate([plane + centre, 0.05 * random.normal(size=(n, 4))], axis=1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A tiny model, the same with a little noise on its weights, a wider one, and what was measured of them."""
    folder = tmp_path_factory.mktemp("compared")
    make_project(folder, n_documents=70, longest=20)
    write_text(folder / "others.jsonl", 70, 20, seed=1)
    tuned = tiny_model("llama")
    noise = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in tuned.parameters():
            weight += 0.01 * torch.randn(weight.shape, generator=noise)
    for name, module in {"tuned": tuned, "wide": tiny_model("llama", seed=2, hidden_size=32, head_dim=8)}.items():
        module.save_pretrained(folder / name)
        tiny_tokenizer().save_pretrained(folder / name)
    np.save(folder / "ring.npy", circle(60, 0))
    np.save(folder / "far.npy", circle(60, 1, radius=2.0, centre=50.0))
    np.save(folder / "turned.npy", circle(60, 0) @ np.linalg.qr(np.random.default_rng(5).normal(size=(6, 6)))[0])
    np.save(folder / "few.npy", circle(30, 2))
    np.save(folder / "more.npy", circle(63, 3))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr("src.report.artifact_report.save_chart", no_chart)
        patch.setattr("src.stage.topology.showing.topology_figures", lambda *_: [])
        read = "prompts=text.jsonl", "model.path=model"
        measure(*read, "model.name=base", "name=base")
        measure("prompts=text.jsonl", "model.path=tuned", "model.name=tuned", "name=tuned")
        measure("prompts=text.jsonl", "model.path=wide", "model.name=wide", "name=wide", "layers=[0,2]")
        measure("prompts=others.jsonl", "model.path=model", "model.name=base", "name=others", "layers=[1]")
        measure(*read, "model.name=base", "name=first", "tokens=first", "layers=[1]")
        measure(*read, "model.name=base", "name=strict", "protocol=frozen_v5", "layers=[1]")
        for name in ("ring", "far", "turned", "few", "more"):
            measure(f"clouds={name}.npy", f"name={name}")
        for name in ("ring", "far"):
            measure(f"clouds={name}.npy", f"name={name}_v5", "protocol=frozen_v5")
    return folder


@pytest.fixture
def project(folder, monkeypatch) -> Path:
    monkeypatch.chdir(folder)
    monkeypatch.setattr("src.report.artifact_report.save_chart", no_chart)
    return folder


@pytest.fixture(scope="module")
def pair(folder) -> Artifact:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr("src.report.charts.draw_png", lambda _: PNG)
        made = compare("results=[base,tuned]", "name=pair")
    return Artifact(folder / made.path, made.meta)


def records(artifact: Artifact) -> list[dict]:
    return pq.read_table(artifact.path / "pairs.parquet").to_pylist()


def topology(folder: Path, name: str):
    from src.artifacts import open_artifact

    return read_topology(open_artifact(folder / "artifacts/topology" / name, "topology"))


def test_under_its_protocol_actopo_s_numbers_are_there_and_why_they_are_no_verdict(project, capsys):
    import actopo

    made = compare("results=[ring_v5,far_v5]")
    ring, far = (np.load(project / f"{name}.npy") for name in ("ring", "far"))
    (record,) = records(made)
    for mode, independent in (("independent", True), ("shared", False)):
        expected = actopo.union_test(ring, far, independent_eps=independent)
        assert {key: record[f"actopo_{mode}_{key}"] for key in expected} == expected
    expected = actopo.bottleneck_distance(ring, far)
    assert {key: record[f"actopo_{key}"] for key in expected} == expected
    assert record["actopo_phi"] == actopo.phi(ring, far)
    assert str(record["actopo_center_distance"]) == str(actopo.center_distance(ring, far))
    assert "actopo's union test: ring_v5, far_v5" in capsys.readouterr().out
    report = (project / made.path / "comparison.md").read_text()
    assert "no verdict on overlap: bars of the first cloud are counted above" in report
    # under the default protocol, nothing of it
    assert not [key for key in records(compare("results=[ring,far]"))[0] if key.startswith("actopo")]


def test_a_model_and_its_fine_tune_are_compared_prompt_by_prompt(pair, folder):
    assert verify(pair.path) == []
    found = records(pair)
    assert [record["first_cloud"] for record in found] == [f"resid_post/0{layer}" for layer in range(3)]
    base, tuned = topology(folder, "base"), topology(folder, "tuned")
    for record in found:
        name = record["first_cloud"]
        plain, debiased = linear_cka(*(each.points(name).astype(float) for each in (base, tuned)))
        assert (record["cka_value"], record["debiased_cka_value"]) == pytest.approx((plain, debiased))
        assert record["debiased_cka_low"] <= debiased <= record["debiased_cka_high"]
        assert record["debiased_cka_p"] == 1 / 20
        assert record["basis_agreement"] > 0.9
        assert record["first_points"] == base.profile(name).n_points
        assert record["as_they_are_tree_cross_edges"] > 0
        assert record["scale_free_h1_bottleneck"] <= record["scale_free_h1_unmatched"] + 1e-9
    assert {(parent.kind, parent.name) for parent in pair.meta.parents} >= {("topology", "base"), ("topology", "tuned")}


def test_all_layers_of_each_and_of_both_are_compared(pair, folder):
    layers = json.loads((pair.path / "layers.json").read_text())
    assert set(layers) == {"base", "tuned", "base | tuned"}
    base, tuned = topology(folder, "base"), topology(folder, "tuned")
    by_measure = {each["measure"]: each for each in layers["base | tuned"]}
    assert set(by_measure) == {"debiased CKA", "RSA", "bottleneck / scale"}
    expected = linear_cka(base.points("resid_post/00").astype(float), tuned.points("resid_post/02").astype(float))[1]
    assert by_measure["debiased CKA"]["values"][0][2] == pytest.approx(expected)
    own = {each["measure"]: np.array(each["values"]) for each in layers["base"]}
    np.testing.assert_allclose(own["RSA"].diagonal(), 1)
    np.testing.assert_allclose(own["bottleneck / scale"], own["bottleneck / scale"].T)


def test_perplexity_is_that_of_the_model_itself(pair, folder):
    found = json.loads((pair.path / "perplexity.json").read_text())
    assert found["none"] == {}
    texts = dict.fromkeys(json.loads(line)["text"] for line in (folder / "text.jsonl").read_text().splitlines())
    for name, path in {"base": "model", "tuned": "tuned"}.items():
        module = AutoModelForCausalLM.from_pretrained(folder / path).eval()
        nll = n_tokens = n_bytes = 0
        for text in texts:
            ids = torch.tensor([[1, *(int(word[1:]) for word in text.split())]])  # BOS, and w7 is token 7
            with torch.no_grad():
                nll += float(module(ids, labels=ids).loss) * (ids.shape[1] - 1)
            n_tokens += ids.shape[1] - 1
            n_bytes += len(text)
        told = found["models"][name]
        assert told["n_tokens"] == n_tokens
        assert told["perplexity"]["nll"]["value"] == pytest.approx(nll / n_tokens, rel=1e-5)
        assert told["perplexity"]["bits_per_byte"]["value"] == pytest.approx(nll / math.log(2) / n_bytes, rel=1e-5)


def test_two_models_give_no_p_and_it_is_said_why(pair):
    found = json.loads((pair.path / "perplexity.json").read_text())["correlations"]
    assert found
    assert all(each["p"] is None and each["q"] is None and each["n"] == 2 for each in found.values())
    text = read_report(pair.path).text
    assert "pseudo-replication" in text
    assert "2 models are too few for a p-value" in text


def test_the_report_is_there_as_page_markdown_and_section(pair, project, capsys):
    report = read_report(pair.path)
    assert [link.title for link in report.links] == ["Meta-analysis"]
    assert "base and tuned: Row by row their clouds are nearly the same" in report.text
    titles = [table.title for table in report.tables]
    assert titles[:3] == ["Results", "Overlap: base, tuned", "Agreement row by row: base, tuned"]
    markdown = (pair.path / "comparison.md").read_text()
    page = (pair.path / "comparison.html").read_text()
    for title in titles:
        assert f"**{title}**" in markdown
        assert title.replace("&", "&amp;") in page
    for link in [line.split("(")[1].rstrip(")") for line in markdown.splitlines() if line.startswith("![")]:
        assert (pair.path / link).exists()
    capsys.readouterr()
    again = compare("results=[base,tuned]", "name=pair")
    assert again.meta.fingerprint == pair.meta.fingerprint
    assert "reused" in capsys.readouterr().out


def test_other_prompts_are_compared_as_clouds_alone(project):
    made = compare("results=[base,others]", "perplexity.measure=false")
    (record,) = records(made)
    assert record["first_cloud"] == record["second_cloud"] == "resid_post/01"
    assert "cka_value" not in record
    assert record["as_they_are_energy_p"] > 0.01  # random words, as the others
    assert "not paired" in read_report(made.path).text
    assert {table.title for table in read_report(made.path).tables}.isdisjoint({"Perplexity"})


def test_models_of_unlike_width_have_no_union_but_agree_in_part(project):
    made = compare("results=[base,wide]", "perplexity.measure=false", "match_layers=depth")
    found = records(made)
    assert [record["second_cloud"] for record in found] == ["resid_post/00", "resid_post/02"]
    assert all("16 and 32 dimensions" in record["no_union"] and "verdict" not in record for record in found)
    assert all(0 < record["cka_value"] < 1 for record in found)
    assert "can't be said" in read_report(made.path).text


def test_clouds_of_files_that_lie_apart_and_have_one_shape(project):
    (record,) = records(compare("results=[ring,far]"))
    assert record["verdict"] == "apart"
    assert record["as_they_are_tree_cross_edges"] == 1
    assert record["shape_verdict"] == "no difference found"
    assert record["h1_kept_first"] == record["h1_kept_second"] == 1
    assert record["centre_raw"] == pytest.approx(50 * math.sqrt(2), rel=0.02)
    # the raw distance sees the size of the circles, the one free of scale does not
    assert record["raw_h1_bottleneck"] > 0.3
    assert record["scale_free_h1_bottleneck"] < 0.1
    assert not record["halves_between"] > record["halves_high"]


def test_row_with_row_on_the_users_word(project):
    (record,) = records(compare("results=[ring,turned]", "pairing=rows"))
    assert record["debiased_cka_value"] == pytest.approx(1)
    assert record["procrustes_value"] == pytest.approx(0, abs=1e-6)
    assert record["basis_agreement"] < 0.25
    assert "axes do not agree" in record["no_union"]
    (forced,) = records(compare("results=[ring,turned]", "pairing=rows", "same_basis=true"))
    assert "no_union" not in forced
    assert forced["verdict"] == "apart"  # two tilted rings that hardly touch


def test_layers_of_one_result_among_themselves(project):
    made = compare("results=base", "perplexity.measure=false")
    assert set(json.loads((made.path / "layers.json").read_text())) == {"base"}
    assert "neighbouring layers agree" in read_report(made.path).text


def test_all_results_of_an_experiment(project, tmp_path):
    for name in ("base", "tuned"):
        shutil.copytree(project / "artifacts/topology" / name, tmp_path / "topology" / name)
    made = compare(f"artifacts_dir={tmp_path}", "perplexity.measure=false", "reference=tuned")
    assert [(record["first"], record["second"]) for record in records(made)] == [("tuned", "base")] * 3
    with pytest.raises(StrataError, match=r"no results of experiment_name=other.*measure_topology\.py"):
        compare(f"artifacts_dir={tmp_path}", "experiment_name=other")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["results=[base,strict]"], r"differ in their protocol \(scale: median and diameter.*protocol=\.\.\."),
        (["results=[base,first]"], r"differ in their choice of points \(tokens: last and first\)"),
        (["results=[ring,few]"], r"ring have 60 points, those of few 30.*n_points=30"),
        (["results=[base,base]"], "base is named twice"),
        (["results=[base,nothing]"], r"results=nothing: neither a path nor one of the topology .*base, far"),
        (["results=[base,tuned]", "reference=wide"], "reference=wide is none of the results: base, tuned"),
        (["results=ring"], "holds one cloud, and there is no other result"),
        (["results=[others,wide]"], r"no cloud of base \(resid_post/01\) goes with one of wide"),
        (["results=[ring,more]", "pairing=rows"], "pairing=rows: ring has 60 rows and more 63"),
        (["draws.union=19"], "no p of a verdict is below 0.15.*draw 59 or more"),
        (["pairing=maybe"], "pairing: 'maybe' is not allowed"),
    ],
)
def test_what_cannot_be_compared_is_refused(project, overrides, message):
    with pytest.raises(StrataError, match=message):
        compare(*overrides, "perplexity.measure=false")


def test_damaged_results_are_refused(project, tmp_path):
    shutil.copytree(project / "artifacts/topology/ring", tmp_path / "topology/ring")
    with (tmp_path / "topology/ring/clouds.json").open("a") as file:
        file.write(" ")
    with pytest.raises(StrataError, match=r"ring is damaged \(clouds.json.*measure it again"):
        compare(f"artifacts_dir={tmp_path}", "results=ring")


def test_results_of_a_store_know_its_model(project):
    TinyProject(project).collect("num_tokens=300")
    store = "activations=store", "model.path=model", "model.name=tiny"
    measure(*store, "layers=[0,2]", "name=stored")
    made = compare("results=stored")
    told = json.loads((made.path / "perplexity.json").read_text())
    assert list(told["models"]) == ["tiny"]
    assert told["none"] == {}


def test_a_model_that_was_changed_since_has_no_perplexity(project, tmp_path, capsys):
    shutil.copytree(project / "artifacts/topology/base", tmp_path / "topology/base")
    shutil.copytree(project / "model", tmp_path / "kept")
    try:
        shutil.copy(project / "tuned/model.safetensors", project / "model/model.safetensors")
        made = compare(f"artifacts_dir={tmp_path}", "results=base")
    finally:
        shutil.copy(tmp_path / "kept/model.safetensors", project / "model/model.safetensors")
    told = json.loads((made.path / "perplexity.json").read_text())
    assert told["models"] == {}
    assert "not those that were measured" in told["none"]["base"]


def test_layers_are_matched_by_depth():
    few, many = {0: "a0", 5: "a5"}, {layer: f"b{layer}" for layer in range(12)}
    assert _by_depth(few, many, 6, 12) == [("a0", "b1"), ("a5", "b11")]
    assert _by_depth(many, few, 12, 6) == [("b1", "a0"), ("b11", "a5")]
