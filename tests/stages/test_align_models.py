"""align_models.py as a user runs it: tables of one and of two tokenizers, states of stores, layers, refusals."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedModel, PreTrainedTokenizerFast

import align_models
from src.artifacts import Artifact, verify
from src.config.geometry.alignment import AlignmentConfig
from src.errors import StrataError
from src.report.artifact_report import read_report
from src.stage.entry import compose, run_stage
from tests.fixtures.tiny_models import N_VOCAB, tiny_model
from tests.fixtures.tiny_project import SPECIALS, make_project

DAYS = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"]
OTHERS = [f"w{index}" for index in range(N_VOCAB - len(SPECIALS) - 17)]
WORDS = [*(str(digit) for digit in range(10)), *DAYS, *OTHERS]
QUICK = ("shuffles=19", "bootstrap=50", "curve_points=2", "permutations=199", "n_simplices=200", "threads=1")


def words_tokenizer(words: list[str]) -> PreTrainedTokenizerFast:
    backend = Tokenizer(models.WordLevel({word: i for i, word in enumerate(SPECIALS + words)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    names = {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(tokenizer_object=backend, **names)


def save(folder: Path, name: str, module: PreTrainedModel, words: list[str]) -> None:
    module.save_pretrained(folder / name)
    words_tokenizer(words).save_pretrained(folder / name)


def no_drawing(_: object) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + bytes(24)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A tiny model; one that has its embeddings turned, in another vocabulary's order; one unrelated and narrower."""
    folder = tmp_path_factory.mktemp("aligned")
    project = make_project(folder, n_documents=60, longest=20)
    base, turned = tiny_model("llama"), tiny_model("llama", seed=1)
    turn = torch.linalg.qr(torch.randn(16, 16, generator=torch.Generator().manual_seed(5)))[0]
    order = np.random.default_rng(0).permutation(len(WORDS))
    rows = torch.cat([torch.arange(4), 4 + torch.from_numpy(order)])
    noise = 0.02 * torch.randn(N_VOCAB, 16, generator=torch.Generator().manual_seed(6))
    with torch.no_grad():
        table = base.get_input_embeddings().weight
        # a row that is nobody's, as large as all others together
        table[4 + 50] = 0
        turned.get_input_embeddings().weight.copy_((2 * table @ turn + noise)[rows])
    save(folder, "base", base, WORDS)
    save(folder, "turned", turned, [WORDS[place].upper() if place == 60 else WORDS[place] for place in order])
    narrow = tiny_model("llama", seed=3, hidden_size=8, head_dim=4, num_attention_heads=2, num_key_value_heads=1)
    save(folder, "narrow", narrow, WORDS)
    save(folder, "bert", tiny_model("bert"), WORDS)
    project.collect()
    return folder


@pytest.fixture
def project(folder, monkeypatch) -> Path:
    monkeypatch.chdir(folder)
    monkeypatch.setattr("src.report.charts.draw_png", no_drawing)
    return folder


def run(*overrides: str) -> Artifact:
    words = [*QUICK, *overrides]
    return run_stage(align_models.run, AlignmentConfig, "align_models", compose("align_models", words), words)


@pytest.fixture(scope="module")
def turned(folder) -> Artifact:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr("src.report.charts.draw_png", no_drawing)
        made = run("model.path=base", "target.path=turned", "name=turned")
    return Artifact(folder / made.path, made.meta)


def found_in(artifact: Artifact) -> dict:
    return json.loads((artifact.path / "alignment.json").read_text())


def test_vocabularies_are_paired_by_text_and_the_planted_rotation_is_found(turned):
    assert verify(turned.path) == []
    found = found_in(turned)
    pairing = found["pairing"]
    # 93 words less the row of zeros; w60 or so is written in capitals over there
    assert (pairing["pairing"], pairing["pairs"], pairing["lower_case"]) == ("text", 92, 1)
    assert pairing["source"]["special"] == 4
    assert pairing["source"]["untrained"] == 1
    scaled = found["maps"]["scaled"]
    assert scaled["held_out"]["explained"]["value"] > 0.97
    assert scaled["settings"]["scale"] == pytest.approx(2, rel=0.05)
    assert scaled["q"]["cosine"] == pytest.approx(0.05)
    assert found["counts"]["ordered"] == 17
    for each in found["ordered_sets"]:
        assert (each["at_home"], each["at_home_q"] < 0.05) == (len(each["tokens"]), True)
    assert {(each["name"], each["kept_out"]) for each in found["ordered_sets"]} == {
        (name, way) for name in ("digits", "weekdays") for way in ("all", "each alone")
    }


