import json
import math
import re
import sys

import pytest

import make_report
from src.artifacts import Plan, Provenance, create_artifact, open_artifact
from src.errors import StrataError
from src.report.artifact_report import NamedChart, read_report, write_report
from src.report.figures.activations import keep_reasons
from src.report.index import collect_sections, write_index
from src.report.tables import Table

TABLE = Table(
    "Scores",
    ["L", "R2", "interval", "ok", "note"],
    [[1, 0.5, {"value": 0.5, "low": 0.4, "high": 0.6}, True, None], [2, math.nan, 1e-9, False, "</script>"]],
    "caption",
)


def chart():
    return NamedChart("keep", "Tokens", keep_reasons([{"reason": "BOS", "tokens": 3}], 10), "a caption")


def make_artifact(root, kind, label, title=None, parents=(), config=None):
    provenance = Provenance(config or {"key": label}, 0, "cpu", {"python": "3"}, None, "2026-01-01T00:00:00+00:00")
    plan = Plan(root, kind, label, {"label": label}, list(parents))
    with create_artifact(plan, provenance) as draft:
        if title:
            write_report(draft.path, title, "text", [TABLE])
    return open_artifact(plan.path, kind)


def test_a_report_comes_back_as_it_was_written(tmp_path):
    pictures = write_report(tmp_path, "Title", "text", [TABLE], [chart()])
    section = read_report(tmp_path)
    assert (section.title, section.text) == ("Title", "text")
    table = section.tables[0]
    assert (table.title, list(table.columns), table.caption) == (TABLE.title, TABLE.columns, TABLE.caption)
    assert [[(type(cell), cell) for cell in row] for row in table.rows] == [
        [(type(cell), cell) for cell in row] for row in [TABLE.rows[0], [2, "NaN", 1e-9, False, "</script>"]]
    ]
    assert section.figures[0].png == pictures["Tokens"].read_bytes()
    assert section.figures[0].caption == "a caption"
    assert section.figures[0].spec["mark" if "mark" in section.figures[0].spec else "layer"]
    json.loads((tmp_path / "report.json").read_text(), parse_constant=pytest.fail)


