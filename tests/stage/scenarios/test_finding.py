"""Which files scenario=... means."""

import pytest

from src.errors import StrataError
from src.stage.scenarios.finding import scenario_files


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("named/emotions.yaml", "named/facts.yml", "mine/b.yml", "mine/a.yaml", "mine/notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "mine" / "deeper.yaml").mkdir()
    (tmp_path / "empty").mkdir()
    return tmp_path


def names(chosen: str) -> list[str]:
    return [str(path) for path in scenario_files(chosen, "named")]


def test_names_files_and_folders_are_found(folder):
    assert names("emotions") == ["named/emotions.yaml"]
    assert names("facts") == ["named/facts.yml"]
    assert names("mine/b.yml") == ["mine/b.yml"]
    assert names("mine/") == names("mine") == ["mine/a.yaml", "mine/b.yml"]
    assert names(str(folder / "mine")) == [f"{folder}/mine/a.yaml", f"{folder}/mine/b.yml"]


def test_a_name_goes_before_a_folder_of_that_name_and_a_path_is_never_a_name(folder):
    (folder / "emotions").mkdir()
    assert names("emotions") == ["named/emotions.yaml"]
    with pytest.raises(StrataError, match="the folder holds no scenario files"):
        names("./emotions")


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ("emotion", r"named has no scenario of this name.*did you mean emotions\? choose from emotions, facts"),
        ("empty", r"scenario=empty: the folder holds no scenario files \(\*\.yaml, \*\.yml\)"),
        ("mine/c.yaml", r"scenario=mine/c.yaml: no such file or folder \(looked at /.*mine/c.yaml\)"),
        ("nowhere/", r"scenario=nowhere/: no such file or folder"),
        ("c.yaml", r"scenario=c.yaml: no such file or folder"),
    ],
)
def test_what_is_not_there_is_told_with_what_is(folder, chosen, message):
    with pytest.raises(StrataError, match=message):
        names(chosen)