def test_the_saved_map_maps_one_table_onto_the_other(turned, folder):
    maps = load_file(turned.path / "maps.safetensors")
    tokens = pq.read_table(turned.path / "tokens.parquet").to_pylist()
    tables = [
        load_file(folder / name / "model.safetensors")["model.embed_tokens.weight"] for name in ("base", "turned")
    ]
    ids = [[token[key] for token in tokens] for key in ("source_id", "target_id")]
    predicted = (tables[0][ids[0]] - maps["source_centre"]) @ maps["ridge.weight"]
    true = tables[1][ids[1]] - maps["target_centre"]
    cosine = torch.cosine_similarity(predicted, true)
    torch.testing.assert_close(cosine, torch.tensor([token["cosine_ridge"] for token in tokens]), atol=1e-4, rtol=0)


def test_the_report_says_it_and_a_second_run_reuses_it(turned, project, capsys):
    report = read_report(turned.path)
    assert report.text.startswith("base goes over to turned: ")
    titles = [table.title for table in report.tables]
    assert titles[:3] == ["Held-out scores", "Agreement without a map", "Ordered sets"]
    assert "Best tokens" in titles
    assert len(report.figures) == 1
    run("model.path=base", "target.path=turned", "name=turned")
    assert "reused" in capsys.readouterr().out


def test_an_unrelated_model_is_not_aligned(project):
    made = run("model.path=base", "target.path=narrow", "method=ridge", "curve_points=0")
    found = found_in(made)
    assert found["pairing"]["pairing"] == "id"
    assert list(found["maps"]) == ["ridge", "components", "mean"]
    assert found["maps"]["ridge"]["q"]["explained"] > 0.05
    assert read_report(made.path).text.startswith("base does not go over to narrow: ")


def test_a_wider_target_is_reached_by_padding_and_it_is_said(project):
    made = run("model.path=narrow", "target.path=base", "method=scaled", "space=unembedding", "curve_points=0")
    found = found_in(made)
    assert found["widths"] == [8, 16]
    assert 0.5 < found["ceiling"] < 1
    assert "The target is wider (16 against 8 dimensions)" in read_report(made.path).text


def test_with_few_anchors_ridge_goes_on_without_rotations(project, capsys):
    few = ("model.path=base", "target.path=turned", "split={train: 0.19, val: 0.2, test: 0.61}", "curve_points=0")
    made = run(*few)
    assert list(found_in(made)["maps"]) == ["ridge", "cca", "identity", "components", "mean"]
    assert "orthogonal and scaled are left out: 15 anchors do not determine a rotation" in capsys.readouterr().err
    with pytest.raises(StrataError, match=r"15 anchors do not determine a rotation in 16 dimensions"):
        run(*few, "method=orthogonal")


def test_the_notebooks_numbers_stand_beside_ours(project):
    made = run("model.path=base", "target.path=narrow", "compat=notebook", "curve_points=0", "method=orthogonal")
    numbers = json.loads((made.path / "alignment_notebook.json").read_text())["numbers"]
    assert numbers["rows"] == 97  # special rows with them
    table = next(table for table in read_report(made.path).tables if table.title == "As the notebook computes it")
    assert {row[0] for row in table.rows} >= {"scale factor", "relational r", "digits r", "volume r"}
    with pytest.raises(StrataError, match=r"compat=notebook pairs rows by id, which needs one tokenizer"):
        run("model.path=base", "target.path=turned", "compat=notebook")


def test_layers_of_one_store_are_aligned_on_documents_of_their_own(project):
    own = ("model.path=model", "model.name=tiny", "target.path=model", "target.name=tiny")
    own += ("dataset.dataset_name=text.jsonl", "dataset.dataset_split=null", "space=activations", "curve_points=0")
    made = run(*own, "layer=1", "target_layer=2", "rows=400", "method=ridge")
    found = found_in(made)
    assert (found["source"], found["target"]) == ("tiny resid_post.1", "tiny resid_post.2")
    assert found["pairing"]["pairs"] == 400
    assert found["interval_units"]["what"] == "documents"
    # the residual stream goes on
    assert found["maps"]["identity"]["held_out"]["cosine"]["value"] > 0.2
    assert found["maps"]["ridge"]["q"]["explained"] <= 0.05
    assert [parent.kind for parent in made.meta.parents] == ["activations"]
    with pytest.raises(StrataError, match=r"source and target are both resid_post\.1"):
        run(*own, "layer=1")
    with pytest.raises(StrataError, match=r"has no resid_post\.7"):
        run(*own, "layer=7")
    with pytest.raises(StrataError, match=r"compat=notebook is of embeddings alone"):
        run(*own, "layer=1", "target_layer=2", "compat=notebook")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model.path=base", "target.path=base"], r"^model=base and target=base have the same embeddings"),
        (["model.path=base", "target.path=bert", "space=unembedding"], r"^bert predicts no tokens"),
        (["target.name=x"], r"^target\.name=x would be ignored: .* use target=hub target\.name=x"),
        (["space=activations"], r"no activations that fit .* activations=\.\.\."),
        (["space=activations", "activations=store"], r"no activations that fit .* target_activations=\.\.\."),
    ],
)
def test_what_means_nothing_is_refused(project, overrides, message):
    with pytest.raises(StrataError, match=message):
        run(*overrides)
