"""Operators of several position offsets through train_transport_operators and eval, as a user runs them."""

import json
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
from src.config.stages import CollectConfig, EvalConfig, SplitConfig, TransportConfig
from src.errors import StrataError
from src.hook_points import HookPoint
from src.stage.entry import compose, run_stage
from src.stage.stores import split_store
from src.transport.operator import TransportOperator

STAGES = {
    "collect_activations": (collect_activations.run, CollectConfig),
    "train_transport_operators": (train_transport_operators.run, TransportConfig),
    "eval": (eval_stage.run, EvalConfig),
}
POINTS = [HookPoint("resid_post", layer) for layer in range(3)]
EVALUATION_FIGURES = {"r2", "skill", "alpha", "baselines", "dimensions", "bos"}
FIT = ("experiment.L=[0,1]", "experiment.k=1", "cv_folds=3", "auto_tune=false", "regularization=0.01")
LINEAR = ("method=linear", "alphas=null", "auto_tune=true", "regularization=null")


def run(stage: str, artifacts: Path, *overrides: str):
    words = [f"artifacts_dir={artifacts}", "threads=1", *overrides]
    function, schema = STAGES[stage]
    return run_stage(function, schema, stage, compose(stage, words), words)


@pytest.fixture(scope="module", autouse=True)
def quick_pictures():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("src.report.charts.draw_png", lambda spec: b"not drawn")
        yield


@pytest.fixture(scope="module")
def collected(tmp_path_factory):
    artifacts = tmp_path_factory.mktemp("project") / "artifacts"
    return run("collect_activations", artifacts, "num_tokens=4000", "storage_dtype=float32")


@pytest.fixture(scope="module")
def artifacts(collected):
    return collected.path.parents[1]


@pytest.fixture(scope="module")
def operators(artifacts):
    return run("train_transport_operators", artifacts, *FIT, "experiment.position_offset=[1,0]")


@pytest.fixture(scope="module")
def evaluation(operators, artifacts):
    return run("eval", artifacts, "bootstrap=100", f"operators={operators.meta.name}")


def rows_by_loop(collected, split) -> dict[str, np.ndarray]:
    """x of layer 1, y of layer 2 at the same and at the next token, where both count; and the group of each row."""
    found = {"x": [], 0: [], 1: [], "group": []}
    for part in ActivationStore(collected):
        x, y = (part.activations(point).double().numpy() for point in (POINTS[1], POINTS[2]))
        start, keep = part.sequence_start, part.keep
        for sequence in range(len(start) - 1):
            for i in range(start[sequence], start[sequence + 1] - 1):
                if keep[i] == keep[i + 1] == 0:
                    for key, value in {"x": x[i], 0: y[i], 1: y[i + 1]}.items():
                        found[key].append(value)
                    found["group"].append(split.groups[part.first_sequence + sequence])
    return {key: np.array(values) for key, values in found.items()}


def test_operators_and_scores_are_scikit_learn_s_on_the_rows_of_the_loop(collected, operators, evaluation):
    split = split_store(ActivationStore(collected), SplitConfig(train=0.6, val=0.2, test=0.2), 3, seed=42)
    rows = rows_by_loop(collected, split)
    train, test = rows["group"] < split.val, rows["group"] == split.test
    records = pq.read_table(evaluation.path / "residual.parquet").to_pylist()
    scores = {(record["L"], record["offset"]): record for record in records if record["predictor"] == "operator"}
    assert set(scores) == {(layer, offset) for layer in (0, 1) for offset in (0, 1)}
    for offset, name in ((0, "L1_k1"), (1, "L1_k1_j+1")):
        operator = TransportOperator.load(operators.path / name)
        x, y = rows["x"][train], rows[offset][train]
        expected = Ridge(alpha=0.01 * ((x - x.mean(0)) ** 2).sum() / x.shape[1]).fit(x, y)
        np.testing.assert_allclose(operator.weight.numpy(), expected.coef_.T, atol=1e-6)
        record = scores[1, offset]
        assert record["n_rows"] == test.sum()
        score = r2_score(rows[offset][test], expected.predict(rows["x"][test]))
        assert record["r2_uniform"] == pytest.approx(score, abs=1e-6)
    assert scores[1, 1]["r2_uniform"] < scores[1, 0]["r2_uniform"]


