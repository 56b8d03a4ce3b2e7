"""inspect_run.py as a user runs it."""

import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console
from transformers import GPT2Config, LlamaConfig, LlamaForCausalLM

import inspect_run
from src.artifacts import Plan, Provenance, list_artifacts, verify
from src.models.module_tree import module_tree
from src.report.scenarios.inspection import text_table
from src.report.terminal import print_table
from src.scenarios.scenario import Scenario
from src.scenarios.storage.filling import filling
from src.scenarios.storage.run_folder import read_captured, write_conversation, write_references
from tests.fixtures.scenario_runs import random_conversation, random_references

SCENARIO = Scenario.model_validate(
    {
        "name": "weather",
        "model": {"id": "tiny"},
        "prompt": [
            {"messages": [{"role": "system", "content": "be <b>kind</b>"}, {"role": "user", "content": "naïve"}]},
        ],
        "reference_states": [
            {"label": "sad", "examples": [{"messages": [{"role": "user", "content": text}]} for text in "ab"]},
            {"label": "plain", "neutral": True, "messages": [{"role": "user", "content": "c"}]},
        ],
    }
)
MODEL = {"name": "tiny", "n_layers": 3, "d_model": 6, "weights": "abc"}


def capture(root: Path, *, seal: bool = True) -> Path:
    plan = Plan(root, "scenario_run", "weather", {}, name="weather")
    with filling(
        plan, Provenance({}, 0, "cpu", {}, None, "2026-11-21T10:00:00+00:00"), ["references", "prompt_0"]
    ) as made:
        made.describe(SCENARIO, MODEL, {"d_vocab": 11, "eos_token_id": 99})
        with made.write_item("references") as draft:
            write_references(draft, random_references())
        if not seal:
            return plan.path
        with made.write_item("prompt_0") as draft:
            write_conversation(draft, random_conversation(full=True))
        made.finish(lambda draft: None)
    return plan.path


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def inspect(monkeypatch, capsys, *words: str) -> str:
    monkeypatch.setattr(sys, "argv", ["inspect_run.py", *words])
    inspect_run.main()
    return capsys.readouterr().out


def refused(monkeypatch, *words: str) -> str:
    with pytest.raises(SystemExit) as caught:
        inspect(monkeypatch, None, *words)
    return str(caught.value)


def test_a_run_is_summed_up(project, monkeypatch, capsys):
    capture(project / "artifacts")
    shown = inspect(monkeypatch, capsys, "weather", "--steps", "2")
    assert re.search(r"its shape +3 layers, 6 wide", shown)
    assert re.search(r"state +finished, 2 of 2 items are done", shown)
    # messages, tokens, replies, new tokens, states
    assert re.search(r"prompt_0 +2 +9 +2 +6 +23 ", shown)
    assert "Of each the layers 0..2: resid_pre, resid_post, " in shown
    assert re.search(r"sad +2 +6 +no +i am </script> sad", shown)
    assert re.search(r"prompt_0_msg2of2 +so so so +no", shown)
    assert re.search(r"1 +decode +10 +so +-0\.5 +0\.6065 +1\.25", shown)
    assert "The first 2 of 3 steps" in shown
    assert shown.count("Steps of") == 2
    assert "Steps of" not in inspect(monkeypatch, capsys, "artifacts/scenario_run/weather", "--steps", "0")


def test_a_run_that_is_not_finished_can_be_looked_into(project, monkeypatch, capsys):
    capture(project / "artifacts", seal=False)
    shown = inspect(monkeypatch, capsys, "weather")
    assert re.search(r"state +failed, 1 of 2 items are done", shown)
    assert re.search(r"prompt_0 +pending", shown)
    assert "i am </script> sad" in shown
    assert "no finished artifact" in refused(monkeypatch, "export", "weather", "out")


