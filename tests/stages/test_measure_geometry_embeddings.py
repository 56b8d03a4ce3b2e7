"""measure_geometry.py analysis=embeddings as a user runs it: order and kinds of the testbed; own lists; files."""

import json
import shutil
from pathlib import Path

import altair as alt
import numpy as np
import pytest
import vl_convert
from safetensors.numpy import load_file, save_file

import measure_geometry
from src.artifacts import Artifact
from src.config.geometry.stage import GeometryConfig
from src.errors import StrataError
from src.report.artifact_report import read_report
from src.stage.entry import compose, run_stage
from tests.fixtures.chatml_model import N_VOCAB, chatml_llama, chatml_tokenizer
from tests.fixtures.tiny_models import tiny_model

QUICK = ("analysis=embeddings", "embeddings.permutations=999", "embeddings.draws=199", "threads=1")


@pytest.fixture(autouse=True)
def _without_drawing(monkeypatch):
    # drawing takes longer than all else; test_embedding_finding.py draws
    monkeypatch.setattr("src.report.charts.draw_png", lambda _: b"\x89PNG\r\n\x1a\n" + bytes(24))
    for name in ("overview", "category_figure"):
        monkeypatch.setattr(
            f"src.report.geometry.embeddings.finding.{name}", lambda _: alt.Chart(alt.Data(values=[])).mark_point()
        )


def run(folder: Path, *overrides: str) -> Artifact:
    words = [*QUICK, f"artifacts_dir={folder}", *overrides]
    return run_stage(
        measure_geometry.run, GeometryConfig, "measure_geometry", compose("measure_geometry", words), words
    )


def values_of(artifact: Artifact) -> dict:
    return json.loads((artifact.path / "embeddings.json").read_text())


@pytest.fixture(scope="module")
def testbed(tmp_path_factory) -> Artifact:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("src.report.charts.draw_png", lambda _: b"\x89PNG\r\n\x1a\n" + bytes(24))
        return run(tmp_path_factory.mktemp("testbed"), "compat=notebook")


def test_what_the_testbed_has_in_order_is_in_order(testbed):
    sets = values_of(testbed)["ordered_sets"]
    for name in ("digits", "weekdays", "months", "hours"):
        assert sets[name]["pearson"] < -0.5
        assert sets[name]["adjusted_p"] < 0.02
        assert sets[name]["nearest"] > 0.9
    assert sets["weekdays"]["cycle"]
    assert len(sets["months"]["words"]) == 12


def test_the_testbeds_kinds_stand_together(testbed):
    found = values_of(testbed)["categories"]
    by_name = {each["name"]: each for each in found["categories"]}
    for name in ("colours", "fish", "birds", "instruments", "emotions", "numbers"):
        assert by_name[name]["z"] > 3
        assert by_name[name]["lift"] > 0.1
    assert found["purity"]["share"] > 0.7
    assert found["purity"]["by_chance"] < 0.1


def test_special_tokens_are_no_rows_and_the_first_sentence_is_the_finding(testbed):
    values = values_of(testbed)
    assert values["rows"] == values["rows"] | {"rows": 557, "special": 8, "counted": 549, "padding": 0, "tied": True}
    text = read_report(testbed.path).text
    assert text.startswith("The 549 rows of testbed spread over 27.9 of 128 dimensions")
    assert "if isotropic" in text.split(". ")[0] + text.split(". ")[1]
    assert "digits (r = -0.68" in text


def test_rows_that_training_hardly_met_are_told_where_they_point_one_way(testbed):
    """The base model never met the words of chats: 28 rows of one direction, which no copy or padding row betrays."""
    assert values_of(testbed)["rows"]["untrained"] == 0
    assert values_of(testbed)["rows"]["clumped"] == 28
    assert "28 other tokens' rows all point one way" in read_report(testbed.path).text


def test_categories_of_which_no_word_is_known_are_told(tmp_path, capsys):
    file = tmp_path / "kinds.json"
    file.write_text('{"a": ["zzqq", "qqzz", "wwyy"], "b": ["xxkk"]}')
    artifact = run(tmp_path, f"embeddings.categories={file}")
    assert values_of(artifact)["categories"] is None
    assert "kinds.json: fewer than 2 categories" in capsys.readouterr().err


def test_the_notebooks_numbers_stand_beside_ours(testbed):
    t5, qwen = json.loads((testbed.path / "embeddings_notebook.json").read_text())
    assert (t5["variant"], qwen["variant"]) == ("t5", "qwen")
    assert t5["rows"] == 557
    assert qwen["cosines"]["mean"] != values_of(testbed)["tables"]["input"]["cosine"]["mean"]
    table = next(each for each in read_report(testbed.path).tables if each.title == "As the notebook computes it")
    assert list(table.columns) == ["", "notebook (t5)", "notebook (qwen)", "ours"]


def test_arrays_are_those_of_the_rows(testbed):
    arrays = load_file(testbed.path / "embeddings.safetensors")
    assert arrays["token_id"].tolist() == list(range(8, 557))
    assert arrays["input_cosine_count"].sum() == 549 * 548 // 2
    assert arrays["input_norm"].mean() == pytest.approx(values_of(testbed)["tables"]["input"]["norms"]["mean"])
    assert len(arrays["input_eigenvalue"]) == 128