def test_two_runs_write_the_same_bytes(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        write_report(tmp_path / name, "Title", "text", [TABLE], [chart()])
    files = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*") if path.is_file())
    assert len(files) == 4
    assert all((tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes() for file in files)


@pytest.mark.parametrize("names", [["../x"], ["a b"], ["same", "same"]])
def test_figure_names_are_file_stems_and_used_once(tmp_path, names):
    charts = [NamedChart(name, name, chart().chart, "a caption") for name in names]
    with pytest.raises(ValueError, match="figure name"):
        write_report(tmp_path, "t", "", [], charts)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("report", "complaint"),
    [
        ("{", "report.json is damaged"),
        ('{"text": "no title"}', "title: Field required"),
        ('{"title": "t", "tables": [{"title": "t", "columns": ["a"], "rows": [[1, 2]]}]}', "2 cells in a row"),
        ('{"title": "t", "figures": [{"title": "f", "spec": "../secret", "png": "p"}]}', "outside its artifact"),
        (
            '{"title": "t", "figures": [{"title": "f", "spec": "gone.vl.json", "png": "p"}]}',
            "gone.vl.json can't be read",
        ),
        ('{"title": "t", "figures": [{"title": "f", "spec": "nan.vl.json", "png": "p"}]}', "NaN is not JSON"),
        ('{"title": "t", "figures": [{"title": "f", "spec": "ok.vl.json", "png": "ok.vl.json"}]}', "is no PNG"),
    ],
)
def test_a_broken_report_is_refused_with_its_reason(tmp_path, report, complaint):
    folder = tmp_path / "artifact"
    folder.mkdir()
    (tmp_path / "secret").write_text("{}")
    (folder / "report.json").write_text(report)
    (folder / "nan.vl.json").write_text('{"a": NaN}')
    (folder / "ok.vl.json").write_text('{"mark": "point"}')
    with pytest.raises(StrataError, match=complaint):
        read_report(folder)


def test_sections_follow_the_stages_and_end_with_all_artifacts(tmp_path):
    operators = make_artifact(tmp_path, "operators", "ridge", "Operators")
    make_artifact(tmp_path, "evaluation", "scores", "Evaluation", [operators.parent])
    make_artifact(tmp_path, "moments", "silent")
    make_artifact(tmp_path, "activations", "store", "Activations")
    (tmp_path / "activations" / "unfinished").mkdir()
    sections = collect_sections(tmp_path)
    assert [section.title for section in sections] == ["Activations", "Operators", "Evaluation", "Artifacts"]
    assert sections[1].source == operators.meta
    overview = sections[-1].tables[0]
    assert [row[0] for row in overview.rows] == ["activations", "moments", "operators", "evaluation"]
    assert overview.rows[3][3] == f"operators/{operators.meta.name}"
    assert not any(section.problem for section in sections)
    assert [section.chapter for section in sections] == ["Activations", "Transport", "Transport", "Provenance"]
    assert "git revision unknown" in sections[-1].text
    assert "Versions of packages are the same" in sections[-1].text


def test_damaged_and_foreign_artifacts_become_sections_that_say_so(tmp_path):
    good = make_artifact(tmp_path, "activations", "store", "Activations")
    broken = make_artifact(tmp_path, "evaluation", "scores", "Evaluation")
    (broken.path / "report.json").write_text('{"title": 3}')
    for name, content in [("cut", '{"kind": '), ("foreign", '{"anything": 1}'), ("list", "[]"), ("moved", None)]:
        (tmp_path / "operators" / name).mkdir(parents=True)
        content = content or (good.path / "meta.json").read_text()
        (tmp_path / "operators" / name / "meta.json").write_text(content)
    wrong_type = json.loads((good.path / "meta.json").read_text()) | {"kind": "operators", "fingerprint": 5}
    (tmp_path / "operators" / "typed").mkdir()
    (tmp_path / "operators" / "typed" / "meta.json").write_text(json.dumps(wrong_type))

    problems = {section.title: section.text for section in collect_sections(tmp_path) if section.problem}
    assert set(problems) == {
        f"evaluation/{broken.meta.name} can't be shown",
        *(f"operators/{name} can't be shown" for name in ("cut", "foreign", "list", "moved", "typed")),
    }
    assert "title" in problems[f"evaluation/{broken.meta.name} can't be shown"]
    assert "holds 'activations'" in problems["operators/moved can't be shown"]
    assert "fingerprint" in problems["operators/typed can't be shown"]
    assert [section.title for section in collect_sections(tmp_path) if not section.problem] == [
        "Activations",
        "Artifacts",
    ]


def test_an_empty_or_missing_folder_has_no_sections(tmp_path):
    assert collect_sections(tmp_path) == []
    assert collect_sections(tmp_path / "nowhere") == []


def configured(model, dataset):
    return {"model": {"name": model}, "dataset": {"dataset_name": dataset}}


def test_the_heading_of_the_index_tells_models_and_datasets(tmp_path):
    make_artifact(tmp_path, "activations", "one", "Activations", config=configured("gpt2", "wikitext"))
    make_artifact(tmp_path, "operators", "two", "Operators", config=configured("gpt2", "wikitext"))
    make_artifact(tmp_path, "evaluation", "three", "Evaluation", config=configured("bert", "wikitext"))
    make_artifact(tmp_path, "evaluation", "four", "Evaluation", config={"model": "gpt2"})
    page = write_index(tmp_path)
    assert page == tmp_path / "index.html"
    lead = re.search('<p class="lead">(.*?)</p>', page.read_text(encoding="utf-8"))
    assert lead is not None
    assert lead[1] == "Models: gpt2, bert. Dataset: wikitext"


@pytest.mark.parametrize("form", ["{}", "artifacts_dir={}"])
def test_make_report_writes_the_index_of_the_named_folder(tmp_path, monkeypatch, capsys, form):
    make_artifact(tmp_path, "activations", "store", "Activations of the store")
    monkeypatch.setattr(sys, "argv", ["make_report.py", form.format(tmp_path)])
    make_report.main()
    assert capsys.readouterr().out == f"report: {tmp_path / 'index.html'}\n"
    assert "Activations of the store" in (tmp_path / "index.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("exists", "message"), [(False, "there is no folder"), (True, "artifacts holds no finished artifact")]
)
def test_make_report_without_artifacts_says_so_in_one_message(tmp_path, monkeypatch, exists, message):
    monkeypatch.chdir(tmp_path)
    if exists:
        (tmp_path / "artifacts").mkdir()
    monkeypatch.setattr(sys, "argv", ["make_report.py"])
    with pytest.raises(SystemExit, match=f"^make_report: .*{message}"):
        make_report.main()
    assert [path.name for path in tmp_path.rglob("*")] == ["artifacts"] * exists


def test_make_report_explains_itself(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["make_report.py", "--help"])
    with pytest.raises(SystemExit) as exit_status:
        make_report.main()
    assert exit_status.value.code == 0
    assert "ARTIFACTS_DIR" in capsys.readouterr().out
