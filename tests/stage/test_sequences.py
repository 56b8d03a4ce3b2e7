"""What tells one table of sequences from another."""

import os
from types import SimpleNamespace
from typing import Any

import pytest
from omegaconf import OmegaConf

from src.config.schema import parse_config
from src.config.stages import CollectConfig
from src.stage import sequences
from src.stage.entry import compose
from tests.fixtures.tiny_project import TinyProject, make_project, tiny_tokenizer


@pytest.fixture
def project(tmp_path, monkeypatch) -> TinyProject:
    monkeypatch.chdir(tmp_path)
    return make_project(tmp_path, n_documents=3)


def identity(project: TinyProject, *overrides: str) -> dict[str, Any]:
    words = [*project.overrides, *overrides]
    values = OmegaConf.to_container(compose("collect_activations", words), resolve=True)
    stage: Any = SimpleNamespace(plan=lambda _kind, _label, values: values, reuse=lambda values: values)
    found: Any = sequences.prepare_sequences(parse_config(CollectConfig, values), stage)
    return found


def test_what_changes_no_sequence_does_not_count(project):
    assert identity(project) == identity(project, "seed=7", "hooks=[mlp_out]", "model.dtype=bfloat16", "batch_size=1")


def test_special_tokens_count(project):
    before = identity(project)
    tokenizer = tiny_tokenizer()
    tokenizer.bos_token = "<eos>"  # the same ids, but their BOS would be counted in statistics
    tokenizer.save_pretrained(project.folder / "model")
    after = identity(project)
    assert {key for key in before if before[key] != after[key]} == {"tokenizer"}


def test_local_text_counts_by_its_contents(project):
    before = identity(project)
    os.utime(project.folder / "text.jsonl", (0, 0))
    assert identity(project) == before
    with (project.folder / "text.jsonl").open("a") as file:
        file.write('{"text": "w7"}\n')
    assert identity(project)["text_digest"] != before["text_digest"]


def test_a_hub_dataset_counts_by_its_commit(project, monkeypatch):
    commits = iter(("1" * 40, "2" * 40))
    monkeypatch.setattr(
        sequences, "pin_revision", lambda dataset: dataset.model_copy(update={"dataset_revision": next(commits)})
    )
    one, other = (identity(project, "dataset.dataset_name=some/corpus") for _ in range(2))
    assert (one["dataset"]["dataset_revision"], one["text_digest"]) == ("1" * 40, None)
    assert one != other
