"""Every method through train_transport_operators and eval, as a user runs them, on the testbed."""

import json
from pathlib import Path
from typing import get_args

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

import collect_activations
import eval as eval_stage
import train_transport_operators
from src.config.stages import CollectConfig, EvalConfig, Method, TransportConfig
from src.errors import StrataError
from src.stage.entry import compose, run_stage
from src.transport.operator import TransportOperator

STAGES = {
    "collect_activations": (collect_activations.run, CollectConfig),
    "train_transport_operators": (train_transport_operators.run, TransportConfig),
    "eval": (eval_stage.run, EvalConfig),
}
PAIRS = ("experiment.L=0", "experiment.k=[1,2]", "cv_folds=3")
# each method once, and each key that changes what a method fits
RUNS = {
    **{str(method): () for method in get_args(Method)},
    "jacobian": ("method=jacobian", "jacobian.tokens=16"),
    "ridge_per_output": ("method=ridge", "alpha_per_output=true"),
    "ridge_delta": ("method=ridge", "normalize=true", "target=delta"),
    "reduced_rank_whitened": ("method=reduced_rank", "rank=100", "rank_metric=whitened", "target=delta"),
    "reduced_rank_without_penalty": ("method=reduced_rank", "auto_tune=false", "regularization=0"),
    "reduced_rank_given": ("method=reduced_rank", "auto_tune=false", "regularization=0.01", "rank=7"),
    "lasso_delta": ("method=lasso", "normalize=true", "target=delta", "auto_tune=false", "regularization=0.05"),
    "elasticnet_given": ("method=elasticnet", "auto_tune=false", "alpha_unit=absolute", "regularization=0.01"),
}
SPARSE = ("method=lasso", "method=elasticnet")


def run(stage: str, artifacts: Path, *overrides: str):
    words = [f"artifacts_dir={artifacts}", "threads=1", *overrides]
    function, schema = STAGES[stage]
    return run_stage(function, schema, stage, compose(stage, words), words)


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("project") / "artifacts"
    run("collect_activations", folder, "num_tokens=4000", "storage_dtype=float32")
    return folder


@pytest.fixture(scope="module")
def results(artifacts):
    """The folders of operators and evaluation of every run, by name."""
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        # pictures are tested elsewhere, and take most of the time
        patch.setattr("src.report.charts.draw_png", lambda spec: b"not drawn")
        for name, words in RUNS.items():
            words = words or (f"method={name}",)
            words = (*words, "max_iter=20000") if words[0] in SPARSE else words
            words = (
                (*words, "alphas=[0.1,0.003]", "l1_ratios=[0.3,0.9]") if words[1:2] == ("max_iter=20000",) else words
            )
            operators = run("train_transport_operators", artifacts, *PAIRS, *words)
            evaluation = run("eval", artifacts, "bootstrap=100", f"operators={operators.meta.name}")
            found[name] = operators.path, evaluation.path
    return found


@pytest.mark.parametrize("name", RUNS)
def test_every_method_makes_operators_that_eval_judges(results, name):
    operators, evaluation = results[name]
    records = json.loads((evaluation / "residual.json").read_text())
    scores = {(record["k"], record["predictor"]): record for record in records}
    method = RUNS[name][0].removeprefix("method=") if RUNS[name] else name
    for k in (1, 2):
        operator = TransportOperator.load(operators / f"L0_k{k}")
        assert operator.method == method == scores[k, "operator"]["method"]
        assert scores[k, "operator"]["alpha"] == operator.alpha
        twin = {"identity": "identity", "identity_shift": "identity + shift", "mean": "mean"}.get(name)
        if twin is not None:
            assert scores[k, "operator"]["mse"] == pytest.approx(scores[k, twin]["mse"], rel=1e-9)
        else:
            assert scores[k, "operator"]["mse"] < scores[k, "mean"]["mse"]
            # neither a rotation nor least squares on so few rows need be better than the skip connection
            if method in ("ridge", "lasso", "elasticnet"):
                assert scores[k, "operator"]["mse"] < scores[k, "identity + shift"]["mse"]


def test_every_setting_has_a_fingerprint_of_its_own(results):
    folders = [operators for operators, _ in results.values()]
    assert len(set(folders)) == len(RUNS)


def test_procrustes_is_orthogonal_and_scaled_if_asked(results):
    eye = torch.eye(128, dtype=torch.float64)
    plain, scaled = (TransportOperator.load(results[name][0] / "L0_k2") for name in ("procrustes", "procrustes_scaled"))
    torch.testing.assert_close(plain.weight.T @ plain.weight, eye)
    torch.testing.assert_close(scaled.weight, scaled.metadata["scale"] * plain.weight)


