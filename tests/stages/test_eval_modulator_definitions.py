"""eval_modulator.py of modulators that were trained to tell words from their definitions."""

import json
import random
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from transformers import T5Tokenizer

import eval_modulator
import train_modulator
from src.artifacts import Artifact, list_artifacts
from src.config.modulators.evaluate import EvaluateModulatorConfig
from src.config.modulators.train import TrainModulatorConfig
from src.errors import NotApplicableError
from src.stage.context import Stage
from src.stage.entry import compose, run_stage
from src.stage.modulators.lexicon import prepare_lexicon
from src.stage.modulators.texts import prepare_examples
from tests.fixtures.tiny_models import N_VOCAB, tiny_model

STAGES = {
    "train_modulator": (train_modulator.run, TrainModulatorConfig),
    "eval_modulator": (eval_modulator.run, EvaluateModulatorConfig),
}
LETTERS = "bdfgklmnprstvz"
WORDS = [f"{a}{vowel}{b}" for a in LETTERS for vowel in "aeiou" for b in LETTERS][: N_VOCAB - 8]
TRAINING = ("training.steps=2", "training.batch_size=4", "training.evaluate_every=2", "controls=[]")
SPLIT = ("split.train=0.3", "split.val=0.1", "split.test=0.6", "lexicon.held_out=0.6")
FEW = ("relations.carriers=['{word}']", "relations.permutations=19", "relations.control_draws=1")
FEW = (*FEW, "volumes.n_simplices=200", "volumes.null_draws=2", "volumes.k=2")


@pytest.fixture(scope="module")
def worded(tmp_path_factory) -> Path:
    """A tiny T5 and a tiny llama with a tokenizer of words, and a taxonomy that defines most of them."""
    folder = tmp_path_factory.mktemp("words")
    vocab = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -9.0), *((f"▁{word}", -3.0) for word in WORDS)]
    tokenizer = T5Tokenizer(vocab=vocab, extra_ids=0)
    for family in ("t5_with_head", "llama"):
        tiny_model(family).save_pretrained(folder / family)
        tokenizer.save_pretrained(folder / family)
    draws = random.Random(0)
    senses: dict[str, dict] = {word: {} for word in WORDS[:3]}
    for place, word in enumerate(WORDS[3:85], start=3):
        told = " ".join(draws.choices(WORDS, k=4))
        senses[word] = {"parents": [draws.choice(WORDS[: min(place, 12)])], "definition": told}
    (folder / "taxonomy.json").write_text(json.dumps({"name": "made", "senses": senses}))
    return folder


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch):
    monkeypatch.setattr("src.report.charts.draw_png", lambda spec: b"\x89PNG\r\n\x1a\n" + bytes(16))


def run(stage: str, worded: Path, family: str, artifacts: Path, *overrides: str) -> Artifact:
    words = [f"model.path={worded}/{family}", f"model.name={family}", f"artifacts_dir={artifacts}", "threads=1"]
    words += overrides
    function, schema = STAGES[stage]
    return run_stage(function, schema, stage, compose(stage, words), words)


def train(worded: Path, family: str, artifacts: Path, *overrides: str) -> TrainModulatorConfig:
    keys = (f"lexicon.taxonomy={worded}/taxonomy.json", "definition_template='{definition}'", "objective=definitions")
    keys = (*keys, "modulator.init=relational", "modulator.residual.width=4", *TRAINING, *overrides)
    run("train_modulator", worded, family, artifacts, *keys)
    (artifact,) = list_artifacts(artifacts, "modulator")
    return TrainModulatorConfig.model_validate(artifact.meta.config)


@pytest.mark.parametrize("family", ["t5_with_head", "llama"])
def test_words_whose_definitions_were_trained_on_are_not_evaluated(worded, tmp_path, family):
    """BUG G-7, of definitions: neither vectors nor training have been told of an evaluated word."""
    config = train(worded, family, tmp_path, *SPLIT)
    found = run("eval_modulator", worded, family, tmp_path, "measures=[predictions,relations,volumes]", *FEW)
    with Stage("eval_modulator", config, []) as stage:
        train_share, val, test = prepare_examples(config, stage, "definitions", family == "t5_with_head").shares

    def asked(examples) -> set[int]:
        return {int((it.input_ids if it.target_ids is None else it.target_ids)[it.predicted][0]) for it in examples}

    evaluated = {row["token_id"] for row in json.loads((found.path / "evaluated_words.json").read_text())}
    held_out = {
        word.token_ids[0] for word in prepare_lexicon(config.lexicon, config.model, config.seed).split.evaluated
    }
    told = held_out & asked([*train_share, *val])
    assert told
    assert evaluated == held_out - told
    assert evaluated & asked(test)
    text = json.loads((found.path / "report.json").read_text())["text"]
    assert f"{len(told)} held-out words were left out: it was trained on their definitions" in text
    assert f"On {len({it.group for it in test})} synsets" in text


def test_without_enough_untold_words_there_are_no_relations(worded, tmp_path):
    train(worded, "llama", tmp_path, "split.train=0.8", "split.val=0.1", "split.test=0.1", "lexicon.held_out=0.4")
    with pytest.raises(NotApplicableError, match=r"were not in the definitions that it was trained on"):
        run("eval_modulator", worded, "llama", tmp_path, "measures=[relations]", *FEW)


def test_the_loss_of_an_encoder_decoder_is_the_librarys(worded, tmp_path):
    """BUG G-8 and G-9: by transformers' own labels, word by word."""
    config = train(worded, "t5_with_head", tmp_path, *SPLIT)
    found = run("eval_modulator", worded, "t5_with_head", tmp_path, "measures=[predictions]")
    with Stage("eval_modulator", config, []) as stage:
        test = prepare_examples(config, stage, "definitions", True).shares[2]
    model = tiny_model("t5_with_head")
    total, n = 0.0, 0
    for example in test:
        assert example.target_ids is not None
        ids, labels = (torch.from_numpy(part).long()[None] for part in (example.input_ids, example.target_ids))
        with torch.no_grad():
            total += float(model(input_ids=ids, labels=labels).loss) * labels.numel()
        n += labels.numel()
    rows = {row["variant"]: row for row in pq.read_table(found.path / "predictions.parquet").to_pylist()}
    assert rows["frozen"]["nll"] == pytest.approx(total / n, rel=1e-5)
    assert rows["frozen"]["n_predicted"] == n
