"""capture_scenario.py as a user runs it: what it captures, reuses, goes on with and refuses; folders; kills."""

import errno
import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from types import SimpleNamespace

import pytest

import capture_scenario
from src.artifacts import Artifact, list_artifacts, verify
from src.config.capture_scenario import CaptureScenarioConfig
from src.errors import StrataError
from src.report import charts
from src.report.artifact_report import read_report
from src.scenarios.states import Conversation
from src.scenarios.storage.run_folder import read_captured
from src.scenarios.storage.status import read_status
from src.stage import Stage
from src.stage.entry import check_overrides, compose, run_stage
from src.stage.scenarios import items, loaded_model
from tests.fixtures.scenario_project import AWKWARD, save_chat_model, write_scenario_file
from tests.fixtures.tiny_models import tiny_model
from tests.fixtures.tiny_project import ROOT, start_forked


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("scenarios")
    save_chat_model(folder / "model")
    write_scenario_file(folder / "small.yaml")
    return folder


@pytest.fixture
def project(made, tmp_path, monkeypatch) -> Path:
    """A folder of its own for each test, that holds the same model."""
    (tmp_path / "model").symlink_to(made / "model")
    shutil.copy(made / "small.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    # drawing takes longer than all else; test_capture_report.py draws
    monkeypatch.setattr("src.report.charts.draw_png", no_drawing)
    return tmp_path


def no_drawing(_: object) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + bytes(24)


def run(*overrides: str) -> Artifact | None:
    words = ["threads=1", *overrides]
    check_overrides(words, CaptureScenarioConfig)
    config = compose("capture_scenario", words)
    return run_stage(capture_scenario.run, CaptureScenarioConfig, "capture_scenario", config, words)


def capture(*overrides: str) -> Artifact:
    artifact = run(*overrides)
    assert artifact is not None
    return artifact


def item_files(folder: Path) -> dict[str, bytes]:
    """All files of a captured scenario but those that tell times and machines."""
    told = {"meta.json", "item.json", "plan.json"}
    files = [path for path in folder.rglob("*") if path.is_file() and path.name not in told]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_what_is_captured_is_read_back_and_whole(project, capsys):
    artifact = capture("scenario=small.yaml")
    assert verify(artifact.path) == []
    captured = read_captured(artifact)
    assert [conversation.name for conversation in captured.conversations] == ["prompt_0", "short"]
    assert captured.references is not None
    assert captured.references.labels == ["glad"]
    first = captured.conversations[0]
    assert [message.role for message in first.messages] == ["system", "user", "assistant", "user", "assistant"]
    assert len(first.generations[0].token_ids) == 4
    assert captured.scenario.model.id == "./model"
    assert captured.model["n_layers"] == 3
    assert artifact.path.name.startswith("small-model-")
    told = capsys.readouterr().out
    assert "Runs of small" in told
    assert f"wrote {artifact.path}" in told
    assert "compare_runs.py" in told


def test_the_report_tells_runs_replies_and_references(project):
    report = read_report(capture("scenario=small.yaml").path)
    titles = [table.title for table in report.tables]
    assert titles == ["Runs of small", "Reference states", "Transcript of prompt_0", "Transcript of short"]
    assert [figure.title for figure in report.figures] == [
        "How sure the model is of each token",
        "Norm of the residual stream: prompt_0",
        "Norm of the residual stream: short",
    ]


def test_the_same_command_reuses_and_overwrite_remakes(project, capsys):
    first = capture("scenario=small.yaml")
    before = item_files(first.path)
    stamp = (first.path / "prompt_0" / "item.json").stat().st_mtime_ns
    capsys.readouterr()
    again = capture("scenario=small.yaml")
    assert again == first
    told = capsys.readouterr().out
    assert "is already there and fits: reused" in told
    assert "Runs of small" in told
    remade = capture("scenario=small.yaml", "overwrite=true")
    assert remade.path == first.path
    assert (first.path / "prompt_0" / "item.json").stat().st_mtime_ns > stamp
    assert item_files(first.path) == before


def test_what_changes_numbers_makes_another_artifact(project):
    paths = {capture("scenario=small.yaml", *words).path.name for words in ([], ["seed=3"], ["device=cpu"])}
    assert len(paths) == 1
    for words in (["generation.max_new_tokens=2"], ["capture.layers=[0,2]"], ["model.dtype=bfloat16"]):
        paths.add(capture("scenario=small.yaml", *words).path.name)
    assert len(paths) == 4


def test_overrides_reach_the_model(project):
    captured = read_captured(capture("scenario=small.yaml", "generation.max_new_tokens=2", "capture.layers=[0,2]"))
    rows = captured.conversations[0].generations[0].rows
    assert rows.layers == (0, 2)
    assert rows.get("resid_post").shape == (2, 2, 16)
    assert captured.scenario.generation.max_new_tokens == 2


def test_one_failing_file_of_a_folder_stops_none_of_the_others(project, capsys, monkeypatch):
    loads = []
    load = loaded_model.load_model

    def counting(*arguments):
        loads.append(arguments)
        return load(*arguments)

    monkeypatch.setattr("src.stage.scenarios.loaded_model.load_model", counting)
    write_scenario_file(project / "all" / "a.yaml", name="first")
    (project / "all" / "b.yaml").write_text("name: [")
    write_scenario_file(project / "all" / "c.yml", name="third", generation={"max_new_tokens": 3, "speed": 2})
    write_scenario_file(project / "all" / "d.yaml", name="fourth")
    with pytest.raises(StrataError, match=r"2 of 4 scenarios failed \(b.yaml, c.yml\): their messages stand above"):
        run("scenario=all/")
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("all/")]
    assert errors[0].startswith("all/b.yaml is no YAML: ")
    assert "needs quotes" in errors[0]
    assert errors[1].startswith("all/c.yml: generation.speed: unknown key; did you mean")
    made = sorted(
        artifact.path.name.split("-")[0] for artifact in list_artifacts(project / "artifacts", "scenario_run")
    )
    assert made == ["first", "fourth"]
    assert len(loads) == 1


