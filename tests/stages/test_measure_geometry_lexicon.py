"""measure_geometry.py analysis=lexicon as a user runs it, on the testbed and on what does not fit."""

import json
import re
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from transformers import AutoTokenizer

import measure_geometry
from src.activations.store import open_store
from src.artifacts import Artifact, verify
from src.config.geometry.stage import GeometryConfig
from src.errors import NotApplicableError, StrataError
from src.report.artifact_report import read_report
from src.stage.entry import ROOT, compose, run_stage
from tests.fixtures.tiny_models import tiny_model
from tests.fixtures.tiny_project import make_project

_LAST = ("lexicon.layers=[5]", "lexicon.min_class=2")
QUICK = ("lexicon.permutations=99", "lexicon.class_permutations=19", "lexicon.documents=600", "threads=1", "device=cpu")


def no_drawing(_: object) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + bytes(24)


@pytest.fixture(autouse=True)
def _at_home(monkeypatch):
    # the testbed's paths are relative to the repository
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr("src.report.charts.draw_png", no_drawing)


def run(folder: Path, *overrides: str) -> Artifact:
    words = ["analysis=lexicon", f"artifacts_dir={folder}", *QUICK, *overrides]
    return run_stage(
        measure_geometry.run, GeometryConfig, "measure_geometry", compose("measure_geometry", words), words
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("lexicon")


@pytest.fixture
def made(folder) -> Artifact:
    """The testbed, measured by the first test that asks."""
    return run(folder)


def profiles(artifact: Artifact) -> dict[tuple[str, int | None], dict]:
    document = json.loads((artifact.path / "lexicon.json").read_text())
    return {(each["representation"], each["layer"]): each for each in document["profiles"]}


def test_the_testbed_knows_its_taxonomy_at_every_layer(made):
    found = profiles(made)
    layers = [("carrier", layer) for layer in range(6)] + [("contexts", layer) for layer in range(6)]
    assert set(found) == {("static", None), *layers, ("context_words", None)}
    # the words around say less of a word's kind than the model's states do
    assert found.pop(("context_words", None))["pearson"] < 0.5 * found["contexts", 1]["pearson"]
    for place, values in found.items():
        if place != ("contexts", 5):
            assert values["pearson"] - 1.96 * values["pearson_error"] > values["pearson_chance_high"]
            assert values["purity"] > 1.5 * values["expected_purity"]
        # two sets of words: one never occurs in the text that contexts are from
        assert values["pearson_p_corrected"] == pytest.approx(0.02, abs=0.025)
        assert values["pearson_chance_low"] < 0 < values["pearson_chance_high"] < 0.05
    assert found["carrier", 3]["pearson"] > 0.4 > found["static", None]["pearson"] > 0.2
    assert found["carrier", 3]["hypernym_excess_slope"] < 0
    assert found["carrier", 3]["hypernym_excess_slope_p"] == 0.05  # the smallest of 19 permutations
    assert found["carrier", 3]["pearson_reach"] > 2
    report = read_report(made.path)
    assert re.match(
        r"Cosines of 110 nouns follow their distances in the taxonomy testbed: at most r = 0\.\d+", report.text
    )
    assert verify(made.path) == []


def test_files_hold_every_number(made):
    by_distance = pq.read_table(made.path / "by_distance.parquet").to_pylist()
    static = [row for row in by_distance if row["representation"] == "static"]
    assert [row["distance"] for row in static] == [1, 2, 3, 4, 5, 6, 7]
    assert sum(row["n_pairs"] for row in static) == 110 * 109 / 2
    words = {row["word"]: row for row in pq.read_table(made.path / "words.parquet").to_pylist()}
    assert words["robin"]["sense"] == "robin"
    assert words["robin"]["contexts"] == 16
    assert words["thing"]["occurrences"] == words["thing"]["contexts"] == 0
    hypernyms = pq.read_table(made.path / "hypernyms.parquet").to_pylist()
    assert {row["steps"] for row in hypernyms} == {1, 2, 3}
    classes = pq.read_table(made.path / "classes.parquet").to_pylist()
    assert {row["class"] for row in classes} == {"animal", "artefact", "plant"}


def test_a_repeated_command_finds_its_result(made, folder, capsys):
    assert run(folder).path == made.path
    assert "reused" in capsys.readouterr().out
    assert run(folder, "lexicon.representations=[static]", "lexicon.transform=raw").path != made.path


def test_definitions_stand_beside_their_words(folder):
    artifact = run(folder, "lexicon.representations=[definition_mean,definition_last]", "lexicon.layers=[0,5]")
    found = profiles(artifact)
    assert set(found) == {
        ("definition_mean", 0),
        ("definition_mean", 5),
        ("definition_last", 0),
        ("definition_last", 5),
        ("definition_words", None),
    }
    # the taxonomy is written in them: no model is needed to read it
    assert found["definition_words", None]["pearson"] > 0.5
    assert "Definitions name kinds" in read_report(artifact.path).text


def test_the_notebooks_numbers_stand_beside(folder):
    artifact = run(folder, "compat=notebook", "lexicon.representations=[static]", "lexicon.seeds=2")
    notebook = json.loads((artifact.path / "lexicon_notebook.json").read_text())
    assert notebook["pos"] == {"n": 109, "v": 0, "a": 0, "s": 0, "r": 0}
    assert notebook["n_seeds"] == 2
    assert notebook["modifier_pairs_pearson"] is None
    assert notebook["static_pearson"] == pytest.approx(notebook["static_pearson_nouns"])
    assert {"variant", "band", "n_pairs", "static", "contextual"} == set(notebook["bands"][0])
    seeds = json.loads((artifact.path / "seeds.json").read_text())
    exact = profiles(artifact)["static", None]["pearson"]
    ours = next(row for row in seeds if row["quantity"] == "static_pearson")
    assert ours["mean"] == pytest.approx(exact, abs=0.02)
    titles = [table.title for table in read_report(artifact.path).tables]
    assert "As the notebook computes it" in titles


def test_contexts_of_a_store(tmp_path, monkeypatch):
    project = make_project(tmp_path, n_documents=80, longest=24)
    project.collect()
    monkeypatch.chdir(tmp_path)
    senses = {f"kind{i}": {"words": [f"w{10 + i}"], "class": "kinds"} for i in range(3)}
    senses |= {f"s{i}": {"words": [f"w{20 + i}"], "parents": [f"kind{i % 3}"], "class": "things"} for i in range(12)}
    Path("taxonomy.json").write_text(json.dumps({"name": "made <b>", "senses": senses}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("src.geometry.words.matching._LETTERS", re.compile(r"[^\W_]+"))
        artifact = run(
            tmp_path / "artifacts",
            "model.path=model",
            "model.name=tiny",
            "dataset.dataset_name=text.jsonl",
            "dataset.dataset_split=null",
            "lexicon.taxonomy=taxonomy.json",
            f"lexicon.activations={project.store()}",
            "lexicon.representations=[contexts]",
        )
    found = profiles(artifact)
    store = open_store(project.store())
    assert {layer for _, layer in found} == {None, *(point.layer for point in store.layout.hook_points)}
    assert artifact.meta.parents[0].fingerprint == store.artifact.meta.fingerprint
    # random weights know nothing, and nothing connects the kinds
    assert "do not follow" in read_report(artifact.path).text
    assert next(iter(found.values()))["coverage"] < 0.5


def test_words_counted_beyond_the_contexts_that_are_read_decide_too(folder, tmp_path):
    """Frequencies are of all the text: more of it at the end is another result, though the same contexts are read."""
    names = ["robin", "sparrow", "eagle", "salmon", "trout", "oak", "pine", "rose", "dog", "cat"]
    lines = [f"the {name} is here" for name in names for _ in range(2)]
    made = []
    for more in (0, 3):
        (tmp_path / "text.txt").write_text("\n".join(lines + ["the robin is here"] * more) + "\n")
        dataset = (f"dataset.dataset_name={tmp_path / 'text.txt'}", "dataset.dataset_split=null")
        made.append(run(folder, *dataset, "lexicon.contexts=2", "lexicon.representations=[contexts]", *_LAST))
    assert made[0].path != made[1].path
    assert profiles(made[0])["contexts", 5]["partial"] != profiles(made[1])["contexts", 5]["partial"]


def test_what_does_not_fit_is_refused_before_it_is_measured(folder, tmp_path):
    with pytest.raises(StrataError, match=r"lexicon\.layers=\[6\]: .* has layers 0\.\.5"):
        run(folder, "lexicon.layers=[6]")
    with pytest.raises(NotApplicableError, match="0 verbs of the taxonomy"):
        run(folder, "lexicon.pos=v")
    with pytest.raises(StrataError, match=r"whitened: 110 words in 128 dimensions"):
        run(folder, "lexicon.transform=whitened")
    with pytest.raises(StrataError, match=r"carriers: each needs \{word\}"):
        run(folder, "lexicon.carriers=[the]")
    (tmp_path / "text.txt").write_text("the robin\n")
    with pytest.raises(StrataError, match=r"1 of 110 words occur in dataset .*, and contexts needs 8"):
        run(folder, f"dataset.dataset_name={tmp_path / 'text.txt'}", "dataset.dataset_split=null")


def test_texts_are_no_longer_than_the_model_has_positions(tmp_path, capsys):
    """A BERT with 40 positions, and texts of up to 128 tokens by default."""
    model = tmp_path / "bert"
    tokenizer = AutoTokenizer.from_pretrained(ROOT / "testbed/models/base")
    tiny_model("bert", vocab_size=len(tokenizer), max_position_embeddings=40).save_pretrained(model)
    tokenizer.save_pretrained(model)
    made = run(tmp_path, f"model.path={model}", "model.name=bert", "lexicon.representations=[contexts]")
    assert "texts are cut off at 40 tokens: bert has no more positions" in capsys.readouterr().out
    assert verify(made.path) == []
