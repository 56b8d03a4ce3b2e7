import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from src.errors import StrataError
from src.geometry.lexicon import database, wordnet
from src.geometry.lexicon.database import find_database, open_database
from src.geometry.lexicon.sources import read_taxonomy
from src.geometry.lexicon.wordnet import read_wordnet
from src.geometry.lexicon.wordnet_cache import cache_path
from src.geometry.lexicon.wordnet_tables import parse_database
from tests.fixtures.wordnet_files import Synset, write_wordnet


def small(folder: Path) -> Path:
    """Four senses: an entity, two animals (dog of both), and a dog that barks."""
    return write_wordnet(
        folder,
        {
            "a": [Synset("a", ["canine(a)"], 1, "of dogs")],
            "r": [Synset("r", ["doggedly"], 2, "as a dog would")],
            "n": [
                Synset("n", ["entity"], 3, "what is"),
                Synset("n", ["pet"], 5, 'an animal at home; "my pet"', [("@", 0)]),
                Synset("n", ["Canis", "beast of prey".replace(" ", "_")], 5, "an animal that bites", [("@", 0)]),
                Synset("n", ["dog"], 5, "a pet that bites", [("@", 2), ("@", 1)]),
            ],
            "v": [Synset("v", ["dog", "bark_at"], 32, 'follow; "they dogged him"')],
        },
    )


def test_synsets_are_read_as_nltk_reads_them(made_wordnet):
    ours, theirs = made_wordnet.taxonomy, made_wordnet.synsets
    assert list(ours.pos) == [synset.pos() for synset in theirs]
    assert list(ours.classes) == [synset.lexname() for synset in theirs]
    assert list(ours.definitions) == [synset.definition() for synset in theirs]
    assert list(ours.lemmas) == [tuple(name.replace("_", " ") for name in synset.lemma_names()) for synset in theirs]
    names = [synset.name() for synset in theirs]
    for sense, (name, pos) in enumerate(zip(names, ours.pos, strict=True)):
        parents = {ours.names[parent] for parent in ours.parents(sense)}
        assert parents == {
            parent.name() for parent in (*theirs[sense].hypernyms(), *theirs[sense].instance_hypernyms())
        }
        # satellites are numbered among all adjectives, as in the index; this NLTK counts them alone
        assert pos == "s" or ours.names[sense] == name


def test_words_mean_what_nltk_says_and_as_often(made_wordnet):
    ours, theirs = made_wordnet.taxonomy, made_wordnet.synsets
    number = {id(synset): sense for sense, synset in enumerate(theirs)}
    reader = theirs.reader
    counted = 0
    for word in [word for word in ours.words if word.startswith("word")][:300]:
        for pos in ("n", "v", "a", "r"):
            synsets = reader.synsets(word, pos, check_exceptions=False)
            meanings = [each for each in ours.words[word] if ours.pos[each.sense].replace("s", "a") == pos]
            assert [each.sense for each in meanings] == [number[id(synset)] for synset in synsets]
            assert [each.number for each in meanings] == list(range(1, len(synsets) + 1))
            for each, synset in zip(meanings, synsets, strict=True):
                lemma = next(lemma for lemma in synset.lemmas() if lemma.name().lower() == word)
                assert each.count == lemma.count()
                counted += each.count > 0
    assert counted > 100


def test_a_word_is_found_in_lower_case_with_spaces_and_without_markers(tmp_path):
    taxonomy = read_wordnet(open_database(small(tmp_path / "wn")))
    assert {"canis", "beast of prey", "canine", "bark at"} <= taxonomy.words.keys()
    assert [taxonomy.names[each.sense] for each in taxonomy.words["dog"]] == ["dog.n.01", "dog.v.01"]
    assert taxonomy.lemmas[taxonomy.names.index("canis.n.01")] == ("Canis", "beast of prey")
    assert taxonomy.definitions[taxonomy.names.index("pet.n.01")] == "an animal at home"
    assert taxonomy.source.startswith("WordNet 3.0 ")


def test_parents_come_in_the_order_of_the_file(tmp_path):
    taxonomy = read_wordnet(open_database(small(tmp_path / "wn")))
    assert [taxonomy.names[parent] for parent in taxonomy.parents(taxonomy.names.index("dog.n.01"))] == [
        "canis.n.01",
        "pet.n.01",
    ]


