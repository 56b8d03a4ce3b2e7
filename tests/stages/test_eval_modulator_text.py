"""eval_modulator.py on the testbed, as a user runs it: which text is scored, and what stands beside it."""

import json
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

import eval_modulator
import train_modulator
from src.artifacts import list_artifacts, verify
from src.config.modulators.evaluate import EvaluateModulatorConfig
from src.config.modulators.train import TrainModulatorConfig
from src.errors import NotApplicableError, StrataError
from src.modulators.evaluation.generations import generate
from src.modulators.saving import load_modulator
from src.report.artifact_report import read_report
from src.stage.entry import compose, run_stage

STAGES = {
    "train_modulator": (train_modulator.run, TrainModulatorConfig),
    "eval_modulator": (eval_modulator.run, EvaluateModulatorConfig),
}
TEXT = ("dataset.dataset_name={corpus}", "dataset.dataset_split=null", "max_length=40")
TRAINING = ("training.steps=3", "training.evaluate_every=3", "training.batch_size=8", "modulator.init=random")
PREDICTIONS = "measures=[predictions]"
SHORT = ("sweep.alphas=[0.1,0.29154]", "sweep.examples=6", "generation.num_prompts=2", "generation.max_new_tokens=4")


def run(stage: str, artifacts, *overrides: str):
    words = [f"artifacts_dir={artifacts}", "threads=1", *overrides]
    function, schema = STAGES[stage]
    return run_stage(function, schema, stage, compose(stage, words), words)


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A folder with a corpus of 120 documents, and a modulator and a control that were trained on it."""
    folder = tmp_path_factory.mktemp("project")
    with open("testbed/corpus/heldout.jsonl", encoding="utf-8") as lines:
        (folder / "corpus.jsonl").write_text("".join(next(lines) for _ in range(120)), encoding="utf-8")
    words = [word.format(corpus=folder / "corpus.jsonl") for word in TEXT]
    with pytest.MonkeyPatch.context() as patch:
        without_pictures(patch)
        run("train_modulator", folder / "artifacts", *words, *TRAINING, "controls=[shrink]", "modulator.alpha=0.2")
    return folder


@pytest.fixture(scope="module")
def evaluated(project):
    return run("eval_modulator", project / "artifacts", "measures=[predictions,sweep,generations]", *SHORT)


@pytest.fixture
def no_pictures(monkeypatch):
    without_pictures(monkeypatch)


def without_pictures(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("src.report.charts.draw_png", lambda spec: b"\x89PNG\r\n\x1a\n" + bytes(16))


def records(artifact, stem: str) -> list[dict]:
    return pq.read_table(artifact.path / f"{stem}.parquet").to_pylist()


def trained(project, name: str = "modulator"):
    found = list_artifacts(project / "artifacts", "modulator")
    return next(artifact for artifact in found if artifact.meta.identity["run"] == name)


def test_the_test_documents_of_the_training_are_scored(project, evaluated):
    """The same documents as train_modulator.py compares on, with the same result."""
    assert verify(evaluated.path) == []
    comparison = next(iter(list_artifacts(project / "artifacts", "modulator_comparison")))
    cells = read_report(comparison.path).tables[0]
    nll = {row["variant"]: row["nll"] for row in records(evaluated, "predictions")}
    told = {str(row[0]): row for row in cells.rows}
    column = list(cells.columns).index("NLL")
    for ours, theirs in (("frozen", "frozen"), ("modulated", "modulator")):
        cell = told[theirs][column]
        assert isinstance(cell, dict)
        assert "value" in cell
        assert nll[ours] == pytest.approx(cell["value"], rel=1e-5)


def test_controls_of_equal_strength_are_always_beside_it(evaluated):
    """Spec K: the zero-target control is always present in the report (spec G7)."""
    wanted = ["frozen", "modulated", "zero", "random", "shuffled", "constant"]
    assert [row["variant"] for row in records(evaluated, "predictions")] == wanted
    assert {row["variant"] for row in records(evaluated, "sweep")} == set(wanted)
    report = read_report(evaluated.path)
    assert "at equal strength" in report.text or "controls of equal strength" in report.text
    assert any("zero" in [row[0] for row in table.rows] for table in report.tables)
    assert {row["variant"] for row in records(evaluated, "generations")} >= {"frozen", "modulated", "zero"}


def test_the_trained_strengths_are_left_as_they_are(project, evaluated):
    """Spec G10: the published sweep sets the trained strengths back to 0.01."""
    modulator = load_modulator(trained(project).path)
    strengths = modulator.strengths()
    assert strengths is not None
    assert not np.allclose(strengths.detach(), 0.29154, atol=1e-3)
    assert verify(trained(project).path) == []
    assert {row["alpha"] for row in records(evaluated, "sweep")} == {0.1, 0.29154}
    # controls have the fixed strengths, not the trained ones
    kl = {row["alpha"]: row["kl"] for row in records(evaluated, "sweep") if row["variant"] == "zero"}
    assert kl[0.29154] > 2 * kl[0.1]


def test_text_that_it_was_trained_on_is_passed_over(project, no_pictures, capsys):
    same = run("eval_modulator", project / "artifacts", PREDICTIONS, f"dataset.dataset_name={project / 'corpus.jsonl'}")
    said = capsys.readouterr().out
    assert "96 documents" in said
    assert "was trained on them" in said
    own = run("eval_modulator", project / "artifacts", PREDICTIONS)
    one, other = (records(artifact, "predictions") for artifact in (same, own))
    assert [row["n_predicted"] for row in one] == [row["n_predicted"] for row in other]
    assert [row["nll"] for row in one] == pytest.approx([row["nll"] for row in other], rel=1e-6)


def test_text_of_training_alone_is_refused(project, tmp_path):
    import src.stage.modulators.texts as texts

    config = TrainModulatorConfig.model_validate(trained(project).meta.config)
    with open(project / "corpus.jsonl", encoding="utf-8") as lines:
        documents = [json.loads(line)["text"] for line in lines]
    seen = {example.input_ids.tobytes() for example in _train_examples(texts, config, project)}
    from src.models import load_tokenizer

    tokenizer = load_tokenizer(config.model)
    kept = [text for text in documents if _ids(tokenizer, text, config.max_length) in seen][:5]
    assert len(kept) == 5
    (tmp_path / "seen.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in kept), encoding="utf-8")
    with pytest.raises(StrataError, match=r"no sequence of .* is left .*: 5 are in the train or val .*=\.\.\.$"):
        run("eval_modulator", project / "artifacts", PREDICTIONS, f"dataset.dataset_name={tmp_path / 'seen.jsonl'}")


def _train_examples(texts, config, project):
    from src.stage.context import Stage

    with Stage("eval_modulator", config.model_copy(update={"artifacts_dir": str(project / "artifacts")}), []) as stage:
        return texts.prepare_examples(config, stage, "text", False).shares[0]


def _ids(tokenizer, text: str, longest: int) -> bytes:
    return np.array(tokenizer(text)["input_ids"][:longest], np.int32).tobytes()


def test_text_that_has_changed_since_is_refused(project, tmp_path):
    """Other text is split otherwise: what would be its test documents may have been trained on."""
    copied = tmp_path / "artifacts"
    shutil.copytree(project / "artifacts", copied)
    corpus = project / "corpus.jsonl"
    before = corpus.read_text(encoding="utf-8")
    try:
        corpus.write_text(before + json.dumps({"text": "monday is a day ."}) + "\n", encoding="utf-8")
        with pytest.raises(StrataError, match=r"the text that .* was trained on is not what it was"):
            run("eval_modulator", copied, PREDICTIONS)
    finally:
        corpus.write_text(before, encoding="utf-8")


def test_a_control_without_strengths_is_evaluated_too(project, no_pictures, capsys):
    name = f"trained_modulator={trained(project, 'shrink').path.name}"
    found = run("eval_modulator", project / "artifacts", name, "measures=[predictions,sweep]", "examples=8")
    assert [row["variant"] for row in records(found, "predictions")] == ["frozen", "modulated"]
    assert "no sweep" in capsys.readouterr().err
    assert "no strengths to fix" in read_report(found.path).text
    with pytest.raises(NotApplicableError, match=r"has no strengths to fix"):
        run("eval_modulator", project / "artifacts", name, "measures=[sweep]")


def test_another_model_is_refused(project):
    name = f"trained_modulator={trained(project).path.name}"
    with pytest.raises(StrataError, match=r"was trained with the model 'testbed', and model=testbed_small is another"):
        run("eval_modulator", project / "artifacts", name, "model=testbed_small")


def test_a_damaged_modulator_is_refused(project, tmp_path, capsys):
    copied = tmp_path / "artifacts"
    shutil.copytree(project / "artifacts", copied)
    weights = copied / "modulator" / trained(project).path.name / "modulator.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4])
    with pytest.raises(StrataError, match=r"is damaged \(modulator\.safetensors.*train it again"):
        run("eval_modulator", copied, PREDICTIONS)
    assert "made again" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["trained_modulator=none"], r"trained_modulator=none: neither a path nor one of the modulator"),
        (["model=testbed_small"], r"no modulator that fit .*train one with train_modulator.py"),
        (["dataset.dataset_split=train"], r"^dataset: dataset_split=train would be ignored: it needs dataset_name"),
        (["sweep.alphas=[1.5]"], r"^sweep\.alphas: 1\.5 is not allowed"),
        (["measures=[perplexity]"], r"^measures: 'perplexity' is not allowed; expected .*predictions"),
        (["generation.prompt_tokens=5000", "measures=[generations]"], r"generation\.prompt_tokens=5000: no test ex"),
    ],
)
def test_what_can_t_be_done_is_told(project, words, message):
    with pytest.raises(StrataError, match=message) as error:
        run("eval_modulator", project / "artifacts", *words)
    assert len(str(error.value).splitlines()) == 1


def test_a_second_run_reuses_the_first(project, evaluated, capsys):
    again = run("eval_modulator", project / "artifacts", "measures=[generations,sweep,predictions]", *SHORT)
    assert again.meta.fingerprint == evaluated.meta.fingerprint
    said = capsys.readouterr().out
    assert "reused" in said
    assert "control of equal strength" in said


def test_prompts_of_ones_own(project, no_pictures):
    words = ('generation.prompts=["on monday","of february"]', "generation.max_new_tokens=3")
    found = run("eval_modulator", project / "artifacts", "measures=[generations]", *words)
    rows = records(found, "generations")
    assert {row["prompt_text"] for row in rows} == {"on monday", "of february"}
    assert all(row["n_tokens"] <= 3 for row in rows)
    frozen = [row for row in rows if row["variant"] == "frozen"]
    assert all(row["identical"] and row["edits"] == 0 for row in frozen)
    assert torch.tensor([row["original_nll"] for row in rows]).isfinite().all()


def test_all_variants_of_a_prompt_are_sampled_with_one_seed(project, no_pictures, monkeypatch):
    """Spec G10: two sampled texts of other random numbers differ whatever a modulator does."""
    drawn: dict[tuple[bytes, bool], list[int]] = {}

    def spy(model, modulator, prompt, max_new_tokens, sampling, seed):
        drawn.setdefault((prompt.tobytes(), sampling is None), []).append(seed)
        return generate(model, modulator, prompt, max_new_tokens, sampling, seed)

    monkeypatch.setattr("src.stage.modulators.evaluating.generations.generate", spy)
    words = ('generation.prompts=["on monday","of february"]', "generation.max_new_tokens=2")
    run("eval_modulator", project / "artifacts", "measures=[generations]", *words)
    sampled = [seeds for (_, is_greedy), seeds in drawn.items() if not is_greedy]
    assert len(sampled) == 2
    for frozen, modulated, zero, again in sampled:
        assert frozen == modulated == zero != again
    assert not set(sampled[0]) & set(sampled[1])