def test_sparsity_is_kept_with_the_operator_and_shown(results):
    for name in ("lasso", "elasticnet", "lasso_delta"):
        operators, _ = results[name]
        operator = TransportOperator.load(operators / "L0_k1")
        fitted = operator.weight - (torch.eye(128, dtype=torch.float64) if name == "lasso_delta" else 0)
        # the identity is added in floating point, so that 1 + 0 - 1 is 0 again
        assert operator.metadata["zero_share"] == pytest.approx(float((fitted == 0).double().mean()), abs=1e-4)
        assert operator.metadata["unconverged_outputs"] == 0
        report = json.loads((operators / "report.json").read_text())
        assert [table["title"] for table in report["tables"]] == ["Transport operators", "Sparsity"]
    sparse = TransportOperator.load(results["lasso_delta"][0] / "L0_k1")
    assert sparse.metadata["zero_share"] > 0.5


def test_scores_of_every_candidate_are_kept(results):
    rows = pq.read_table(results["elasticnet"][0] / "cv_scores.parquet").to_pylist()
    assert {row["l1_ratio"] for row in rows} == {0.3, 0.9}
    assert len(rows) == 2 * 3 * 4  # pairs, folds, candidates
    assert sum(row["chosen"] for row in rows) == 2 * 3
    assert {row["unconverged"] for row in rows} == {0}
    rows = pq.read_table(results["ridge_per_output"][0] / "cv_scores.parquet").to_pylist()
    shares = [sum(row["output_share"] for row in rows if (row["k"], row["fold"]) == (k, 0)) for k in (1, 2)]
    np.testing.assert_allclose(shares, 1)
    assert {row["chosen"] for row in rows if row["output_share"] == 0} <= {False}


def test_ranks_are_kept_and_shown(results):
    for name, most in (("reduced_rank", 128), ("reduced_rank_whitened", 100), ("reduced_rank_given", 7)):
        operators, _ = results[name]
        report = json.loads((operators / "report.json").read_text())
        (table,) = report["tables"]
        figures = {path.name.split(".")[0] for path in (operators / "figures").iterdir()}
        assert ("rank_path" in figures, "alpha_path" in figures) == (name == "reduced_rank", "given" not in name)
        for k, row in zip((1, 2), table["rows"], strict=True):
            operator = TransportOperator.load(operators / f"L0_k{k}")
            fitted = operator.weight - torch.eye(128) if "whitened" in name else operator.weight
            assert row[table["columns"].index("rank")] == operator.metadata["rank"] <= most
            assert int((torch.linalg.svdvals(fitted) > 1e-9).sum()) == operator.metadata["rank"]
            if name != "reduced_rank":
                assert operator.metadata["rank"] == most
    rows = pq.read_table(results["reduced_rank"][0] / "cv_scores.parquet").to_pylist()
    assert len(rows) == 2 * 3 * 8 * 128  # pairs, folds, alphas, ranks
    chosen = {(row["k"], row["rank"], row["alpha"]) for row in rows if row["chosen"]}
    operators = {k: TransportOperator.load(results["reduced_rank"][0] / f"L0_k{k}") for k in (1, 2)}
    assert chosen == {(k, operator.metadata["rank"], operator.alpha) for k, operator in operators.items()}
    without = TransportOperator.load(results["reduced_rank_without_penalty"][0] / "L0_k1")
    assert (without.alpha, without.metadata["relative_alpha"]) == (0, 0)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("method=reduced_rank", "rank=129"), "rank=129: activations are 128 wide"),
        (("method=ridge", "rank=3"), "rank and rank_metric mean nothing to method=ridge"),
        (("method=ridge", "auto_tune=false", "regularization=0"), "regularization=0 is method=linear"),
        (("method=reduced_rank", "auto_tune=false"), "auto_tune=false needs an alpha"),
    ],
)
def test_ranks_and_penalties_that_mean_nothing_are_refused(artifacts, words, message):
    with pytest.raises(StrataError, match=message):
        run("train_transport_operators", artifacts, *PAIRS, *words)


def test_fits_that_ran_out_of_iterations_are_warned_of(artifacts, capsys):
    words = (*PAIRS, "method=lasso", "auto_tune=false", "regularization=1.0e-5", "max_iter=1", "tol=1.0e-9")
    run("train_transport_operators", artifacts, *words)
    assert "max_iter stopped the fits of L0_k1 (" in capsys.readouterr().err
