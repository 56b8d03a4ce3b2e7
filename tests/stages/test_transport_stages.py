"""collect -> fit -> evaluate on the testbed, as a user runs them."""

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from sklearn.linear_model import Ridge
from sklearn.metrics import r2_score

import collect_activations
import eval as eval_stage
import train_transport_operators
from src.activations.store import ActivationStore
from src.artifacts import open_meta, verify
from src.config.stages import CollectConfig, EvalConfig, SplitConfig, TransportConfig
from src.errors import StrataError
from src.stage.entry import compose, run_stage
from src.stage.stores import split_store
from src.transport.operator import TransportOperator
from tests.fixtures.stored_rows import counted_rows

ROOT = Path(__file__).parents[2]
STAGES = {
    "collect_activations": (collect_activations.run, CollectConfig),
    "train_transport_operators": (train_transport_operators.run, TransportConfig),
    "eval": (eval_stage.run, EvalConfig),
}


def run(stage: str, artifacts: Path, *overrides: str):
    words = [f"artifacts_dir={artifacts}", "threads=1", *overrides]
    function, schema = STAGES[stage]
    return run_stage(function, schema, stage, compose(stage, words), words)


def script(name: str, *arguments: str, cwd: Path) -> subprocess.CompletedProcess:
    command = [sys.executable, str(ROOT / f"{name}.py"), *arguments]
    return subprocess.run(
        command, cwd=cwd, env=dict(os.environ), capture_output=True, text=True, timeout=300, check=False
    )


@pytest.fixture(scope="module")
def collected(tmp_path_factory):
    artifacts = tmp_path_factory.mktemp("project") / "artifacts"
    return run("collect_activations", artifacts, "num_tokens=12000", "part_megabytes=2", "storage_dtype=float32")


@pytest.fixture(scope="module")
def artifacts(collected):
    return collected.path.parents[1]


@pytest.fixture(scope="module")
def operators(collected, artifacts):
    return run("train_transport_operators", artifacts, "experiment.L=[0,1]", "experiment.k=[1,2]", "cv_folds=3")


@pytest.fixture(scope="module")
def evaluation(operators, artifacts):
    return run("eval", artifacts, "bootstrap=100")


def test_operators_and_their_scores_are_scikit_learn_s_on_the_rows_of_the_store(collected, operators, evaluation):
    operator = TransportOperator.load(operators.path / "L0_k2")
    rows, sequence = counted_rows(collected.path, [0, 2])
    split = split_store(ActivationStore(collected), SplitConfig(train=0.6, val=0.2, test=0.2), 3, seed=42)
    group = split.groups[sequence]
    train, test = group < split.val, group == split.test
    expected = Ridge(alpha=operator.alpha).fit(rows[0][train], rows[2][train])
    np.testing.assert_allclose(operator.weight.numpy(), expected.coef_.T, atol=1e-6)
    records = pq.read_table(evaluation.path / "residual.parquet").to_pylist()
    by_name = {(record["L"], record["k"], record["predictor"]): record for record in records}
    assert {name for _, _, name in by_name} == {"operator", "identity", "identity + shift", "mean"}
    scores = by_name[0, 2, "operator"]
    prediction = expected.predict(rows[0][test])
    assert scores["n_rows"] == test.sum()
    assert scores["r2_uniform"] == pytest.approx(r2_score(rows[2][test], prediction), abs=1e-6)
    assert by_name[0, 2, "identity"]["r2_uniform"] == pytest.approx(r2_score(rows[2][test], rows[0][test]), abs=1e-6)
    assert scores["r2_uniform_low"] < scores["r2_uniform"] < scores["r2_uniform_high"]
    assert scores["with_bos_n_rows"] > scores["n_rows"]
    for record in records:
        told = TransportOperator.load(operators.path / f"L{record['L']}_k{record['k']}")
        assert (record["method"], record["hook"], record["alpha"]) == ("ridge", "resid_post", told.alpha)
        assert record["operators"] == operators.meta.name
    report = json.loads((evaluation.path / "report.json").read_text())
    assert "(ridge at resid_post)" in report["text"]
    assert "ridge at resid_post" in report["tables"][0]["caption"]


@pytest.fixture
def fresh(tmp_path, artifacts):
    """An artifacts folder that holds the store and no operators."""
    folder = tmp_path / "artifacts"
    folder.mkdir()
    (folder / "activations").symlink_to(artifacts / "activations")
    return folder