def test_parents_and_distances_do_not_depend_on_the_hash_seed(tmp_path, made_wordnet):
    """BUG D-6: NLTK keeps pointers in a set, so the first parent of a sense with several changes from run to run."""
    program = """
import hashlib, json, sys
from pathlib import Path
import numpy as np
from src.geometry.lexicon.database import open_database
from src.geometry.lexicon.distances import path_distances, wu_palmer
from src.geometry.lexicon.wordnet import read_wordnet
taxonomy = read_wordnet(open_database(Path(sys.argv[1])))
parents = [taxonomy.parents(sense).tolist() for sense in range(len(taxonomy.names))]
senses = range(0, len(taxonomy.names), 40)
digest = hashlib.sha256(path_distances(taxonomy, senses).tobytes() + wu_palmer(taxonomy, senses).tobytes()).hexdigest()
print(json.dumps([parents, taxonomy.names, digest]))
"""
    found = []
    for seed in ("1", "2", "3"):
        environment = os.environ | {"PYTHONHASHSEED": seed, "XDG_CACHE_HOME": str(tmp_path / seed)}
        command = [sys.executable, "-c", program, str(made_wordnet.folder)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        found.append(json.loads(done.stdout))
    assert found[0] == found[1] == found[2]
    assert (np.diff(made_wordnet.taxonomy.parent_start) > 1).sum() > 300  # senses with a choice of parents


# --- the cache ------------------------------------------------------------------------------------------------------
def test_a_database_is_parsed_once(tmp_path, monkeypatch):
    folder = small(tmp_path / "wn")
    first = read_wordnet(open_database(folder))

    def parse(_):
        raise AssertionError("parsed again")

    monkeypatch.setattr(wordnet, "parse_database", parse)
    again = read_wordnet(open_database(folder))
    for name in ("source", "names", "pos", "classes", "definitions"):
        assert getattr(again, name) == getattr(first, name)
    assert list(again.lemmas) == list(first.lemmas)
    assert dict(again.words) == dict(first.words)
    np.testing.assert_array_equal(again.parent, first.parent)
    np.testing.assert_array_equal(again.parent_start, first.parent_start)
    (folder / "data.adv").write_text((folder / "data.adv").read_text().replace("would", "could"))
    with pytest.raises(AssertionError, match="parsed again"):  # another database
        read_wordnet(open_database(folder))


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[content.index(b"dog.n.01")] ^= 1
    path.write_bytes(bytes(content))


def _pickle(path: Path) -> None:
    with path.open("wb") as file:
        np.savez(file, names=np.array([{"a": 1}], dtype=object))


@pytest.mark.parametrize("damage", [_truncate, _flip, _pickle, lambda path: path.write_bytes(b"")])
def test_a_damaged_cache_is_made_again(tmp_path, damage):
    source = open_database(small(tmp_path / "wn"))
    first = read_wordnet(source)
    path = cache_path(source.digest)
    whole = path.read_bytes()
    damage(path)
    assert path.read_bytes() != whole
    assert read_wordnet(source).names == first.names
    assert len(path.read_bytes()) == len(whole)
    assert list(path.parent.iterdir()) == [path]  # no drafts


def test_a_cache_folder_that_cannot_be_written_is_no_hindrance(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert "dog" in read_wordnet(open_database(small(tmp_path / "wn"))).words


# --- where it is ----------------------------------------------------------------------------------------------------
@pytest.fixture
def _nowhere(monkeypatch, tmp_path):
    for name in ("WNSEARCHDIR", "WNHOME", "NLTK_DATA"):
        monkeypatch.delenv(name, raising=False)
    usual = database.usual_places
    monkeypatch.setattr(database, "usual_places", lambda: (place for place in usual() if tmp_path in place.parents))


@pytest.mark.usefixtures("_nowhere")
def test_without_wordnet_the_message_names_both_ways_to_get_it():
    with pytest.raises(StrataError, match=r"apt-get install.*wordnet-base.*nltk\.downloader wordnet"):
        read_taxonomy("wordnet")


@pytest.mark.usefixtures("_nowhere")
@pytest.mark.parametrize(
    ("variable", "place"),
    [("WNSEARCHDIR", "."), ("WNHOME", "dict"), ("NLTK_DATA", "corpora/wordnet"), ("NLTK_DATA", "corpora/wordnet.zip")],
)
def test_wordnet_is_found_where_its_tools_and_nltk_keep_it(tmp_path, monkeypatch, variable, place):
    folder = small(tmp_path / "wn")
    target = (tmp_path / "root" / place).resolve()
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.suffix == ".zip":  # as NLTK's downloader leaves it
        with zipfile.ZipFile(target, "w") as archive:
            for path in folder.iterdir():
                archive.write(path, f"wordnet/{path.name}")
    else:
        folder.rename(target)
    monkeypatch.setenv(variable, str(tmp_path / "root"))
    assert find_database().place == target
    assert "dog" in read_taxonomy("wordnet").words
    assert "dog" in read_taxonomy(str(target)).words


@pytest.mark.usefixtures("_nowhere")
def test_a_broken_download_is_passed_over_and_named_if_it_is_all_there_is(tmp_path, monkeypatch):
    broken = tmp_path / "data" / "corpora" / "wordnet.zip"
    broken.parent.mkdir(parents=True)
    broken.write_bytes(b"half of a zip")
    other = small(tmp_path / "other" / "corpora" / "wordnet")
    monkeypatch.setenv("NLTK_DATA", os.pathsep.join([str(tmp_path / "data"), str(tmp_path / "other")]))
    assert find_database().place == other
    monkeypatch.setenv("NLTK_DATA", str(tmp_path / "data"))
    with pytest.raises(StrataError, match=r"wordnet\.zip can't be read"):
        find_database()


def test_a_folder_without_wordnet_is_refused(tmp_path):
    with pytest.raises(StrataError, match=r"has no data\.noun"):
        read_taxonomy(str(tmp_path))
    (tmp_path / "broken.zip").write_bytes(b"no zip")
    with pytest.raises(StrataError, match=r"broken\.zip can't be read"):
        read_taxonomy(str(tmp_path / "broken.zip"))


def test_nouns_alone_are_a_taxonomy(tmp_path):
    folder = small(tmp_path / "wn")
    for path in folder.iterdir():
        if not path.name.endswith(".noun"):
            path.unlink()
    taxonomy = read_wordnet(open_database(folder))
    assert set(taxonomy.pos) == {"n"}
    assert [each.count for each in taxonomy.words["dog"]] == [0]  # no cntlist.rev


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("data.noun", " 05 n 01 dog 0 ", " 05 n 01 dog ", r"data\.noun, line 8: not in the format"),
        ("data.noun", " 05 n 01 dog 0 ", " 77 n 01 dog 0 ", r"data\.noun, line 8: not in the format"),
        ("data.noun", "| a pet that", "  a pet that", r"data\.noun, line 8: not in the format"),
        ("index.noun", "dog n 1", "dog n x", r"index\.noun, line \d+: not in the format"),
        ("index.noun", "dog n 1 1 @ 1 0 0", "dog n 1 1 @ 1 0 9", r"index\.noun, line \d+: not in the format"),
        ("index.noun", "\ndog n", "\ncat n", r"dog \(n\) is not in the index"),
        ("cntlist.rev", " 42", "", r"cntlist\.rev, line 1: not in the format"),
    ],
)
def test_a_damaged_line_is_named(tmp_path, name, old, new, message):
    folder = small(tmp_path / "wn")
    if name == "cntlist.rev":
        (folder / name).write_text("dog%1:05:00:: 1 42\n")
    text = (folder / name).read_text()
    assert old in text
    (folder / name).write_text(text.replace(old, new))
    with pytest.raises(StrataError, match=message):
        parse_database(open_database(folder))


def test_a_hypernym_that_is_not_there_and_data_without_an_index_are_refused(tmp_path):
    folder = small(tmp_path / "wn")
    text = (folder / "data.noun").read_text()
    entity = text.splitlines()[4].split()[0]
    (folder / "data.noun").write_text(text.replace(f" @ {entity} n 0000", " @ 00000001 n 0000"))
    with pytest.raises(StrataError, match="a hypernym is not there: 00000001"):
        parse_database(open_database(folder))
    for name in ("data.noun", "index.noun"):
        (tmp_path / name).write_text("")
    with pytest.raises(StrataError, match="no synsets"):
        parse_database(open_database(tmp_path))
    (folder / "index.verb").unlink()
    with pytest.raises(StrataError, match=r"no index\.verb"):
        parse_database(open_database(folder))