def test_a_name_is_for_one_scenario(project):
    for name in ("a", "b"):
        write_scenario_file(project / "all" / f"{name}.yaml", name=name)
    with pytest.raises(StrataError, match="name=mine names one artifact, and all holds 2 scenarios"):
        run("scenario=all", "name=mine")


ONE = [{"role": "user", "content": "w4"}]
WRONG = {
    "unknown key": (
        {"generation": {"max_tokens": 3}},
        r"generation\.max_tokens: unknown key; did you mean generation\.max_new_tokens",
    ),
    "wrong type": (
        {"generation": {"max_new_tokens": "many"}},
        r"generation\.max_new_tokens: 'many' is not allowed; expected int >= 1",
    ),
    "out of range": ({"generation": {"top_p": 7}}, r"generation\.top_p: 7 is not allowed"),
    "dtype": (
        {"model": {"id": "./model", "dtype": "float8"}},
        r"model\.dtype: 'float8' is not allowed; expected float32 \| bfloat16",
    ),
    "labels": (
        {"reference_states": [{"label": "a", "messages": ONE}] * 2},
        r"reference_states: label a is there twice",
    ),
    "layers": (
        {"capture": {"layers": [1, 3]}},
        r"capture\.layers: model has no layer 3; choose from its layers 0 to 2",
    ),
    "names": ({"prompt": [{"name": "references", "messages": ONE}]}, r"references is"),
    "model": ({"model": {"id": "./nothing"}}, r"model\.path=\./nothing: no such folder"),
    "roles": (
        {"prompt": [{"messages": [{"role": "tool", "content": "w4"}]}]},
        r"prompt_0: the chat template of the model does not take this conversation \(no tools here\)",
    ),
    "length": (
        {"prompt": [{"messages": [{"role": "user", "content": "w4 " * 50}]}], "generation": {"max_new_tokens": 20}},
        r"prompt_0 has 54 tokens, and up to 20 are generated, but model was made for 64: generation\.max_new_tokens=11",
    ),
}


@pytest.mark.parametrize("problem", WRONG)
def test_a_wrong_scenario_is_told_before_weights_are_loaded(project, monkeypatch, problem):
    changes, message = WRONG[problem]
    monkeypatch.setattr("src.stage.scenarios.loaded_model.load_model", unexpected)
    write_scenario_file(project / "wrong.yaml", **changes)
    for mode in ("capture", "validate", "estimate"):
        with pytest.raises(StrataError, match=message):
            run("scenario=wrong.yaml", f"mode={mode}")
    assert not list(project.glob("artifacts/*/*"))


def unexpected(*_: object) -> None:
    raise AssertionError("weights were loaded")


def test_validate_tells_what_the_template_makes_of_a_scenario(project, monkeypatch, capsys):
    monkeypatch.setattr("src.stage.scenarios.loaded_model.load_model", unexpected)
    assert run("scenario=small.yaml", "mode=validate") is None
    told = capsys.readouterr()
    assert (
        "small.yaml is in order: model can read it (all layers, preset message_ends, computed in float32)" in told.out
    )
    assert "Reference states of small" in told.out
    assert "warning" not in told.err
    save_chat_model(project / "awkward", template=AWKWARD)
    run("scenario=small.yaml", "mode=validate", "model.path=awkward")
    warned = capsys.readouterr().err
    assert "prompt_0: snapshots left out: the template refuses messages 0..0 alone (there is no user)" in warned
    assert "prompt_0: not prefix-stable: the template writes what leads up to message 2 (assistant) otherwise" in warned
    assert not (project / "artifacts" / "scenario_run").exists()


