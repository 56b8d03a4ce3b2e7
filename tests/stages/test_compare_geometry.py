"""compare_geometry.py over results of any subset of analyses."""

import json
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import compare_geometry
from src.artifacts import Artifact, Plan, Provenance, create_artifact, now, open_meta, write_json
from src.artifacts.meta import META, meta_json
from src.config.geometry.comparison import CompareGeometryConfig
from src.errors import StrataError
from src.report.artifact_report import read_report
from src.stage.entry import compose, run_stage


def simplices(cv: float) -> dict:
    nulls = {"covariance_and_norms": {"cv": {"value": 0.2}, "p": 0.05}, "dimension_std": {"ratio": {"value": 0.9}}}
    space = {"cv": {"value": cv, "low": cv - 0.01, "high": cv + 0.01}, "predicted_cv": 0.21, "nulls": nulls}
    return {"spaces": {"input": space}}


def result(
    model: str, analysis: str, files: dict, settings: dict | None = None, ended_at: str | None = None, **keys: str
) -> Path:
    """A finished result of measure_geometry.py with these JSON files."""
    config = {"experiment_name": "main", "model": {"name": model, "path": None, "trust_remote_code": False, **keys}}
    config[analysis] = settings or {}
    provenance = Provenance(config, 42, "cpu", {}, None, now())
    plan = Plan(Path("artifacts"), "geometry", f"{model}-{analysis}", {"files": files, "keys": keys}, [])
    with create_artifact(plan, provenance) as draft:
        for name, values in files.items():
            write_json(draft.path / name, values)
        draft.summary |= {"analysis": analysis}
    if ended_at is not None:
        write_json(plan.path / META, meta_json(replace(open_meta(plan.path), ended_at=ended_at)))
    return plan.path


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("src.report.charts.draw_png", lambda _: b"\x89PNG\r\n\x1a\n" + bytes(24))


def run(*overrides: str) -> Artifact:
    words = ["threads=1", *overrides]
    config = compose("compare_geometry", words)
    return run_stage(compare_geometry.run, CompareGeometryConfig, "compare_geometry", config, words)


def records(artifact: Artifact) -> list[dict]:
    return pq.read_table(artifact.path / "comparison.parquet").to_pylist()


def test_models_with_different_analyses_stand_in_rows(capsys):
    result("one", "simplices", {"simplices.json": simplices(0.25)})
    result("one", "embeddings", {"embeddings.json": {"tables": {"input": {"cosine": {"mean": 0.1}}}}})
    result(
        "two",
        "simplices",
        {"simplices.json": simplices(0.3), "simplices_notebook.json": {"volumes": {"input": {"cv": 0.31}}}},
    )
    artifact = run()
    found = {(each["model"], each["source"], each["metric"]): each for each in records(artifact)}
    assert found["one", "measured", "simplex_cv"]["value"] == 0.25
    assert found["one", "measured", "simplex_cv"]["null"] == 0.2
    assert found["two", "notebook", "simplex_cv"]["value"] == 0.31
    assert found["Qwen3.5-0.8B", "published", "simplex_cv"]["value"] == 0.208
    assert ("two", "measured", "mean_cosine") not in found
    tables = {table.title: table for table in read_report(artifact.path).tables}
    names = [row[0] for row in tables["Simplices"].rows]
    assert names[:3] == ["one", "two", "two, the notebook's way"]
    assert "“universal band” (published)" in names
    assert [row[0] for row in tables["Embeddings"].rows if "published" not in str(row[0])] == ["one"]
    assert "Not measured of two: embeddings" in capsys.readouterr().out
    assert len(artifact.meta.parents) == 3


def test_the_newest_of_a_model_and_analysis_is_taken(capsys):
    old = result("one", "simplices", {"simplices.json": simplices(0.1)}, ended_at="2020-01-01T00:00:00+00:00")
    result("one", "simplices", {"simplices.json": simplices(0.4)}, settings={"k": 4})
    artifact = run("published=false")
    assert [each["value"] for each in records(artifact) if each["metric"] == "simplex_cv"] == [0.4]
    assert f"passed over: {old.name}" in capsys.readouterr().out
    named = run(f"results={old.name}", "published=false")
    assert [each["value"] for each in records(named) if each["metric"] == "simplex_cv"] == [0.1]
    assert run("published=false").meta.fingerprint == artifact.meta.fingerprint


def test_settings_that_differ_are_told():
    result("one", "simplices", {"simplices.json": simplices(0.1)}, settings={"k": 4})
    result("two", "simplices", {"simplices.json": simplices(0.4)}, settings={"k": 5})
    assert "simplices.k differ" in read_report(run().path).text


def test_models_of_one_name_are_told_apart():
    result("one", "simplices", {"simplices.json": simplices(0.1)}, revision="a")
    result("one", "simplices", {"simplices.json": simplices(0.4)}, revision="b")
    models = {each["model"] for each in records(run("published=false"))}
    assert models == {"one revision=a", "one revision=b"}


def test_results_without_any_known_number_are_still_a_report():
    result("one", "weights", {"weights.json": {"unknown": []}})
    assert "1 model beside each other in 0 numbers" in read_report(run().path).text


def test_what_can_not_be_compared_is_told():
    with pytest.raises(StrataError, match=r"no results of experiment_name=main are in .*measure_geometry\.py"):
        run()
    first = result("one", "simplices", {"simplices.json": simplices(0.1)})
    second = result("one", "simplices", {"simplices.json": simplices(0.4)})
    with pytest.raises(StrataError, match="are simplices of one model"):
        run(f"results=[{first.name},{second.name}]")
    (first / "simplices.json").write_text(json.dumps(simplices(0.9)))
    with pytest.raises(StrataError, match="is damaged"):
        run(f"results={first.name}")
