"""scaling_study.py on the testbed, as a user runs it."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from sklearn.linear_model import Ridge
from sklearn.metrics import r2_score

import collect_activations
import eval as eval_stage
import scaling_study
import train_transport_operators
from src.activations.store import ActivationStore
from src.artifacts import list_artifacts, verify
from src.config.scaling import ScalingConfig
from src.config.stages import CollectConfig, EvalConfig, SplitConfig, TransportConfig
from src.errors import StrataError
from src.stage.entry import compose, run_stage
from src.stage.stores import split_store
from src.transport.operator import TransportOperator
from src.transport.scaling import draw_subsets
from tests.fixtures.stored_rows import counted_rows

ROOT = Path(__file__).parents[2]
STAGES = {
    "collect_activations": (collect_activations.run, CollectConfig),
    "train_transport_operators": (train_transport_operators.run, TransportConfig),
    "scaling_study": (scaling_study.run, ScalingConfig),
    "eval": (eval_stage.run, EvalConfig),
}
PAIRS = ("experiment.L=[0,3]", "experiment.k=[1,2]")
STUDY = (*PAIRS, "fractions=[0.2,0.5,1.0]", "subsets=3", "blocks=10", "test_blocks=5")


def run(stage: str, artifacts: Path, *overrides: str):
    words = [f"artifacts_dir={artifacts}", "threads=1", *overrides]
    function, schema = STAGES[stage]
    return run_stage(function, schema, stage, compose(stage, words), words)


@pytest.fixture(scope="module")
def collected(tmp_path_factory):
    artifacts = tmp_path_factory.mktemp("project") / "artifacts"
    return run("collect_activations", artifacts, "num_tokens=12000", "storage_dtype=float32")


@pytest.fixture(scope="module")
def artifacts(collected):
    return collected.path.parents[1]


@pytest.fixture(scope="module")
def study(artifacts):
    return run("scaling_study", artifacts, *STUDY)


@pytest.fixture
def no_pictures(monkeypatch):
    monkeypatch.setattr("src.report.charts.draw_png", lambda spec: b"\x89PNG\r\n\x1a\n" + bytes(16))


def test_every_number_is_that_of_the_rows_of_the_store(collected, study):
    rows, sequence = counted_rows(collected.path, [0, 2])
    split = split_store(ActivationStore(collected), SplitConfig(train=0.6, val=0.2, test=0.2), 10, 42, 5)
    group = split.groups[sequence]
    subsets = {(s.fraction, s.draw): s.blocks for s in draw_subsets(10, [0.2, 0.5, 1.0], 3, seed=42)}
    records = json.loads((study.path / "scaling_curves.json").read_text())
    chosen = [record for record in records if (record["L"], record["k"]) == (0, 2)]
    assert [(record["fraction"], record["subset"]) for record in chosen] == list(subsets)
    for record in chosen:
        blocks = subsets[record["fraction"], record["subset"]]
        train, val, test = np.isin(group, blocks), group == split.val, group >= split.test
        assert (record["rows"], record["blocks"]) == (train.sum(), len(blocks))
        in_train = np.isin(split.groups, blocks)
        assert record["documents"] == len(np.unique(split.documents[in_train]))
        fit = Ridge(alpha=record["alpha"]).fit(rows[0][train], rows[2][train])
        for name, held_out in (("val", val), ("test", test)):
            x, y = rows[0][held_out], rows[2][held_out]
            assert record[f"{name}_r2_uniform"] == pytest.approx(r2_score(y, fit.predict(x)), abs=1e-6)
            assert record[f"{name}_identity_r2_uniform"] == pytest.approx(r2_score(y, x), abs=1e-6)
            shift = rows[2][train].mean(0) - rows[0][train].mean(0)
            assert record[f"{name}_identity_shift_r2_uniform"] == pytest.approx(r2_score(y, x + shift), abs=1e-6)
        assert record["test_r2_uniform_low"] < record["test_r2_uniform"] < record["test_r2_uniform_high"]
        assert record["test_rmse"] == pytest.approx(record["test_mse"] ** 0.5)


def test_all_training_documents_give_the_operator_and_the_scores_of_the_other_stages(artifacts, study, no_pictures):
    operators = run("train_transport_operators", artifacts, *PAIRS)
    evaluation = run("eval", artifacts, f"operators={operators.meta.name}", "bootstrap=300")
    judged = json.loads((evaluation.path / "residual.json").read_text())
    scores = {(r["L"], r["k"]): r for r in judged if r["predictor"] == "operator"}
    records = [r for r in json.loads((study.path / "scaling_curves.json").read_text()) if r["fraction"] == 1]
    assert len(records) == len(scores) == 4
    for record in records:
        judgement = scores[record["L"], record["k"]]
        operator = TransportOperator.load(operators.path / f"L{record['L']}_k{record['k']}")
        assert record["alpha"] == pytest.approx(operator.alpha, rel=1e-9)
        assert record["rows"] == operator.metadata["n_train_rows"]
        assert record["test_r2_uniform"] == pytest.approx(judgement["r2_uniform"], abs=1e-6)
        # jackknife and bootstrap tell the same uncertainty of the same score
        by_bootstrap = judgement["r2_uniform_high"] - judgement["r2_uniform_low"]
        by_jackknife = record["test_r2_uniform_high"] - record["test_r2_uniform_low"]
        assert 0.4 < by_jackknife / by_bootstrap < 2.5


def test_curves_and_summary_are_written_in_three_formats_and_drawn(study):
    for stem, n_records in (("scaling_curves", 4 * (3 + 3 + 1)), ("scaling_summary", 4)):
        records = json.loads((study.path / f"{stem}.json").read_text())
        with (study.path / f"{stem}.csv").open(newline="", encoding="utf-8") as file:
            lines = list(csv.DictReader(file))
        assert len(records) == len(lines) == n_records
        assert pq.read_table(study.path / f"{stem}.parquet").to_pylist() == records
        for record, line in zip(records, lines, strict=True):
            assert list(line) == list(record)
            for key, value in record.items():
                assert line[key] == ("" if value is None else str(value))
    summary = json.loads((study.path / "scaling_summary.json").read_text())
    columns = {"L", "k", "data_points", "final_val_r2", "final_test_r2", "val_improvement", "test_improvement"}
    columns |= {
        "val_slope",
        "test_slope",
        "test_slope_low",
        "test_slope_highest_subset",
        "plateau",
        "rows",
        "documents",
    }
    assert columns <= set(summary[0])
    for record in summary:
        assert record["test_improvement_low"] > 0  # two folds of the documents are too few
        assert record["plateau"] in ("yes", "no", "undecided")
    assert {path.name for path in (study.path / "figures").glob("*.png")} == {
        "scaling_curves.png",
        "scaling_pairs.png",
        "scaling_alpha.png",
    }
    report = json.loads((study.path / "report.json").read_text())
    titles = [table["title"] for table in report["tables"]]
    assert titles == ["Growth of R² with the training data", "R² of every fraction"]
    assert "5 groups of the" in report["text"]
    assert verify(study.path) == []


def test_a_study_is_reused_and_another_method_needs_no_second_pass(artifacts, study, capsys, no_pictures):
    again = run("scaling_study", artifacts, *STUDY)
    assert (again.path, again.meta.ended_at) == (study.path, study.meta.ended_at)
    assert "reused" in (shown := capsys.readouterr().out)
    assert "Growth of R² with the training data" in shown
    n_moments = len(list_artifacts(artifacts, "moments"))
    other = run("scaling_study", artifacts, *STUDY, "method=procrustes")
    assert other.path != study.path
    assert len(list_artifacts(artifacts, "moments")) == n_moments
    assert "covers these pairs: reused" in capsys.readouterr().out
    assert {path.stem for path in (other.path / "figures").glob("*.png")} == {"scaling_curves", "scaling_pairs"}


def test_a_seed_decides_the_study(artifacts, study, no_pictures):
    pairs = ("experiment.L=0", "experiment.k=1", "overwrite=true", "name=seeded")
    curves = [
        (run("scaling_study", artifacts, *STUDY, *pairs, f"seed={seed}").path / "scaling_curves.csv").read_text()
        for seed in (42, 42, 7)
    ]
    assert curves[0] == curves[1] != curves[2]
    whole = (study.path / "scaling_curves.csv").read_text().splitlines()
    first = [line.split(",")[:10] for line in whole[1:8]]
    assert [line.split(",")[:10] for line in curves[0].splitlines()[1:]] == first


def test_what_decides_the_numbers_decides_the_folder(artifacts, study, no_pictures):
    base = (*STUDY, "experiment.L=0", "experiment.k=1")
    changes = ("cv_folds=5", "subsets=2", "plateau=0.01", "test_blocks=4", "cv_folds=4")
    folders = [run("scaling_study", artifacts, *base, change).path for change in changes]
    assert len(set(folders)) == len(changes)
    assert run("scaling_study", artifacts, *base, "max_iter=7").path == folders[0]  # ridge has no use for it


def test_pairs_with_a_position_offset_have_curves_and_figures_of_their_own(artifacts, no_pictures):
    offsets = ("experiment.L=0", "experiment.k=1", "experiment.position_offset=[0,-1]")
    made = run("scaling_study", artifacts, *STUDY, *offsets)
    records = json.loads((made.path / "scaling_summary.json").read_text())
    by_offset = {record["offset"]: record for record in records}
    assert set(by_offset) == {0, -1}
    assert by_offset[0]["rows"] == by_offset[-1]["rows"]
    assert by_offset[0]["final_test_r2"] > by_offset[-1]["final_test_r2"] + 0.2
    assert {path.stem for path in (made.path / "figures").glob("scaling_curves*.png")} == {
        "scaling_curves",
        "scaling_curves_offset_-1",
    }


def test_too_few_documents_are_refused(artifacts):
    with pytest.raises(
        StrataError, match=r"documents cannot be split into 125 folds of train, val and 2 groups of test"
    ):
        run("scaling_study", artifacts, "blocks=125", "test_blocks=2")


def test_the_script_tells_of_a_bad_key_before_it_works(tmp_path):
    command = [sys.executable, str(ROOT / "scaling_study.py"), "fractions=[0.01,1.0]", f"artifacts_dir={tmp_path}/none"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    assert done.stderr.strip().startswith("scaling_study: fractions: 0.01 of 20 blocks is 0 blocks")
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "none").exists()
