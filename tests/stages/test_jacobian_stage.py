"""method=jacobian from text to evaluation, on a user's own tiny model."""

import json
import os

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

import eval as eval_stage
import train_transport_operators
from src.activations.sampling import sample_tokens
from src.activations.store import open_store
from src.config.stages import EvalConfig, SplitConfig, TransportConfig
from src.errors import StrataError
from src.models.token_graph import TokenGraph
from src.stage.entry import compose, run_stage
from src.stage.stores import split_store
from src.transport.operator import TransportOperator
from src.transport.pairs import LayerPair
from tests.fixtures.tiny_models import tiny_model
from tests.fixtures.tiny_project import make_project
from tests.transport.test_jacobian import each_jacobian

STAGES = {"train_transport_operators": (train_transport_operators.run, TransportConfig)}
STAGES |= {"eval": (eval_stage.run, EvalConfig)}
WORDS = ("experiment.L=0", "experiment.k=[1,2]", "cv_folds=3", "method=jacobian")
_PICTURE = b"\x89PNG\r\n\x1a\n" + bytes(16)
ALL = ("jacobian.tokens=100000", "jacobian.batch_size=13")


@pytest.fixture(scope="module", autouse=True)
def _no_pictures():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("src.report.charts.draw_png", lambda spec: _PICTURE)  # tested elsewhere
        yield


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    project = make_project(tmp_path_factory.mktemp("project"), n_documents=30)
    project.collect("storage_dtype=float32")
    return project


def run(project, stage, *overrides):
    dataset = ("dataset.dataset_name=text.jsonl", "dataset.dataset_split=null")
    words = ["model.path=model", "model.name=tiny", *dataset, "threads=1", *overrides]
    function, schema = STAGES[stage]
    before = os.getcwd()
    os.chdir(project.folder)
    try:
        artifact = run_stage(function, schema, stage, compose(stage, words), words)
        assert artifact is not None
        return project.folder / artifact.path
    finally:
        os.chdir(before)


@pytest.fixture(scope="module")
def seen():
    """The sequences that the model was differentiated at."""
    return []


@pytest.fixture(scope="module")
def operators(project, seen):
    states = TokenGraph.states

    def spy(graph, input_ids, attention_mask, at, points):
        seen.extend(tuple(ids[mask.bool()].tolist()) for ids, mask in zip(input_ids, attention_mask, strict=True))
        return states(graph, input_ids, attention_mask, at, points)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TokenGraph, "states", spy)
        return run(project, "train_transport_operators", *WORDS, *ALL)


def store_and_split(project):
    store = open_store(project.store())
    return store, split_store(store, SplitConfig(train=0.6, val=0.2, test=0.2), 3, seed=42)


def test_the_weight_is_the_mean_derivative_over_all_counted_val_tokens(project, operators):
    store, split = store_and_split(project)
    sample = sample_tokens(store, split.groups, [split.val], split.documents, 10**6, 0)
    expected = each_jacobian(tiny_model("llama"), sample, LayerPair(0, 2)).mean(0)
    operator = TransportOperator.load(operators / "L0_k2")
    torch.testing.assert_close(operator.weight, expected, atol=2e-5, rtol=1e-5)
    assert (operator.method, operator.alpha, operator.metadata["n_tokens"]) == ("jacobian", None, len(sample))
    assert 0 < operator.metadata["relative_standard_error"] < 1


def test_the_model_is_differentiated_at_val_documents_alone(project, operators, seen):
    store, split = store_and_split(project)
    sequences = [tuple(ids.tolist()) for part in store for ids in np.split(part.token_ids, part.sequence_start[1:-1])]
    assert len(set(sequences)) == len(sequences)
    groups = {split.groups[sequences.index(sequence)] for sequence in seen}
    assert groups == {split.val}


def test_eval_judges_it_beside_its_baselines(project, operators):
    evaluation = run(project, "eval", "method=jacobian", "bootstrap=100")
    rows = pq.read_table(evaluation / "residual.parquet").to_pylist()
    assert {(row["method"], row["k"]) for row in rows} == {("jacobian", 1), ("jacobian", 2)}
    report = json.loads((operators / "report.json").read_text())
    assert [table["title"] for table in report["tables"]] == ["Transport operators", "Mean Jacobians"]


def test_what_is_there_needs_no_model_again(project, operators, monkeypatch):
    monkeypatch.setattr("src.stage.models.load_model", lambda *_: pytest.fail("the model was loaded"))
    assert run(project, "train_transport_operators", *WORDS, *ALL[:1]) == operators


def test_half_precision_is_differentiated_in_single(project):
    folder = make_project(project.folder / "half", n_documents=20)
    folder.collect("model.dtype=bfloat16", "storage_dtype=bfloat16")
    made = run(folder, "train_transport_operators", *WORDS, *ALL, "model.dtype=bfloat16")
    store, split = store_and_split(folder)
    sample = sample_tokens(store, split.groups, [split.val], split.documents, 10**6, 0)
    expected = each_jacobian(tiny_model("llama").bfloat16().float(), sample, LayerPair(0, 1)).mean(0)
    torch.testing.assert_close(TransportOperator.load(made / "L0_k1").weight, expected, atol=2e-4, rtol=1e-4)


def test_other_weights_than_the_store_s_are_refused_before_anything_is_read(tmp_path):
    project = make_project(tmp_path, n_documents=20)
    project.collect("storage_dtype=float32")
    tiny_model("llama", seed=1).save_pretrained(project.folder / "model")
    with pytest.raises(StrataError, match="not collected with this model=tiny: they differ in weights"):
        run(project, "train_transport_operators", *WORDS)
    assert not (project.folder / "artifacts" / "moments").exists()


@pytest.mark.filterwarnings("ignore:.*key-value cache")
def test_a_window_that_is_shorter_than_the_text_is_told_of(tmp_path, capsys):
    project = make_project(tmp_path, n_documents=20)
    module = tiny_model("mistral", sliding_window=4)
    module.save_pretrained(project.folder / "model")
    project.collect("storage_dtype=float32")
    made = run(project, "train_transport_operators", *WORDS, *ALL)
    assert capsys.readouterr().err.count("warning: MistralForCausalLM can't go on from a key-value cache") == 1
    store, split = store_and_split(project)
    sample = sample_tokens(store, split.groups, [split.val], split.documents, 10**6, 0)
    expected = each_jacobian(module, sample, LayerPair(0, 1)).mean(0)
    torch.testing.assert_close(TransportOperator.load(made / "L0_k1").weight, expected, atol=2e-5, rtol=1e-4)