def test_tables_and_figures_tell_the_offsets_apart(operators, evaluation, artifacts):
    for artifact, maps in ((operators, {"val_r2"}), (evaluation, EVALUATION_FIGURES)):
        report = json.loads((artifact.path / "report.json").read_text())
        assert all(table["columns"][:3] == ["L", "k", "offset"] for table in report["tables"])
        names = {path.name.split(".")[0] for path in (artifact.path / "figures").glob("*.png")}
        assert names == maps | {f"{name}_offset_1" for name in maps} | {"offsets"}
        titles = [figure["title"] for figure in report["figures"]]
        assert len(set(titles)) == len(titles) == len(names)
    chart = json.loads((evaluation.path / "figures" / "r2_offset_1.vl.json").read_text())
    assert chart["title"]["text"].endswith(", j = i + 1")
    alone = run("eval", artifacts, "bootstrap=100", f"operators={operators.meta.name}", "eval.position_offsets=0")
    report = json.loads((alone.path / "report.json").read_text())
    assert all("offset" not in table["columns"] for table in report["tables"])


def test_one_offset_of_several_keeps_its_rows_and_its_scores(operators, evaluation, artifacts):
    one = run("eval", artifacts, "bootstrap=100", f"operators={operators.meta.name}", "eval.position_offsets=1")
    ours, every = (json.loads((path / "residual.json").read_text()) for path in (one.path, evaluation.path))
    assert ours == [record for record in every if record["offset"] == 1]
    layer = run("eval", artifacts, "bootstrap=100", f"operators={operators.meta.name}", "eval.Ls=1", "eval.ks=1")
    records = json.loads((layer.path / "residual.json").read_text())
    assert {(record["L"], record["offset"]) for record in records} == {(1, 0), (1, 1)}


def test_operators_of_other_rows_are_not_mixed_and_missing_ones_are_told(operators, artifacts, tmp_path):
    folder = tmp_path / "artifacts"
    folder.mkdir()
    for kind in ("activations", "operators"):
        (folder / kind).mkdir()
        for path in (artifacts / kind).iterdir():
            (folder / kind / path.name).symlink_to(path)
    with pytest.raises(StrataError, match=r"no operator has offset 5 \(there: 0, 1\).*position_offset=5"):
        run("eval", folder, "eval.position_offsets=[0,5]")
    with pytest.raises(StrataError, match=r"no operator for L1_k1_j-1 .*experiment.k=1 experiment.position_offset=-1"):
        run("eval", folder, "eval.Ls=1", "eval.ks=1", "eval.position_offsets=-1")
    run("train_transport_operators", folder, *FIT, "experiment.position_offset=0")
    with pytest.raises(StrataError, match=r"row_offsets=\[0, 1\]"):
        run("eval", folder, "bootstrap=100")


def test_moments_serve_again_only_for_the_same_rows(artifacts, capsys):
    capsys.readouterr()
    run("train_transport_operators", artifacts, *FIT, "experiment.position_offset=1", *LINEAR)
    assert "covers these pairs: reused" in capsys.readouterr().out
    run("train_transport_operators", artifacts, *FIT, "experiment.position_offset=0", *LINEAR)
    assert "covers these pairs" not in capsys.readouterr().out


def test_an_offset_beyond_every_sequence_is_one_message_before_anything_is_read(artifacts, monkeypatch):
    def refuse(*_arguments):
        raise AssertionError("activations were read")

    monkeypatch.setattr("src.activations.parts.Part.activations", refuse)
    with pytest.raises(StrataError, match=r"position offsets \+5000 leave no rows in fold 0, .* val: the longest seq"):
        run("train_transport_operators", artifacts, *FIT, "experiment.position_offset=5000")


def test_operators_predict_with_a_weight_of_their_own_for_each_offset(operators):
    same, following = (TransportOperator.load(operators.path / name) for name in ("L0_k1", "L0_k1_j+1"))
    assert (str(same.target), str(following.target)) == ("resid_post.1", "resid_post.1@+1")
    assert not torch.allclose(same.weight, following.weight)