def test_a_given_alpha_arrives_in_its_unit(collected, fresh):
    rows, sequence = counted_rows(collected.path, [0, 1])
    split = split_store(ActivationStore(collected), SplitConfig(train=0.6, val=0.2, test=0.2), 3, seed=42)
    train = split.groups[sequence] < split.val
    x, y = rows[0][train], rows[1][train]
    words = ("experiment.L=0", "experiment.k=1", "cv_folds=3", "auto_tune=false")
    unit = ((x - x.mean(0)) ** 2).sum() / x.shape[1]
    for alpha_unit, regularization, alpha in (("absolute", 7.5, 7.5), ("relative", 0.02, 0.02 * unit)):
        made = run(
            "train_transport_operators", fresh, *words, f"alpha_unit={alpha_unit}", f"regularization={regularization}"
        )
        operator = TransportOperator.load(made.path / "L0_k1")
        expected = Ridge(alpha=alpha).fit(x, y)
        assert operator.alpha == pytest.approx(alpha, rel=1e-9)
        np.testing.assert_allclose(operator.weight.numpy(), expected.coef_.T, atol=1e-6)
        np.testing.assert_allclose(operator.bias.numpy(), expected.intercept_, atol=1e-5)


def test_the_grid_and_the_scoring_arrive(collected, fresh, monkeypatch):
    from src.stage import fitting

    seen = []

    def fit_pairs(*arguments):
        seen.append(arguments[5])
        return original(*arguments)

    original = fitting.fit_pairs
    monkeypatch.setattr(fitting, "fit_pairs", fit_pairs)
    words = ("experiment.L=0", "experiment.k=1", "cv_folds=3", "alphas=[0.5,50.0]")
    made = run("train_transport_operators", fresh, *words, "alpha_unit=absolute", "scoring=variance_weighted")
    (settings,) = seen
    assert (settings.method, settings.auto_tune, settings.regularization) == ("ridge", True, None)
    assert (settings.grid, settings.relative, settings.scoring) == ((0.5, 50.0), False, "variance_weighted")
    scores = pq.read_table(made.path / "cv_scores.parquet").to_pylist()
    assert {score["alpha"] for score in scores} == {0.5, 50.0}
    (chosen,) = {score["alpha"] for score in scores if score["chosen"]}
    assert TransportOperator.load(made.path / "L0_k1").alpha == chosen


def test_operators_of_different_settings_are_not_put_into_one_table(collected, fresh):
    words = ("experiment.L=0", "cv_folds=3")
    ridge = run("train_transport_operators", fresh, *words, "experiment.k=1")
    linear = run("train_transport_operators", fresh, *words, "experiment.k=2", "method=linear")
    with pytest.raises(StrataError) as caught:
        run("eval", fresh, "bootstrap=100")
    message = str(caught.value)
    for told in (f"operators=[{ridge.meta.name}]", f"operators=[{linear.meta.name}]", 'method="ridge"', "choose with"):
        assert told in message
    assert "alphas" not in message  # what one of two methods has alone is not what they differ in
    assert not (fresh / "evaluation").exists()
    by_method = run("eval", fresh, "bootstrap=100", "method=linear")
    by_name = run("eval", fresh, "bootstrap=100", f"operators={linear.meta.name}")
    assert by_method.path == by_name.path
    records = json.loads((by_name.path / "residual.json").read_text())
    assert {(record["method"], record["operators"]) for record in records} == {("linear", linear.meta.name)}
    assert "linear at resid_post" in json.loads((by_name.path / "report.json").read_text())["tables"][0]["caption"]
    with pytest.raises(StrataError, match=r"was fitted with method=linear: leave out method=ridge"):
        run("eval", fresh, f"operators={linear.meta.name}", "method=ridge")


def test_several_passes_over_the_test_share_give_the_scores_of_one(
    artifacts, operators, evaluation, monkeypatch, capsys
):
    words = ("bootstrap=100", f"operators={operators.meta.name}")
    monkeypatch.setattr("src.stage.operators.memory_blocks", lambda pairs, *_sizes: [pairs[:3], pairs[3:]])
    made = run("eval", artifacts, *words, "name=in-two-passes", "overwrite=true")
    assert "4 pairs are judged in 2 passes over the test share" in capsys.readouterr().out
    ours, expected = (json.loads((path / "residual.json").read_text()) for path in (made.path, evaluation.path))
    assert len(ours) == len(expected) == 16
    for one, other in zip(ours, expected, strict=True):
        assert one.keys() == other.keys()
        for key, value in other.items():
            is_number = isinstance(value, float)
            assert one[key] == (pytest.approx(value, rel=1e-12, abs=1e-12) if is_number else value)


def test_on_a_trained_model_operators_beat_every_baseline_at_every_pair(evaluation):
    records = json.loads((evaluation.path / "residual.json").read_text())
    for record in records:
        if record["predictor"] == "operator":
            assert record["skill_low"] > 0.2
            assert record["r2_uniform_low"] > 0.3