@pytest.fixture(scope="module")
def untied(tmp_path_factory) -> Path:
    """A chat model with padding rows, hostile tokens, and an unembedding of its own."""
    folder = tmp_path_factory.mktemp("untied")
    module = chatml_llama()
    tokenizer = chatml_tokenizer()
    tokenizer.add_tokens([" <script>alert(1)</script>", " [red]x[/red]"])
    module.resize_token_embeddings(N_VOCAB + 40, mean_resizing=False)
    module.get_input_embeddings().weight.data[N_VOCAB + 2 :] = 0.5
    module.get_input_embeddings().weight.data[99] = 0.5
    module.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_padding_rows_are_left_out_and_rows_like_them_are_told(untied, tmp_path, capsys):
    artifact = run(tmp_path, f"model.path={untied}", "model.name=untied", "embeddings.percentile_rows=500")
    values = values_of(artifact)
    rows = values["rows"]
    assert (rows["padding"], rows["counted"], rows["like_padding"]) == (38, N_VOCAB - 3 + 2, 1)
    assert not rows["tied"]
    assert set(values["tables"]) == {"input", "output"}
    assert abs(values["input_output"]["cosine_mean"]) < 0.1
    assert values["tables"]["input"]["cosine"]["percentile_rank_error"] > 0
    with_padding = run(tmp_path, f"model.path={untied}", "model.name=untied", "embeddings.rows=all")
    assert values_of(with_padding)["rows"]["counted"] == N_VOCAB + 40
    assert with_padding.path != artifact.path
    said = capsys.readouterr().out
    # the tokenizer's padding token has a row of zeros
    assert rows["zero"] == 1
    assert "2 tokens' rows look untrained (copies, zeros, or like the padding rows): <|endoftext|>, " in said
    table = next(each for each in read_report(artifact.path).tables if each.title == "Rows that look untrained")
    assert [row[2] for row in table.rows] == [False, True]


@pytest.mark.parametrize("table", ["embed_tokens", "lm_head"])
def test_rows_that_are_not_finite_are_named_before_anything_is_measured(untied, tmp_path, table):
    folder = tmp_path / "broken"
    shutil.copytree(untied, folder)
    weights = load_file(folder / "model.safetensors")
    name = next(each for each in weights if table in each)
    broken = weights[name].copy()
    broken[[7, -1]] = np.nan  # the last one is a padding row, which counts for nothing
    save_file({**weights, name: broken}, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(
        StrataError, match=r"1 rows of the (embeddings|unembedding) of broken .* \(the first is row 7\)"
    ):
        run(tmp_path, f"model.path={folder}", "model.name=broken")


def test_figures_are_drawn_from_what_was_written(testbed):
    for name in ("embeddings", "categories"):
        specification = json.loads((testbed.path / "figures" / f"{name}.vl.json").read_text())
        assert len(vl_convert.vegalite_to_png(specification)) > 10_000
    titles = [
        panel["title"]["text"]
        for panel in json.loads((testbed.path / "figures/embeddings.vl.json").read_text())["concat"]
    ]
    assert titles[:4] == ["Norms of rows", "Cosines of all pairs", "Variance of dimensions", "Cumulative variance"]
    assert titles[-1] == "Categories"
    assert "digits (r = -0.68, p = 0.005)" in titles


def test_hostile_names_move_no_cursor(tmp_path, capsys):
    categories = tmp_path / "categories.json"
    hostile = "\x1b[2J[red]</script>"
    categories.write_text(json.dumps({hostile: ["cat", "lion", "mouse"], "trees": ["oak", "pine", "birch"]}))
    artifact = run(tmp_path / "a", f"embeddings.categories={categories}")
    said = capsys.readouterr().out
    assert "\x1b" not in said
    assert "\\x1b[2J[red]</script>" in said
    assert values_of(artifact)["categories"]["categories"][0]["name"] == hostile


def test_own_lists_are_added_and_bad_ones_refused_before_anything_is_read(tmp_path):
    sets, categories = tmp_path / "sets.json", tmp_path / "categories.json"
    sets.write_text('{"ages": ["one", "two", "three", "four", "five"]}')
    categories.write_text('{"cats": ["cat", "lion", "mouse"], "trees": ["oak", "pine", "birch", "elm"]}')
    found = values_of(run(tmp_path / "a", f"embeddings.ordered_sets={sets}", f"embeddings.categories={categories}"))
    assert found["ordered_sets"]["ages"]["words"] == ["one", "two", "three", "four", "five"]
    assert [each["name"] for each in found["categories"]["categories"]] == ["cats", "trees"]
    with pytest.raises(StrataError, match="can't be read"):
        run(tmp_path / "a", "embeddings.categories=nowhere.json")


def test_a_model_with_positions_and_one_with_relative_biases(tmp_path):
    for family in ("gpt2", "t5"):
        folder = tmp_path / family
        tiny_model(family, vocab_size=N_VOCAB).save_pretrained(folder)
        chatml_tokenizer().save_pretrained(folder)
        values = values_of(run(tmp_path / "a", f"model.path={folder}", f"model.name={family}"))
        if family == "gpt2":
            assert values["positions"]["positions"] == 64
            assert values["tables"].keys() == {"input"}
        else:
            assert len(values["relative_biases"]) == 2
            assert values["positions"] is None


def test_a_finished_artifact_is_reused_and_another_seed_is_another_one(testbed, capsys):
    folder = testbed.path.parents[1]
    assert run(folder, "compat=notebook").path == testbed.path
    assert "reused" in capsys.readouterr().out
    assert run(folder, "compat=notebook", "seed=7").path != testbed.path
