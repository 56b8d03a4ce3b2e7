"""measure_topology.py as a user runs it: clouds of a store, of prompts and of files; what it writes; forgeries."""

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load_file, save_file

import measure_topology
from src.artifacts import Artifact, open_artifact, open_meta, verify
from src.artifacts.files import checksums, relative_files, write_json
from src.artifacts.meta import META, Meta, Plan, meta_json
from src.config.topology import TopologyConfig
from src.errors import StrataError
from src.report.artifact_report import read_report
from src.report.topology.reading import read_topology
from src.stage.entry import compose, run_stage
from src.stage.recompute import recomputed
from tests.fixtures.tiny_project import TinyProject, make_project

QUICK = ("nulls.draws=19", "nulls.models=[gaussian]", "subsamples.draws=4", "threads=1")


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> TinyProject:
    """A project with a store of three layers."""
    project = make_project(tmp_path_factory.mktemp("topology"), n_documents=80, longest=24)
    project.collect()
    return project


@pytest.fixture
def project(made, monkeypatch) -> TinyProject:
    monkeypatch.chdir(made.folder)
    # drawing takes longer than all else; test_topology_figures.py draws
    monkeypatch.setattr("src.report.charts.draw_png", no_drawing)
    return made


def no_drawing(_: object) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + bytes(24)


def run(*overrides: str) -> Artifact:
    words = ["model.path=model", "model.name=tiny", "dataset.dataset_name=text.jsonl", "dataset.dataset_split=null"]
    words = [*words, *QUICK, *overrides]
    return run_stage(
        measure_topology.run, TopologyConfig, "measure_topology", compose("measure_topology", words), words
    )