def test_a_run_is_exported_and_imported_again(project, monkeypatch, capsys):
    capture(project / "artifacts")
    assert "wrote out/weather_2026-11-21T10-00-00Z" in inspect(monkeypatch, capsys, "export", "weather", "out")
    shown = inspect(monkeypatch, capsys, "import", "out/weather_2026-11-21T10-00-00Z", "--name", "back")
    assert "wrote artifacts/scenario_run/back" in shown
    (back,) = (found for found in list_artifacts(project / "artifacts", "scenario_run") if found.path.name == "back")
    assert not verify(back.path)
    captured, original = read_captured(back), random_conversation(full=True)
    assert captured.conversations[0].messages[:2] == [
        type(message)(message.role, content, None)
        for message, content in zip(original.messages, ["be <b>kind</b>", original.messages[1].content], strict=False)
    ]
    assert captured.conversations[0].token_rows is not None
    assert original.token_rows is not None
    assert torch.equal(captured.conversations[0].token_rows.get("q"), original.token_rows.get("q"))
    assert captured.model["n_layers"] == 3
    assert "imported from Activation Lab" in (back.path / "report.json").read_text()
    again = inspect(monkeypatch, capsys, "import", "out/weather_2026-11-21T10-00-00Z", "--name", "back")
    assert again == shown
    assert "is there already" in refused(monkeypatch, "export", "weather", "out")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("nothing",), "run=nothing: neither a path nor one of the scenario_run"),
        (("import", "nowhere"), "nowhere: no such folder"),
        (("import", "."), "no run of Activation Lab"),
        (("layers", "./empty"), "holds no config.json"),
        (("layers", "testbed_chatt"), "did you mean testbed_chat of configs/model?"),
    ],
)
def test_what_is_not_there_is_told(project, monkeypatch, words, message):
    (project / "empty").mkdir()
    assert message in refused(monkeypatch, *words)


def test_text_of_a_model_is_neither_markup_nor_moves_the_cursor(capsys):
    run = next(random_conversation().runs())
    hostile = replace(run, generation=replace(run.generation, text="\x1b[2J[bold]so[/bold]\r"))
    print_table(text_table([hostile]), Console(force_terminal=True, width=100, color_system=None))
    shown = capsys.readouterr().out
    assert "\\x1b[2J[bold]so[/bold]\\r" in shown
    assert "\x1b[2J" not in shown


def test_a_damaged_run_is_told(project, monkeypatch):
    folder = capture(project / "artifacts")
    shutil.copy(folder / "references" / "states.safetensors", folder / "prompt_0" / "states.safetensors")
    assert "which is no state of this conversation" in refused(monkeypatch, "weather")


def tiny_llama() -> LlamaConfig:
    return LlamaConfig(
        hidden_size=16, intermediate_size=24, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2,
        vocab_size=50, tie_word_embeddings=False, architectures=["LlamaForCausalLM"],
    )  # fmt: skip


def test_the_modules_of_a_model_are_shown_without_its_weights(project, monkeypatch, capsys):
    tiny_llama().save_pretrained(project / "model")  # config.json alone
    shown = inspect(monkeypatch, capsys, "layers", "./model")
    expected = sum(weight.numel() for weight in LlamaForCausalLM(tiny_llama()).parameters())
    assert re.search(rf"parameters +{expected:,}", shown)
    assert re.search(r"blocks +model\.layers", shown)
    assert re.search(r"0\.\.2 +LlamaDecoderLayer +3 ", shown)
    assert re.search(r"attention +yes", shown)
    assert "the first" not in shown


def test_a_large_model_is_tried_out_with_its_first_layers(project, monkeypatch, capsys):
    GPT2Config(n_embd=16, n_head=2, n_layer=9, vocab_size=600, architectures=["GPT2LMHeadModel"]).save_pretrained(
        "model"
    )
    monkeypatch.setattr("src.models.outline._MOST_TRIAL_PARAMETERS", 35_000)
    shown = inspect(monkeypatch, capsys, "layers", "./model", "--depth", "3")
    assert re.search(r"layers +9", shown)
    assert re.search(r"mlp_gate +no +the MLP has no gate", shown)
    assert "the first 2 layers alone" in shown
    monkeypatch.setattr("src.models.outline._MOST_TRIAL_PARAMETERS", 10)
    assert "which sources it has was not tried out" in inspect(monkeypatch, capsys, "layers", "./model")


def test_a_tree_counts_every_parameter_once():
    model = torch.nn.Module()
    model.first = torch.nn.Linear(3, 4)
    model.blocks = torch.nn.ModuleList([torch.nn.Linear(4, 4) for _ in range(3)] + [torch.nn.Linear(4, 5)])
    model.tied = torch.nn.Linear(3, 4)
    model.tied.weight = model.first.weight
    found = {(branch.depth, branch.name): (branch.n_alike, branch.n_parameters) for branch in module_tree(model, 2)}
    assert found == {
        (0, "Module"): (1, 16 + 3 * 20 + 25 + 4),
        (1, "first"): (1, 16),
        (1, "blocks"): (1, 85),
        (2, "0..2"): (3, 60),
        (2, "3"): (1, 25),
        (1, "tied"): (1, 4),
    }