def test_sampling_keys_without_sampling_are_told(project, capsys):
    run("scenario=small.yaml", "mode=validate", "generation.temperature=0.7", "generation.top_p=0.9")
    warned = " ".join(capsys.readouterr().err.split())
    assert "generation.temperature, generation.top_p: without effect, since the model answers greedily" in warned
    run("scenario=small.yaml", "mode=validate", "generation.temperature=0.7", "generation.do_sample=true")
    assert "without effect" not in capsys.readouterr().err


def test_estimate_tells_tokens_and_bytes_without_weights(project, monkeypatch, capsys):
    monkeypatch.setattr("src.stage.scenarios.loaded_model.load_model", unexpected)
    assert run("scenario=small.yaml", "mode=estimate") is None
    told = capsys.readouterr().out
    assert "Estimate of small" in told
    assert "tokens through model; one pass for each state would read" in told
    with pytest.raises(
        StrataError, match=r"needs about .* MB on the disk, and max_gb=1e-05: keep less \(capture"
    ) as error:
        run("scenario=small.yaml", "mode=estimate", "max_gb=1e-5")
    assert "capture.preset=last_token" in str(error.value)
    with pytest.raises(StrataError, match=r"or allow it with max_gb=[0-9]"):
        run("scenario=small.yaml", "max_gb=1e-5")
    assert not (project / "artifacts" / "scenario_run").exists()


def test_a_disk_without_room_is_told_before_the_model_runs(project, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=10**6))
    monkeypatch.setattr(items, "capture_conversation", unexpected)
    with pytest.raises(
        StrataError, match=r"small-model-\w+ needs about .* more, and its disk has 1 MB free: keep less"
    ):
        run("scenario=small.yaml")
    assert not (project / "artifacts" / "scenario_run").exists()


def test_what_a_template_refuses_is_left_out_and_told(project, capsys):
    save_chat_model(project / "awkward", template=AWKWARD)
    artifact = capture("scenario=small.yaml", "model.path=awkward")
    line = "prompt_0: snapshots left out: the template refuses messages 0..0 alone (there is no user)"
    assert line in capsys.readouterr().err
    assert line in read_report(artifact.path).text
    first, second = read_captured(artifact).conversations
    assert {shot.message for shot in first.snapshots} == {1, 2, 3, 4}
    assert len(second.snapshots) == 4


def test_orders_of_a_conversation_are_items_of_their_own(project):
    messages = [
        {"role": role, "content": f"w{number} w9"}
        for number, role in zip(range(10, 17), ["user", "assistant"] * 3 + ["user"], strict=True)
    ]
    write_scenario_file(
        project / "turned.yaml", name="turned", prompt={"name": "talk", "messages": messages, "orders": 2}
    )
    artifact = capture("scenario=turned.yaml")
    conversations = read_captured(artifact).conversations
    assert [len(conversation.generations) for conversation in conversations] == [1, 0, 0]
    assert conversations[1].order != conversations[2].order
    assert len(read_report(artifact.path).tables[0].rows) == 1
    assert capture("scenario=turned.yaml", "seed=1").path != artifact.path


def test_progress_counts_every_token_once(project, monkeypatch):
    counts: list[int] = []
    skipped: list[int] = []

    class Counter:
        def __call__(self, count: int) -> None:
            counts.append(count)

        def skip(self, count: int) -> None:
            skipped.append(count)

    totals: list[int] = []

    @contextmanager
    def progress(_stage: Stage, _description: str, total: int, _unit: str) -> Iterator[Counter]:
        totals.append(total)
        yield Counter()

    monkeypatch.setattr(Stage, "progress", progress)
    captured = read_captured(capture("scenario=small.yaml", "generation.max_new_tokens=40"))
    conversations = captured.conversations
    read = sum(len(conversation.token_ids) for conversation in conversations)
    made = sum(len(run.generation.token_ids) for conversation in conversations for run in conversation.runs())
    assert captured.references is not None
    referred = sum(text.n_tokens for text in captured.references.texts)
    assert sum(counts) == read + made + referred
    assert totals == [sum(counts) + sum(skipped)]


