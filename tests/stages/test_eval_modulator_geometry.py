"""eval_modulator.py measures=[relations,volumes], as a user runs it."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from transformers import AutoModelForCausalLM, T5Tokenizer

import eval_modulator
import train_modulator
from src.artifacts import Artifact, list_artifacts
from src.config.modulators.evaluate import EvaluateModulatorConfig
from src.config.modulators.train import TrainModulatorConfig
from src.config.schema import parse_config
from src.errors import StrataError
from src.geometry.lexicon.distances import path_distances
from src.modulators.evaluation.geometry.volumes import cloud_volumes
from src.modulators.saving import load_modulator
from src.stage.entry import compose, run_stage
from src.stage.modulators.lexicon import prepare_lexicon
from tests.fixtures.tiny_models import N_VOCAB, tiny_model

ROOT = Path(__file__).parents[2]
STAGES = {
    "train_modulator": (train_modulator.run, TrainModulatorConfig),
    "eval_modulator": (eval_modulator.run, EvaluateModulatorConfig),
}
TRAIN = ("training.steps=2", "training.evaluate_every=2", "num_sequences=150", "max_length=48", "controls=[]")
FEW = ("measures=[relations,volumes]", "relations.permutations=19", "relations.control_draws=2")
FEW = (*FEW, "volumes.n_simplices=300", "volumes.null_draws=2", "volumes.k=2", "seed=0")


def run(stage: str, artifacts: Path, *overrides: str) -> Artifact:
    words = [f"artifacts_dir={artifacts}", "threads=1", "model=testbed_small", *overrides]
    function, schema = STAGES[stage]
    return run_stage(function, schema, stage, compose(stage, words), words)


def records(artifact: Artifact, name: str) -> list[dict]:
    return json.loads((artifact.path / f"{name}.json").read_text())


@pytest.fixture(autouse=True, scope="module")
def no_pictures():
    patch = pytest.MonkeyPatch()
    patch.setattr("src.report.charts.draw_png", lambda spec: b"\x89PNG\r\n\x1a\n" + bytes(16))
    yield
    patch.undo()


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """A modulator that begins with the relations of words of a taxonomy of its own."""
    folder = tmp_path_factory.mktemp("project")
    shutil.copy(ROOT / "testbed" / "taxonomy.json", folder)
    taxonomy = f"lexicon.taxonomy={folder / 'taxonomy.json'}"
    run("train_modulator", folder / "artifacts", *TRAIN, "modulator.init=relational", taxonomy)
    return folder


@pytest.fixture(scope="module")
def evaluated(project) -> Artifact:
    return run("eval_modulator", project / "artifacts", *FEW)


def test_words_that_vectors_were_made_from_are_not_evaluated(project, evaluated):
    """BUG G-7: the tokens whose similarities built the table were the evaluation tokens."""
    words = ["model=testbed_small", f"lexicon.taxonomy={project / 'taxonomy.json'}"]
    values: Any = OmegaConf.to_container(compose("train_modulator", words), resolve=True)
    config = parse_config(TrainModulatorConfig, values)
    lexicon = prepare_lexicon(config.lexicon, config.model, config.seed)
    found = records(evaluated, "evaluated_words")
    senses = {sense for word in lexicon.split.anchors for sense in word.senses}
    assert len(found) == len(lexicon.split.evaluated) >= 20
    assert not {row["sense"] for row in found} & senses
    assert not {row["token_id"] for row in found} & {word.token_ids[0] for word in lexicon.split.anchors}

    # the frozen model's states, read by transformers alone, and all pairs listed
    model = AutoModelForCausalLM.from_pretrained(ROOT / "testbed" / "models" / "small", dtype=torch.float32)
    the = json.loads((ROOT / "testbed" / "models" / "small" / "tokenizer.json").read_text())["model"]["vocab"]["the"]
    ids = torch.tensor([[model.config.bos_token_id, the, row["token_id"]] for row in found])
    with torch.no_grad():
        states = model(ids, output_hidden_states=True).hidden_states[3][:, -1].double().numpy()
    states -= states.mean(0)
    states /= np.linalg.norm(states, axis=1, keepdims=True)
    first, second = np.triu_indices(len(states), 1)
    distances = path_distances(lexicon.taxonomy, [row["sense"] for row in found])[first, second].astype(float)
    expected = np.corrcoef((states @ states.T)[first, second], 1 / (1 + distances))[0, 1]
    rows = {(row["states"], row["layer"]): row for row in records(evaluated, "word_relations")}
    assert rows["frozen", 2]["path"] == pytest.approx(expected, abs=2e-3)
    assert rows["modulated", 2]["path"] != pytest.approx(expected, abs=1e-6)


def test_every_control_is_beside_the_modulator(evaluated):
    """G7: without controls of equal strength the shrink's share can't be told."""
    contrasts = {row["modulated_less"]: row for row in records(evaluated, "word_contrasts")}
    assert set(contrasts) == {"frozen", "zero", "random", "shuffled", "constant"}
    rows = [row for row in records(evaluated, "word_relations") if row["layer"] == 5]
    draws = {row["states"]: row["n_draws"] for row in rows}
    # what is not random needs no second draw
    assert draws == {"frozen": 1, "modulated": 1, "zero": 1, "constant": 1, "random": 2, "shuffled": 2}
    assert {row["states"] for row in records(evaluated, "state_volumes")} == {
        "modulated",
        "zero",
        "random",
        "shuffled",
        "constant",
    }
    assert len(records(evaluated, "state_volumes")) == 5
    text = report_text(evaluated)
    assert "held-out words' states correlate with path similarity" in text
    assert "These vectors themselves correlate" in text


def test_a_changed_taxonomy_is_refused_before_anything_is_measured(project, monkeypatch):
    started = []
    monkeypatch.setattr("src.stage.modulators.evaluating.evaluation.evaluate", lambda *_: started.append(1))
    path = project / "taxonomy.json"
    before = path.read_text()
    content = json.loads(before)
    content["senses"]["zeppelin"] = {"parents": ["vehicle"]}
    path.write_text(json.dumps(content))
    try:
        with pytest.raises(StrataError, match="nobody can tell which of them it has not seen"):
            run("eval_modulator", project / "artifacts", *FEW, "seed=1")
    finally:
        path.write_text(before)
    assert not started


def test_of_a_field_modulator_all_active_dimensions_are_measured_too(tmp_path, monkeypatch):
    """BUG H-8: the first 8 dimensions alone were; a model without taxonomy words still has its volumes measured."""
    artifacts = tmp_path / "artifacts"
    none = tmp_path / "none.json"
    none.write_text(json.dumps({"name": "none", "senses": {"qwzx": {}}}))
    drawn = ("modulator=field", "modulator.init=random", "modulator.field.null_place=random")
    run("train_modulator", artifacts, *TRAIN, *drawn, f"lexicon.taxonomy={none}")
    measured = []

    def measure(clouds, *args):
        measured.append(clouds)
        return cloud_volumes(clouds, *args)

    monkeypatch.setattr("src.stage.modulators.evaluating.geometry.cloud_volumes", measure)
    found = run("eval_modulator", artifacts, *FEW)
    everything, active = measured
    (modulator,) = list_artifacts(artifacts, "modulator")
    places = load_modulator(modulator.path).state_dict()["active"]
    assert len(places) == 48
    assert places.tolist() != list(range(48))
    assert {rows.shape[1] for rows in everything.values()} == {64}
    for name, rows in active.items():
        assert torch.equal(rows, everything[name][:, places])
    assert {row["space"] for row in records(found, "state_volumes")} == {"all", "active"}
    assert "There is no relations" in report_text(found)
    assert not (found.path / "word_relations.json").exists()
    # what an evaluation found with one taxonomy is not what it finds with another
    shutil.copy(ROOT / "testbed" / "taxonomy.json", none)
    again = run("eval_modulator", artifacts, *FEW, "measures=[relations]")
    assert (again.path / "word_relations.json").exists()
    none.unlink()
    with pytest.raises(StrataError, match="is not there"):
        run("eval_modulator", artifacts, *FEW, "measures=[relations]")


def test_words_whose_definitions_were_trained_on_are_left_out(tmp_path):
    """BUG G-7, and G-10: a word that was told from its definition in training is no held-out one."""
    letters = "bdfgklmnprst"
    words = [f"{a}{vowel}{b}" for a in letters for vowel in "aei" for b in letters][: N_VOCAB - 8]
    vocab = [
        ("<pad>", 0.0),
        ("</s>", 0.0),
        ("<unk>", 0.0),
        ("\u2581", -9.0),
        *((f"\u2581{word}", -3.0) for word in words),
    ]
    tiny_model("t5_with_head").save_pretrained(tmp_path / "t5")
    T5Tokenizer(vocab=vocab, extra_ids=0).save_pretrained(tmp_path / "t5")
    senses: dict[str, dict] = {word: {} for word in words[:4]}
    for place, word in enumerate(words[4:76]):
        senses[word] = {
            "parents": [words[place % 4]],
            "definition": f"{words[place % 4]} {words[-1 - place % 9]} {words[-1 - place // 9]}",
        }
    (tmp_path / "taxonomy.json").write_text(json.dumps({"name": "made", "senses": senses}))
    keys = (f"model.path={tmp_path / 't5'}", "model.name=tiny")
    lexicon = (f"lexicon.taxonomy={tmp_path / 'taxonomy.json'}", "lexicon.held_out=0.6")
    split = ("split.train=0.3", "split.val=0.2", "split.test=0.5", "training.batch_size=4")
    definitions = ("objective=definitions", "modulator.init=random", "modulator.residual.width=4")
    artifacts = tmp_path / "artifacts"
    run("train_modulator", artifacts, *TRAIN, *keys, *lexicon, *split, *definitions)
    found = run("eval_modulator", artifacts, *FEW, *keys)
    assert "held-out words were left out: it was trained on their definitions" in report_text(found)

    values: Any = OmegaConf.to_container(
        compose("train_modulator", [*keys, *lexicon, *split, *definitions]), resolve=True
    )
    config = parse_config(TrainModulatorConfig, values)
    held_out = {word.text for word in prepare_lexicon(config.lexicon, config.model, config.seed).split.evaluated}
    evaluated = {row["word"] for row in records(found, "evaluated_words")}
    # half of the defined words are in the test share, and the four kinds are not defined
    assert 8 <= len(evaluated) < len(held_out)
    assert evaluated < held_out
    assert {row["states"] for row in records(found, "word_relations")} >= {"frozen", "modulated", "shuffled"}


def report_text(artifact: Artifact) -> str:
    return json.loads((artifact.path / "report.json").read_text())["text"]
