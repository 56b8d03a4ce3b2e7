"""compare_runs.py as a user runs it: one captured scenario, several, and what can't be compared."""

import csv
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import compare_runs
from src.artifacts import Artifact, verify
from src.config.compare_runs import CompareRunsConfig
from src.errors import StrataError
from src.report.artifact_report import read_report
from src.report.tables import Table
from src.stage.entry import compose, run_stage
from tests.fixtures.made_scenarios import ScenarioMaker

PNG = b"\x89PNG\r\n\x1a\n" + bytes(24)
CSVS = ("comparison_report", "comparison_cosines", "intra_run_report", "intra_run_cosines")


@pytest.fixture(autouse=True)
def quick_charts(monkeypatch):
    """Drawing takes longer than all else, and is tested elsewhere."""

    def save(_: object, stem: Path) -> dict[str, Path]:
        stem.parent.mkdir(parents=True, exist_ok=True)
        paths = {suffix: stem.with_name(f"{stem.name}.{suffix}") for suffix in ("png", "html", "vl.json")}
        for suffix, path in paths.items():
            path.write_bytes(PNG if suffix == "png" else b"{}")
        return paths

    monkeypatch.setattr("src.report.artifact_report.save_chart", save)


def compare(root: Path, *overrides: str) -> Artifact:
    words = [f"artifacts_dir={root}", "draws=99", "threads=1", *overrides]
    return run_stage(compare_runs.run, CompareRunsConfig, "compare_runs", compose("compare_runs", words), words)


def rows(artifact: Artifact, name: str) -> list[dict[str, str]]:
    with (artifact.path / f"{name}.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def table(artifact: Artifact, title: str) -> Table:
    return next(table for table in read_report(artifact.path).tables if table.title.startswith(title))


def page(artifact: Artifact) -> str:
    return (artifact.path / "report.html").read_text(encoding="utf-8")


def test_one_run_has_all_but_pairs_and_is_reused(tmp_path, capsys):
    maker = ScenarioMaker(labels={0: "joy", 2: "fear", 4: "anger"})
    maker.write(tmp_path, "older", [maker.conversation()], None)
    maker.write(tmp_path, "talk", [maker.conversation()], maker.references())
    made = compare(tmp_path)
    assert verify(made.path) == []
    assert [parent.name for parent in made.meta.parents] == ["talk"]
    nearest = table(made, "Nearest references")
    assert [row[-1] for row in nearest.rows] == ["3 of 3", "3 of 3"]
    shown = capsys.readouterr().out
    assert f"report: {made.path / 'report.html'}" in shown
    assert "What the references tell apart" in shown
    assert read_report(made.path).links[0].href.endswith("report.html")

    assert [len(rows(made, name)) for name in CSVS] == [0, 0, 4, 16]
    header = (made.path / "comparison_report.csv").read_text().splitlines()[0].replace('"', "").split(",")
    assert header[:9] == (
        ["state", "pair", "run_a", "run_b", "generated_a", "generated_b", "prompt_a", "prompt_b", "source"]
    )
    assert pq.read_table(made.path / "comparison_report.parquet").column_names == header
    assert {row["source"] for row in rows(made, "intra_run_report")} == {
        "hidden_in", "hidden_out", "attn_out", "mlp_down_out"
    }  # fmt: skip
    assert 'id="between"' not in page(made)

    capsys.readouterr()
    assert compare(tmp_path).path == made.path
    again = capsys.readouterr().out
    assert "reused" in again
    assert "Nearest references" in again


def test_runs_of_several_scenarios_are_told_apart_and_those_of_other_models_left_out(tmp_path, capsys):
    first, second = ScenarioMaker(), ScenarioMaker(seed=1)
    wide = ScenarioMaker(width=24, model={"name": "wide", "revision": None})
    first.write(tmp_path, "a", [first.conversation(after=[2, 6])], first.references())
    second.write(tmp_path, "b", [second.conversation()], None)
    wide.write(tmp_path, "c", [wide.conversation()], None)
    made = compare(tmp_path, "runs=all")
    runs = [row["run"] for row in rows(made, "intra_run_report")][::4]
    assert runs == ["a/prompt_0_msg2of6", "a/prompt_0_msg6of6", "b/prompt_0", "c/prompt_0"]
    pairs = {row["pair"] for row in rows(made, "comparison_report")}
    assert len(pairs) == 3
    assert not any("c/" in pair for pair in pairs)
    assert "different models" in capsys.readouterr().out
    assert "different models" in page(made)
    assert 'id="pair-1"' in page(made)
    few = compare(tmp_path, "runs=[a,b]", "pair_cards=2", "sources=[hidden_out]")
    assert 'id="pair-1"' not in page(few)
    assert {row["source"] for row in rows(few, "comparison_report")} == {"hidden_out"}


def test_missing_positions_and_some_layers_only_are_said(tmp_path, capsys):
    maker = ScenarioMaker(layers=(1, 3), positions=("end",), attention=False)
    maker.write(tmp_path, "talk", [maker.conversation()], maker.references())
    made = compare(tmp_path)
    assert "no position 'answer'" in capsys.readouterr().err
    assert {row["layer"] for row in rows(made, "intra_run_cosines")} == {"1", "3"}
    assert [row[2] for row in table(made, "Nearest references").rows] == ["end"]
    assert "Attention was not captured" in page(made)


def test_references_without_snapshots_of_messages(tmp_path, capsys):
    maker = ScenarioMaker(positions=("end",))
    references = maker.references()
    maker.positions = ()
    maker.write(tmp_path, "talk", [maker.conversation()], references)
    made = compare(tmp_path, "positions=[end]")
    assert "capture.preset=message_ends" in capsys.readouterr().err
    assert table(made, "What the references tell apart").rows
    assert "see the problems in the overview" in page(made)


def test_what_is_not_there_is_named_before_any_work(tmp_path):
    with pytest.raises(StrataError, match=r"no captured scenario of experiment_name=main.*capture_scenario\.py"):
        compare(tmp_path)
    maker = ScenarioMaker()
    maker.write(tmp_path, "talk", [maker.conversation()], None)
    with pytest.raises(StrataError, match="runs=tlak: neither a path nor"):
        compare(tmp_path, "runs=tlak")
    with pytest.raises(StrataError, match="named twice"):
        compare(tmp_path, "runs=[talk,talk]")
    with pytest.raises(StrataError, match="there is no source 'hidden'"):
        compare(tmp_path, "sources=[hidden]")
    with pytest.raises(StrataError, match="same one"):
        compare(tmp_path, "sources=[hidden_out,resid_post]")
    with pytest.raises(StrataError, match=r"of others: talk\): choose one with runs="):
        compare(tmp_path, "experiment_name=mine")
    damaged = tmp_path / "scenario_run" / "talk" / "prompt_0" / "steps_0.jsonl"
    damaged.write_text("")
    with pytest.raises(StrataError, match="damaged"):
        compare(tmp_path)