def test_a_sweep_tells_its_failures_and_ends_with_an_error(project):
    write_scenario_file(project / "broken.yaml", name="b d")
    command = [sys.executable, str(ROOT / "capture_scenario.py"), "-m", "scenario=small.yaml,broken.yaml", "threads=1"]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 1
    assert "broken.yaml: name: 'b d' is not allowed: use a word without spaces" in done.stderr
    assert "Traceback" not in done.stderr
    assert "Runs of small" in done.stdout


def test_models_that_cannot_talk_are_refused(project, monkeypatch):
    monkeypatch.setattr("src.stage.scenarios.loaded_model.load_model", unexpected)
    save_chat_model(project / "bert", tiny_model("bert"))
    with pytest.raises(StrataError, match=r"model\.path=bert is no causal language model \(BertModel\)"):
        run("scenario=small.yaml", "model.path=bert")
    save_chat_model(project / "base", template=None)
    with pytest.raises(StrataError, match="the tokenizer of base has no chat template"):
        run("scenario=small.yaml", "model.path=base")
    tiny_model("llama").save_pretrained(project / "mute")
    with pytest.raises(StrataError, match=r"model\.path=mute: .*mute holds no tokenizer"):
        run("scenario=small.yaml", "model.path=mute")
    with pytest.raises(StrataError, match="device=cuda:7 is not available here"):
        run("scenario=small.yaml", "device=cuda:7")


def test_a_disk_that_fills_up_is_named_and_finished_items_are_kept(project, monkeypatch):
    undisturbed = item_files(capture("scenario=small.yaml", "artifacts_dir=other").path)
    written = []

    def fills_up(folder: Path, conversation: Conversation) -> None:
        written.append(folder)
        if len(written) == 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(folder, conversation)

    write = items.write_conversation
    monkeypatch.setattr(items, "write_conversation", fills_up)
    with pytest.raises(StrataError, match=r"the disk that holds artifacts/.* is full: free space there"):
        run("scenario=small.yaml")
    (folder,) = (project / "artifacts" / "scenario_run").glob("[!.]*")
    status = json.loads((folder / "status.json").read_text())
    assert status["items"] == {"references": "done", "prompt_0": "done", "short": "failed"}
    monkeypatch.undo()
    monkeypatch.chdir(project)
    monkeypatch.setattr("src.report.charts.draw_png", no_drawing)
    assert item_files(capture("scenario=small.yaml").path) == undisturbed


def slow_capture(folder: str, log: str) -> None:
    """capture_scenario.py in a process of its own that takes its time over every conversation."""
    os.chdir(folder)
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    write = items.write_conversation

    def slowly(folder: Path, conversation: Conversation) -> None:
        time.sleep(0.1)
        write(folder, conversation)
        time.sleep(0.1)

    items.write_conversation = slowly
    charts.draw_png = no_drawing
    run("scenario=many.yaml")


def test_a_killed_run_goes_on_and_ends_in_the_same_bytes(project):
    messages = [{"role": "user", "content": f"w{number} w14"} for number in range(10, 16)]
    prompts = [{"name": f"talk_{number}", "messages": [message]} for number, message in enumerate(messages)]
    write_scenario_file(project / "many.yaml", name="many", prompt=prompts)
    undisturbed = item_files(capture("scenario=many.yaml", "artifacts_dir=other").path)
    draws = random.Random(0)
    kept: dict[str, int] = {}
    for attempt in range(3):
        process = start_forked(slow_capture, str(project), f"log-{attempt}.txt")
        wait_for(project / "artifacts" / "scenario_run", process, min(len(kept) + draws.randint(1, 2), 6))
        time.sleep(draws.uniform(0, 0.2))
        process.kill()
        process.join()
        (folder,) = (project / "artifacts" / "scenario_run").glob("[!.]*")
        assert not (folder / "meta.json").exists()
        assert read_status(folder).state == "killed"
        stamps = {path.parent.name: path.stat().st_mtime_ns for path in folder.glob("[!.]*/item.json")}
        assert kept.items() < stamps.items()  # what was whole is not made again
        kept = stamps
    artifact = capture("scenario=many.yaml")
    assert verify(artifact.path) == []
    assert item_files(artifact.path) == undisturbed
    stamps = {path.parent.name: path.stat().st_mtime_ns for path in artifact.path.glob("*/item.json")}
    assert kept.items() <= stamps.items()


def wait_for(runs: Path, process: ForkServerProcess, n_items: int) -> None:
    """Until the process has finished so many items, with those that were finished before."""
    for _ in range(3000):
        assert process.is_alive()
        found = [read_status(path) for path in runs.glob("[!.]*") if (path / "status.json").exists()]
        if found and found[0].state == "running" and list(found[0].items.values()).count("done") >= n_items:
            return
        time.sleep(0.02)
    raise AssertionError("it does not come on")
