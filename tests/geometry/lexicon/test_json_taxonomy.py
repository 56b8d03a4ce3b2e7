import json

import pytest

from src.errors import StrataError
from src.geometry.lexicon.distances import path_distances
from src.geometry.lexicon.sources import read_taxonomy
from src.geometry.lexicon.taxonomy import WordSense

KITCHEN = {
    "name": "kitchen",
    "senses": {
        "knife": {"parents": ["tool"], "words": ["Knife", "blade"], "class": "tools", "definition": "a tool that cuts"},
        "tool": {},
        "razor": {"parents": ["tool"], "words": {"razor": 2, "blade": 5}},
        "to cut": {"words": {"cut": 12, "knife": 1}, "pos": "v"},
    },
}


def written(tmp_path, content) -> str:
    path = tmp_path / "taxonomy.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return str(path)


def test_what_the_file_says_is_what_the_taxonomy_holds(tmp_path):
    taxonomy = read_taxonomy(written(tmp_path, KITCHEN))
    assert taxonomy.names == ("knife", "tool", "razor", "to cut")
    assert taxonomy.pos == ("n", "n", "n", "v")
    assert [list(taxonomy.parents(sense)) for sense in range(4)] == [[1], [], [1], []]
    assert taxonomy.classes == ("tools", "", "", "")
    assert taxonomy.definitions == ("a tool that cuts", "", "", "")
    assert list(taxonomy.lemmas) == [("Knife", "blade"), ("tool",), ("razor", "blade"), ("cut", "knife")]
    # the more frequent sense comes first, parts of speech apart
    assert dict(taxonomy.words) == {
        "knife": (WordSense(0, 0, 1), WordSense(3, 1, 1)),
        "blade": (WordSense(2, 5, 1), WordSense(0, 0, 2)),
        "tool": (WordSense(1, 0, 1),),
        "razor": (WordSense(2, 2, 1),),
        "cut": (WordSense(3, 12, 1),),
    }
    assert path_distances(taxonomy, [0, 2, 3]).tolist() == [[0, 2, 255], [2, 0, 255], [255, 255, 0]]


def test_another_content_is_another_source(tmp_path):
    first = read_taxonomy(written(tmp_path, KITCHEN)).source
    assert read_taxonomy(written(tmp_path, KITCHEN)).source == first
    assert read_taxonomy(written(tmp_path, KITCHEN | {"name": "cellar"})).source != first


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is no JSON"),
        ({"name": "x", "senses": {}}, "senses: .*at least 1 item"),
        ({"name": "x", "senses": {"a": {"parent": "b"}}}, r"senses\.a\.parent: Extra inputs"),
        ({"name": "x", "senses": {"a": {"pos": "noun"}}}, r"senses\.a\.pos: Input should be 'n'"),
        ({"name": "x", "senses": {"a": {"words": {"b": -1}}}}, r"senses\.a\.words\.b: .*greater than or equal to 0"),
        ({"name": "x", "senses": {"a": {"parents": ["b"]}}}, "a is a kind of b, which is not among the senses: add it"),
        (
            {"name": "x", "senses": {"a": {"parents": ["b"]}, "b": {"parents": ["a"]}}},
            "in a circle: [ab] > [ab] > [ab]",
        ),
        (["a"], "the file: Input should be"),
    ],
)
def test_a_wrong_file_is_refused_by_name(tmp_path, content, message):
    with pytest.raises(StrataError, match=message):
        read_taxonomy(written(tmp_path, content))


def test_a_file_that_is_not_there_is_refused_with_what_would_do(tmp_path):
    with pytest.raises(StrataError, match=r"is not there: give a JSON taxonomy, a folder .* or wordnet"):
        read_taxonomy(str(tmp_path / "nothing.json"))


def test_the_testbeds_taxonomy_is_found_from_any_folder(tmp_path, monkeypatch):
    here = read_taxonomy("testbed/taxonomy.json")
    monkeypatch.chdir(tmp_path)
    assert read_taxonomy("testbed/taxonomy.json").source == here.source
