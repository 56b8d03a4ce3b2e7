"""run_pipeline.py: the stages in order, each on what the one before it made."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import collect_activations
import run_pipeline
from src.artifacts import list_artifacts
from src.config.capture_scenario import CaptureScenarioConfig
from src.config.compare_runs import CompareRunsConfig
from src.config.score_features import ScoreFeaturesConfig
from src.config.stages import CollectConfig, EvalConfig
from src.errors import NotApplicableError, StrataError
from src.stage.pipeline import PipelineStage, run_stages

ROOT = Path(__file__).parents[2]
SMALL = (
    *("num_tokens=6000", "threads=1", "experiment.L=[0,1]", "experiment.k=1", "cv_folds=2", "bootstrap=100"),
    *("layers=[0,1,2]", "max_tokens=3000", "ablation_tokens=200", "candidate_percent=1", "top_percent=1"),
    "causal_eval.max_samples=4",
)
OF_FEATURES = ("features.max_features=1",)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("pipeline")


def pipeline(folder: Path, *overrides: str) -> subprocess.CompletedProcess:
    command = [sys.executable, str(ROOT / "run_pipeline.py"), *SMALL, *overrides]
    return subprocess.run(
        command, cwd=folder, env=dict(os.environ), capture_output=True, text=True, timeout=300, check=False
    )


def evaluated(folder: Path) -> set[tuple[str, ...]]:
    """(store, operators) behind each evaluation, beside the scores of features."""
    found = list_artifacts(folder / "artifacts", "evaluation")
    return {tuple(parent.name for parent in artifact.meta.parents[:2]) for artifact in found}


def test_each_stage_works_on_what_the_stages_before_it_made(folder):
    first = pipeline(folder, *OF_FEATURES)
    assert first.returncode == 0, first.stderr
    assert "report: artifacts/index.html" in first.stdout
    page = (folder / "artifacts" / "index.html").read_text()
    for title in (
        "Transport operators on held-out documents",
        "The best features",
        "Transported or synthesised",
        "Runs compared",
    ):
        assert title in page
    assert "What edits of features do to predictions" in page
    cards = list((folder / "artifacts" / "explanations").glob("*/feature_cards_*.html"))
    assert len(cards) == 3
    assert all(str(path.relative_to(folder / "artifacts")) in page for path in cards)
    # now several stores and several operators of the same model and dataset lie there; a named model has no SAEs
    for change in ("num_tokens=7000", "alphas=[0.1,1.0]"):
        again = pipeline(folder, change, "model=testbed")
        assert again.returncode == 0, again.stderr
    operators = {artifact.meta.name: artifact for artifact in list_artifacts(folder / "artifacts", "operators")}
    assert len(list_artifacts(folder / "artifacts", "activations")) == 2
    assert len(operators) == 3
    assert len(list_artifacts(folder / "artifacts", "moments")) == 2  # those of one store never serve another
    assert evaluated(folder) == {(artifact.meta.parents[0].name, name) for name, artifact in operators.items()}


def test_the_same_command_again_makes_nothing_new(folder):
    before = sorted(path.name for path in (folder / "artifacts").glob("*/*"))
    again = pipeline(folder, *OF_FEATURES)
    assert again.returncode == 0, again.stderr
    assert again.stdout.count("reused") >= 6
    assert "wrote" not in again.stdout
    assert sorted(path.name for path in (folder / "artifacts").glob("*/*")) == before


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("numtokens=3", "numtokens: unknown key; did you mean num_tokens"),
        ("-m", "sweep a stage with its script and -m"),
        ("bootstrap=3", "bootstrap: 3 is not allowed"),
    ],
)
def test_a_bad_argument_is_refused_before_the_first_stage_runs(tmp_path, monkeypatch, argument, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StrataError, match=message):
        run_stages(run_pipeline.STAGES, [argument])
    assert list(tmp_path.iterdir()) == []


def test_features_are_left_out_where_no_saes_of_the_model_are_chosen(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    ran = []

    def note(config, stage):
        ran.append((stage.name, getattr(config, "run_features", None)))
        raise NotApplicableError("done")

    stages = [
        PipelineStage("score_features", note, ScoreFeaturesConfig, needs="sae"),
        PipelineStage("eval", note, EvalConfig, with_saes=("run_features=true",)),
    ]
    for words in ([], ["model=testbed_small"], ["model=testbed_small", "sae=local", "sae.path=somewhere"]):
        run_stages(stages, words)
        told = "no sae=... is chosen for this model: left out are score_features" in capsys.readouterr().err
        assert told == (words == ["model=testbed_small"])
    with_them = [("score_features", None), ("eval", True)]
    assert ran == [*with_them, ("eval", False), *with_them]


def test_an_artifact_is_handed_on_under_the_key_that_a_stage_takes_it_by(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = []

    def make(config, stage):
        plan = stage.plan("scenario_run", "made", {})
        with stage.create(plan):
            pass
        return stage.finished(plan)

    def note(config, stage):
        given.append(config.runs)
        raise NotApplicableError("done")

    stages = [
        PipelineStage("capture_scenario", make, CaptureScenarioConfig, needs="scenario"),
        PipelineStage("compare_runs", note, CompareRunsConfig, needs="scenario", takes={"scenario_run": "runs"}),
    ]
    run_stages(stages, [])
    run_stages(stages, ["runs=mine"])
    with pytest.raises(StrataError, match="nothing is left to run"):
        run_stages(stages, ["model=testbed_chat"])
    (made,) = (tmp_path / "artifacts" / "scenario_run").glob("made-*")
    assert given == [made.name, "mine"]


def test_help_and_ctrl_c(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["run_pipeline.py", "--help"])
    run_pipeline.main()
    assert "collect_activations.py" in capsys.readouterr().out

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(sys, "argv", ["run_pipeline.py"])
    monkeypatch.setattr(run_pipeline, "run_stages", interrupted)
    with pytest.raises(SystemExit) as exit_status:
        run_pipeline.main()
    assert exit_status.value.code == 130
    told = "run_pipeline: interrupted; run the same command again: what is finished is kept\n"
    assert capsys.readouterr().err == told


def test_a_stage_that_means_nothing_for_the_model_is_passed_over(tmp_path, monkeypatch, capsys):
    """As causal_eval.py is of an encoder, which predicts no next token."""
    monkeypatch.chdir(tmp_path)
    done = []

    def not_applicable(*_):
        raise NotApplicableError("it predicts no tokens")

    def collect(config, stage):
        done.append(config.num_tokens)
        return collect_activations.run(config, stage)

    stages = [
        PipelineStage("eval", not_applicable, EvalConfig),
        PipelineStage("collect_activations", collect, CollectConfig),
    ]
    run_stages(stages, ["num_tokens=300", "threads=1"])
    assert done == [300]
    assert "run_pipeline goes on without eval: it predicts no tokens" in capsys.readouterr().err