def test_every_artifact_is_whole_and_tells_its_parents(artifacts, operators, evaluation):
    folders = [meta.parent for meta in artifacts.glob("*/*/meta.json")]
    assert {folder.parent.name for folder in folders} >= {
        "sequences",
        "activations",
        "moments",
        "operators",
        "evaluation",
    }
    assert all(verify(folder) == [] for folder in folders)
    assert [parent.kind for parent in open_meta(evaluation.path).parents] == ["activations", "operators"]
    assert {path.suffix for path in (evaluation.path / "figures").iterdir()} == {".png", ".html", ".json"}


def test_the_same_command_reuses_and_another_seed_does_not(artifacts, operators, capsys):
    words = ("experiment.L=[0,1]", "experiment.k=[1,2]", "cv_folds=3")
    before = (operators.path / "meta.json").stat().st_mtime_ns
    again = run("train_transport_operators", artifacts, *words)
    assert again.path == operators.path
    assert (again.path / "meta.json").stat().st_mtime_ns == before
    assert "reused" in capsys.readouterr().out
    other = run("train_transport_operators", artifacts, "experiment.L=0", "experiment.k=2", "cv_folds=3", "seed=1")
    first, second = (TransportOperator.load(made.path / "L0_k2").weight for made in (operators, other))
    assert not torch.equal(first, second)


def test_a_remade_artifact_has_the_same_bytes(artifacts, operators):
    words = ("experiment.L=[0,1]", "experiment.k=[1,2]", "cv_folds=3")
    files = dict(operators.meta.files)
    remade = run("train_transport_operators", artifacts, *words, "overwrite=true")
    assert remade.meta.files == files


def test_moments_of_more_pairs_serve_fewer(artifacts, operators, capsys):
    run("train_transport_operators", artifacts, "experiment.L=1", "experiment.k=2", "cv_folds=3", "method=linear")
    assert "covers these pairs: reused" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["regularization=10"], r"regularization=10 would be ignored: it needs auto_tune=false"),
        (["auto_tune=false"], r"auto_tune=false needs an alpha: set regularization="),
        (["auto_tune=false", "regularization=1e308"], r"an alpha of 1e\+308 in units of .* is beyond all numbers"),
        (["method=lasso", "auto_tune=false", "regularization=1e308"], r"an alpha of 1e\+308 .* is beyond all numbers"),
    ],
)
def test_an_alpha_is_given_or_tuned(artifacts, collected, overrides, message):
    with pytest.raises(StrataError, match=message):
        run("train_transport_operators", artifacts, *overrides)


def test_operators_of_several_artifacts_are_judged_together(collected, fresh, capsys):
    made = [run("train_transport_operators", fresh, f"experiment.L={layer}", "experiment.k=1") for layer in (0, 1)]
    other = run("train_transport_operators", fresh, "experiment.L=2", "experiment.k=1", "scoring=variance_weighted")
    with pytest.raises(StrataError, match=rf"operators=\[{made[0].path.name},{made[1].path.name}\]"):
        run("eval", fresh, "bootstrap=100")
    together = run("eval", fresh, "bootstrap=100", f"operators=[{made[0].path.name},{made[1].path.name}]")
    assert together.meta.identity["pairs"] == [[0, 1], [1, 1]]
    assert other.path.name not in {parent.name for parent in together.meta.parents}


def test_copies_of_a_document_do_not_narrow_the_intervals(tmp_path):
    """Every document 8 times: the same scores, and intervals as wide as those of the documents without copies."""
    records = (ROOT / "testbed/corpus/train.jsonl").read_text().splitlines()[:60]
    scores = []
    for copies in (1, 8):
        text = tmp_path / f"text{copies}.jsonl"
        text.write_text("\n".join(records * copies) + "\n")
        folder, dataset = tmp_path / str(copies), [f"dataset.dataset_name={text}", "dataset.dataset_split=null"]
        pair = ("experiment.L=0", "experiment.k=1", "cv_folds=2")
        run("collect_activations", folder, *dataset, "layers=[0,1]", "num_tokens=null", "storage_dtype=float32")
        run("train_transport_operators", folder, *dataset, *pair, "auto_tune=false", "regularization=0.01")
        made = run("eval", folder, *dataset, "bootstrap=400")
        records_of = json.loads((made.path / "residual.json").read_text())
        scores.append(next(record for record in records_of if record["predictor"] == "operator"))
    one, many = scores
    assert many["n_rows"] == 8 * one["n_rows"]
    assert many["r2_uniform"] == pytest.approx(one["r2_uniform"], abs=1e-4)
    widths = [score["r2_uniform_high"] - score["r2_uniform_low"] for score in scores]
    assert widths[1] == pytest.approx(widths[0], rel=0.25)


@pytest.mark.parametrize("override", ["model.dtype=bfloat16", "model.attention=eager", "model.revision=other"])
def test_a_store_of_other_model_settings_does_not_fit(collected, artifacts, override):
    with pytest.raises(StrataError, match="no activations that fit"):
        run("train_transport_operators", artifacts, override)