@pytest.fixture(scope="module")
def last(made) -> Artifact:
    """The last tokens of a store, measured."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(made.folder)
        patch.setattr("src.report.charts.draw_png", no_drawing)
        artifact = run("n_points=50", "layers=[0,2]", "name=last")
    return Artifact(made.folder / artifact.path, artifact.meta)


def test_all_layers_of_a_store_are_measured(last, made):
    topology = read_topology(last)
    assert [profile.name for profile in topology.profiles] == ["resid_post/00", "resid_post/02"]
    store = made.store()
    for profile in topology.profiles:
        points = topology.points(profile.name)
        table = topology.table(profile.name)
        assert points.shape == (50, 16)
        assert profile.n_points == 50
        assert profile.n_subsample == 40
        assert len(table) == 50
        assert set(profile.statistics["beta_1"].nulls) == {"gaussian"}
    lengths = {
        sequence: int(length)
        for part in [pq.read_table(next((made.folder / "artifacts/sequences").glob("*/sequences.parquet")))]
        for sequence, length in enumerate(part.column("length").to_pylist())
    }
    for row in topology.table("resid_post/02").to_pylist():
        assert row["position"] == lengths[row["sequence"]] - 1
        assert row["text"] == row["context"].split()[-1]
    assert last.meta.parents[0].name == store.name
    assert topology.protocol["name"] == "robust"
    assert topology.model_name == "tiny"


def test_what_is_read_back_is_what_was_found(last):
    """The profile of the stored cloud, computed here, is the one in the files."""
    from src.stage.topology.measuring import profile_table, protocol_of, settings_of

    topology, identity = read_topology(last), last.meta.identity
    stored = topology.profiles[1]
    protocol = protocol_of(identity["protocol"])
    points = topology.points(stored.name)
    fresh = profile_table(
        points, topology.table(stored.name), protocol, settings_of(identity, [50, 50], protocol), 42, stored
    )
    assert fresh.statistics.keys() == stored.statistics.keys()
    for name, measure in fresh.statistics.items():
        np.testing.assert_equal(asdict(stored.statistics[name]), asdict(measure))
    for mine, theirs in zip(fresh.persistence.bars, stored.persistence.bars, strict=True):
        np.testing.assert_array_equal(mine.diagram, theirs.diagram)
        np.testing.assert_array_equal(mine.death_edge, theirs.death_edge)
    np.testing.assert_array_equal(fresh.tests[1].p_null, stored.tests[1].p_null)
    np.testing.assert_array_equal(fresh.curves.betti[1], stored.curves.betti[1])
    assert fresh.intrinsic.keys() == stored.intrinsic.keys()
    np.testing.assert_equal(asdict(fresh.intrinsic["two_nn"]), asdict(stored.intrinsic["two_nn"]))
    assert fresh.outliers is not None
    assert stored.outliers is not None
    np.testing.assert_equal(fresh.outliers.statistics, stored.outliers.statistics)
    assert fresh.input_sha256 == stored.input_sha256


def test_the_report_shows_tables_and_figures(last):
    report = read_report(last.path)
    assert report.tables[0].title == "Topology of the clouds"
    assert len(report.tables[0].rows) == 2
    assert {figure.title for figure in report.figures} >= {"Persistence diagrams", "Topology over layers"}
    assert "2 clouds of 50 points from store (last token of each text)" in report.text


def test_a_finished_artifact_is_reused_and_another_seed_is_another_one(project, last, capsys):
    run("n_points=50", "layers=[0,2]", "name=last")
    assert "reused" in capsys.readouterr().out
    again = run("n_points=50", "layers=[0,2]", "seed=7")
    assert again.meta.fingerprint != last.meta.fingerprint


def test_words_are_tokens_and_labels_and_means_over_their_contexts(project, tmp_path):
    by_word = read_topology(run("tokens=[w9,w10,w11]", "n_points=30", "layers=1"))
    table = by_word.table("resid_post/01").to_pylist()
    assert {row["text"] for row in table} == {"w9", "w10", "w11"}
    assert [row["label"] for row in table] == sorted((row["label"] for row in table), key=["w9", "w10", "w11"].index)
    (tmp_path / "labels.csv").write_text("word,label\nw9,low\nw10,low\nw40,high\nw41,high\n")
    by_label = read_topology(run("tokens=label", f"labels={tmp_path}/labels.csv", "contexts=2", "layers=1"))
    rows = by_label.table("resid_post/01").to_pylist()
    assert {(row["label"], row["label_index"]) for row in rows} == {("low", 0), ("high", 1)}
    assert {row["n_tokens"] for row in rows} == {2}
    assert all((int(row["text"][1:]) < 20) == (row["label"] == "low") for row in rows)


def test_a_cycle_of_words_and_its_loops(project, capsys):
    words = ",".join(f"w{index}" for index in range(20, 30))
    found = read_topology(
        run(f"tokens=[{words}]", "contexts=all", "cyclic_labels=true", "subsamples.draws=0", "layers=0")
    )
    (profile,) = found.profiles
    assert found.table(profile.name).column("label").to_pylist() == words.split(",")
    assert profile.n_subsample is None
    assert profile.loops
    assert len(profile.cycles) == len(profile.loops)
    assert "The longest loop of each cloud" in capsys.readouterr().out
    # loops.json tells what the points are
    told = json.loads((found.artifact.path / "loops.json").read_text())[profile.name][0]
    names = [point["label"] for point in told["walks"][0]]
    assert names == [words.split(",")[point] for point in profile.loops[0].walks[0]]


def test_ablations_of_size_and_components(project):
    sizes = ("ablation.n_points=[10,20]", "ablation.pca_components=[2]", "ablation.repeats=3")
    found = read_topology(run("n_points=40", "layers=1", "subsamples.draws=0", *sizes))
    beta = [record for record in found.ablation if record["statistic"] == "h1_count"]
    assert [(record["varied"], record["size"]) for record in beta] == [
        *(("n_points", size) for size in (10, 20, 40)),
        *(("pca_components", size) for size in (2, None)),
    ]
    whole = found.profiles[0].statistics["h1_count"].value
    assert [beta[2]["value"], beta[4]["value"]] == [whole, whole]
    assert beta[0]["value"] < whole
    assert not recomputed(found.artifact.path, "topology")


def test_prompts_need_no_store(project, tmp_path):
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("\n".join(f"w{5 + i} w{20 + i} w{40 - i}" for i in range(12)) + "\n\n")
    batched = read_topology(run(f"prompts={prompts}", "hook=mlp_out", "layers=[1,2]", "batch_size=5"))
    alone = read_topology(run(f"prompts={prompts}", "hook=mlp_out", "layers=[1,2]", "batch_size=1", "overwrite=true"))
    for name in ("mlp_out/01", "mlp_out/02"):
        np.testing.assert_allclose(batched.points(name), alone.points(name), rtol=1e-4, atol=1e-5)
    assert batched.table("mlp_out/01").column("text").to_pylist() == [f"w{40 - i}" for i in range(12)]
    assert batched.artifact.meta.fingerprint == alone.artifact.meta.fingerprint, "batches change no number"


def test_labelled_prompts(project, tmp_path):
    prompts = tmp_path / "prompts.jsonl"
    lines = [{"prompt": f"w{5 + i} w{20 + i}", "label": ("even", "odd")[i % 2]} for i in range(12)]
    prompts.write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = read_topology(run(f"prompts={prompts}", "layers=0", "tokens=mean", "contexts=2"))
    assert found.table("resid_post/00").column("label").to_pylist() == ["even"] * 3 + ["odd"] * 3


def test_models_with_random_weights_are_a_control(project):
    found = read_topology(run("random_init_control=true", "nulls.random_models=3", "n_points=40", "layers=2"))
    null = found.profiles[0].statistics["mst_mean"].nulls["random_init"]
    assert null.p in (0.25, 0.5, 0.75, 1.0)
    assert null.low < null.high, "each of them has weights of its own"


def test_clouds_of_files(project, tmp_path, capsys):
    draws = np.random.default_rng(0)
    clouds = {"a": draws.normal(size=(30, 3)), "b": draws.normal(size=(40, 5)).astype(np.float16)}
    np.save(tmp_path / "one.npy", clouds["a"])
    np.savez(tmp_path / "two.npz", **clouds)
    save_file({"c": clouds["a"].astype(np.float32)}, tmp_path / "three.safetensors")
    (tmp_path / "names.txt").write_text("\n".join(f"row {i}" for i in range(30)))
    files = f"clouds=[{tmp_path}/one.npy,{tmp_path}/two.npz,{tmp_path}/three.safetensors]"
    found = read_topology(run(files, "protocol=frozen_v5"))
    assert [profile.name for profile in found.profiles] == ["one", "two/a", "two/b", "three"]
    assert [profile.n_points for profile in found.profiles] == [30, 30, 40, 30]
    np.testing.assert_array_equal(found.points("one"), clouds["a"])
    assert found.profile("one").published == found.profile("two/a").published
    assert "As actopo prints it" in capsys.readouterr().out
    assert not recomputed(found.artifact.path, "topology")
    named = read_topology(run(f"clouds={tmp_path}/one.npy", f"point_names={tmp_path}/names.txt", "n_points=20"))
    table = named.table("one").to_pylist()
    assert len(table) == 20
    assert all(row["text"] == f"row {row['row']}" for row in table)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["hook=mlp_out"], r"has no mlp_out\.0, mlp_out\.1, mlp_out\.2"),
        (["layers=9"], r"layers=\[9\]: tiny has layers 0\.\.2"),
        (["tokens=[w9,monday]"], "'monday' is no single token of this tokenizer: it is unknown to it"),
        (["tokens=[w9,w9]"], "tokens is a list of different words"),
        (["tokens=[w9,w10]", "contexts=500"], "too few of 'w9'"),
        (["tokens=90"], "of the counted tokens none fits"),
        (["tokens=label"], "tokens=label and labels=FILE go together"),
        (["tokens=label", "labels=nowhere.csv"], "labels=nowhere.csv can't be read"),
        (["prompts=nowhere.txt"], "prompts=nowhere.txt can't be read"),
        (["prompts=text.jsonl", "clouds=a.npy"], "prompts and clouds are set"),
        (["clouds=nowhere.npy"], "clouds=nowhere.npy: no such file"),
        (["clouds=text.jsonl"], "ends in .npy, .npz, .safetensors"),
        (["clouds=a.npy", "random_init_control=true"], "needs a model"),
        (["chat_template=true"], "it needs prompts=FILE"),
        (["cyclic_labels=true"], "cyclic_labels=true needs labels"),
        (["tokens=[w9,w10]", "cyclic_labels=true"], "there are 2 labels, and any order of fewer than 4 is in order"),
        (["nulls.draws=9"], "no p is below 0.1, so no loop could be significant at level=0.05; draw 19 or more"),
        (["protocol=frozen_v5", "protocol.scale=median"], "goes with protocol=robust"),
        (["n_points=60", "memory_gb=0.000001", "layers=0"], "memory"),
    ],
)
def test_what_does_not_fit_is_told(project, overrides, message):
    with pytest.raises(StrataError, match=message):
        run(*overrides)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.ones(7), "a cloud is a matrix of points by dimensions"),
        (np.ones((2, 3)), "needs 3 or more points"),
        (np.full((5, 2), np.nan), "5 of 5 points are not finite"),
        (np.array([[1, "a"]] * 5, dtype=object), "it holds Python objects"),
        (np.array([["a", "b"]] * 5), "not numbers"),
    ],
)
def test_arrays_that_are_no_clouds(project, tmp_path, array, message):
    np.save(tmp_path / "bad.npy", array, allow_pickle=True)
    with pytest.raises(StrataError, match=message):
        run(f"clouds={tmp_path}/bad.npy")


def forged(artifact: Artifact, folder: Path, change: Callable[[Path, dict], None]) -> Artifact:
    """A copy of an artifact with something changed, sealed again as its author would have: checksums, fingerprint."""
    target = folder / "topology" / "forged"
    shutil.copytree(artifact.path, target)
    values = json.loads((target / META).read_text())
    values.pop("digest")
    change(target, values)
    parents = open_meta(artifact.path).parents
    plan = Plan(folder, "topology", "", values["identity"], parents, "forged")
    names = [name for name in relative_files(target) if name != META]
    values |= {"name": "forged", "fingerprint": plan.fingerprint, "files": checksums(target, names), "parents": parents}
    write_json(target / META, meta_json(Meta(**values)))
    assert not verify(target)
    return open_artifact(target, "topology")


def edit_json(name: str, edit: Callable[[Any], None]) -> Callable[[Path, dict], None]:
    def change(folder: Path, _: dict) -> None:
        values = json.loads((folder / name).read_text())
        edit(values)
        write_json(folder / name, values)

    return change


def a_statistic(folder: Path, _: dict) -> None:
    table = pq.read_table(folder / "measures.parquet").to_pandas()
    place = table.index[table.statistic == "h1_total"][0]
    table.loc[place, "value"] *= 1.01
    table.to_parquet(folder / "measures.parquet")


def a_p_value(folder: Path, _: dict) -> None:
    table = pq.read_table(folder / "measures.parquet").to_pandas()
    table.loc[table.index[table.statistic == "beta_1"][0], "gaussian.p"] = 0.001
    table.to_parquet(folder / "measures.parquet")


def a_bar(folder: Path, _: dict) -> None:
    table = pq.read_table(folder / "bars.parquet").to_pandas()
    place = table.index[table.dimension == 1][0]
    table.loc[place, "death"] += 0.1
    table.to_parquet(folder / "bars.parquet")


def a_cloud(folder: Path, _: dict) -> None:
    clouds = load_file(folder / "clouds.safetensors")
    clouds["resid_post/00"][3] += 1
    save_file(clouds, folder / "clouds.safetensors")


def a_landscape(folder: Path, _: dict) -> None:
    vectors = load_file(folder / "vectors.safetensors")
    vectors["resid_post/02/h0_landscapes"][0, 10] += 0.1
    save_file(vectors, folder / "vectors.safetensors")


def a_cloud_and_its_digest(folder: Path, values: dict) -> None:
    from src.topology.profile import cloud_sha256

    a_cloud(folder, values)
    digest = cloud_sha256(load_file(folder / "clouds.safetensors")["resid_post/00"])
    edit_json("clouds.json", lambda headers: headers[0].update(input_sha256=digest))(folder, values)


def the_protocol(_: Path, values: dict) -> None:
    values["identity"]["protocol"]["betti_fraction"] = 0.05


def the_protocol_and_its_fingerprint(_: Path, values: dict) -> None:
    from src.topology.protocols.protocol import ROBUST

    changed = ROBUST.changed({"betti_fraction": 0.5})
    values["identity"]["protocol"] = {**asdict(changed), "fingerprint": changed.fingerprint}
    values["summary"] |= {"protocol": changed.title, "protocol_fingerprint": changed.fingerprint}


def the_seed(_: Path, values: dict) -> None:
    values["identity"]["seed"] = 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (a_statistic, "measures.parquet: resid_post/00 h1_total value"),
        (a_p_value, "measures.parquet: resid_post/00 beta_1 gaussian.p: 0.001 is there"),
        (a_bar, "bars.parquet: resid_post/00 death"),
        (a_landscape, "vectors.safetensors: resid_post/02 h0_landscapes[0][10]"),
        (a_cloud, "clouds.safetensors: resid_post/00 is not the cloud that was measured"),
        (a_cloud_and_its_digest, "measures.parquet: resid_post/00"),
        (the_protocol, "the protocol's fingerprint is"),
        (the_protocol_and_its_fingerprint, "beta_0 value"),
        (the_seed, "measures.parquet: resid_post/00"),
        (edit_json("clouds.json", lambda headers: headers[1].update(scale=3.0)), "clouds.json: resid_post/02 scale"),
        (
            edit_json("clouds.json", lambda headers: headers[0]["intrinsic"].update(two_nn=[3.0, 2.0, 4.0])),
            "clouds.json: resid_post/00 intrinsic two_nn",
        ),
        (edit_json("report.json", lambda report: report["tables"][0]["rows"][0].__setitem__(1, 60)), "report.json"),
        (lambda _, values: values["summary"]["metrics"].update({"resid_post/00/beta_1": 9.0}), "meta.json: metrics"),
    ],
)
def test_forgeries_are_found(last, tmp_path, change, message):
    problems = recomputed(forged(last, tmp_path, change).path, "topology")
    assert any(message in problem for problem in problems), problems


def test_what_is_not_forged_comes_out_again(last):
    assert recomputed(last.path, "topology") == []