def test_layers_that_are_not_there_are_named(artifacts, collected):
    with pytest.raises(StrataError, match=r"layer 9 is out of range: the model has layers 0\.\.5"):
        run("train_transport_operators", artifacts, "experiment.L=[9]")
    with pytest.raises(StrataError, match=r"no attn_out\.0.*holds resid_post of layers \[0, 1, 2, 3, 4, 5\]"):
        run("train_transport_operators", artifacts, "hook=attn_out")


def test_a_model_name_that_a_path_would_hide_is_refused(tmp_path):
    with pytest.raises(StrataError, match=r"would be ignored.*testbed/models/base.*model=hub model.name=org/name"):
        run("collect_activations", tmp_path, "model.name=org/name")
    assert not list(tmp_path.iterdir())


def test_missing_parents_come_with_the_command_that_makes_them(tmp_path, collected, artifacts):
    with pytest.raises(StrataError, match=r"collect them with collect_activations.py \(model=testbed"):
        run("train_transport_operators", tmp_path)
    run("collect_activations", tmp_path, "num_tokens=300")
    with pytest.raises(StrataError, match=r"fit some with train_transport_operators.py"):
        run("eval", tmp_path)
    with pytest.raises(StrataError, match=r"no operator for L4_k1.*experiment.L=4 experiment.k=1"):
        run("eval", artifacts, "eval.Ls=[4]", "eval.ks=[1]", "method=ridge", "seed=3")


def test_too_few_sequences_for_the_split_is_told_before_any_work(tmp_path):
    run("collect_activations", tmp_path, "num_sequences=4")
    with pytest.raises(StrataError, match=r"4 different documents cannot be split"):
        run("train_transport_operators", tmp_path)


def flip_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(content)


@pytest.fixture
def copied(artifacts, operators, tmp_path) -> Path:
    """The store and the operators, to be spoilt."""
    shutil.copytree(artifacts, tmp_path / "artifacts")
    return tmp_path / "artifacts"


def test_damaged_moments_are_passed_over_with_a_warning_and_made_again(copied, operators, capsys):
    for moments in (copied / "moments").glob("*/moments.safetensors"):
        flip_a_byte(moments)
    made = run("train_transport_operators", copied, "experiment.L=0", "experiment.k=2", "cv_folds=3")
    assert "moments.safetensors: its content has changed" in capsys.readouterr().err
    expected = TransportOperator.load(operators.path / "L0_k2").weight
    torch.testing.assert_close(TransportOperator.load(made.path / "L0_k2").weight, expected)


def test_damaged_operators_are_not_judged_and_made_again_by_their_command(copied, operators, capsys):
    spoilt = copied / "operators" / operators.path.name / "L0_k2" / "operator.safetensors"
    flip_a_byte(spoilt)
    with pytest.raises(StrataError, match=r"operators/.* is damaged .*L0_k2/operator.safetensors.*made anew"):
        run("eval", copied, f"operators={operators.path.name}", "bootstrap=100")
    run("train_transport_operators", copied, "experiment.L=[0,1]", "experiment.k=[1,2]", "cv_folds=3")
    assert verify(copied / "operators" / operators.path.name) == []


def test_a_flipped_bit_in_the_store_stops_whoever_reads_it(copied, collected):
    chunk = next((copied / "activations" / collected.path.name).glob("part-*.zarr/resid_post/03/c/0/0"))
    flip_a_byte(chunk)
    with pytest.raises(StrataError, match=r"resid_post/03 is damaged .*repair=true"):
        run("train_transport_operators", copied, "experiment.L=3", "experiment.k=1")


def test_a_disk_that_fills_up_while_operators_are_written_leaves_nothing(artifacts, collected, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    before = sorted(artifacts.rglob("*"))
    monkeypatch.setattr("src.transport.saved.save_tensors", full)
    with pytest.raises(StrataError, match=r"the disk that holds .* is full: free space there or set artifacts_dir"):
        run("train_transport_operators", artifacts, "experiment.L=0", "experiment.k=1", "cv_folds=3", "method=linear")
    assert sorted(artifacts.rglob("*")) == before


def test_verify_artifact_prints_what_is_wrong_and_fails(tmp_path):
    script("collect_activations", "num_sequences=3", cwd=tmp_path)
    (store,) = (tmp_path / "artifacts/activations").iterdir()
    assert script("verify_artifact", str(store), cwd=tmp_path).returncode == 0
    (store / "plan.json").write_text("{}")
    done = script("verify_artifact", str(store), cwd=tmp_path)
    assert done.returncode == 1
    assert "plan.json: has 2 bytes instead of" in done.stdout
