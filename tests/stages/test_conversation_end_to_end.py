"""Activation Lab's shipped scenario (its structure, our words) from the file to the page in a browser."""

import shutil
from pathlib import Path

import pytest

import analyse_run
import capture_scenario
import compare_runs
from src.artifacts import Artifact, verify
from src.config.analyse_run import AnalyseRunConfig
from src.config.capture_scenario import CaptureScenarioConfig
from src.config.compare_runs import CompareRunsConfig
from src.report.artifact_report import read_report
from src.scenarios.storage.run_folder import read_captured
from src.stage.entry import compose, run_stage
from tests.fixtures.browser import CHROMIUM, Browser
from tests.fixtures.chatml_model import SCENARIO, write_chatml_model

HOSTILE = """</script><script>document.title="x"</script> "quoted" 'too' [red]"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """The scenario with one message of a stranger's in it, and the model that it names."""
    folder = tmp_path_factory.mktemp("end_to_end")
    write_chatml_model(folder / "chatml_llama")
    text = SCENARIO.read_text(encoding="utf-8")
    first = next(line for line in text.splitlines() if "content: My brother" in line)
    (folder / "scenario.yaml").write_text(text.replace(first, f"{first} {HOSTILE}"), encoding="utf-8")
    return folder


def staged(run, schema, name: str, folder: Path, *words: str) -> Artifact:
    overrides = [f"artifacts_dir={folder / 'artifacts'}", "threads=1", *words]
    return run_stage(run, schema, name, compose(name, overrides), overrides)


@pytest.fixture(scope="module")
def captured(folder) -> Artifact:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        words = ("scenario=scenario.yaml", "model.path=chatml_llama")
        return staged(capture_scenario.run, CaptureScenarioConfig, "capture_scenario", folder, *words)


@pytest.fixture(scope="module")
def compared(folder, captured) -> Artifact:
    return staged(compare_runs.run, CompareRunsConfig, "compare_runs", folder, f"runs={captured.path.name}", "draws=99")


def test_what_was_asked_for_is_captured(captured):
    assert verify(captured.path) == []
    read = read_captured(captured)
    (conversation,) = read.conversations
    (generation,) = conversation.generations
    assert len(conversation.messages) == 21
    assert HOSTILE in conversation.messages[1].content
    assert len(generation.steps) == 50 or generation.ended
    assert read.references is not None
    assert len(read.references.labels) == 9
    (run,) = conversation.runs()
    assert run.snapshots("resid_post", "answer").shape == (4, 21, 128)
    assert run.steps("attention").shape[:3] == (4, len(generation.steps), 4)


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine")
def test_the_page_draws_every_chart_and_nothing_of_the_prompts_runs(compared, tmp_path):
    page = tmp_path / "report.html"
    shutil.copy(compared.path / "report.html", page)
    with Browser() as browser:
        browser.open(page)
        title = browser.run("document.title")
        browser.run("document.querySelectorAll('details').forEach((it) => { it.open = true; })")
        assert browser.pdf().startswith(b"%PDF")  # what is open is drawn for the printer
        figures = "[...document.querySelectorAll('figure.pooled')]"
        browser.wait(f"{figures}.every((figure) => figure.querySelector('svg.marks'))")
        assert browser.run(f"{figures}.length") > 100  # each message has charts of its own
        browser.run("document.querySelector('.explorer input').focus()")
        before = browser.run("document.querySelector('.explorer output').textContent")
        browser.press("ArrowRight")
        assert browser.run("document.querySelector('.explorer output').textContent") != before
        assert browser.run("document.body.textContent").count('document.title="x"') >= 1
        assert browser.run("document.title") == title
        assert (browser.problems, browser.requests) == ([], [])


def test_the_run_can_be_analysed_too(folder, captured):
    words = (f"run={captured.path.name}", "analyses=[logit_lens,attribution,decomposition,attention]", "steps=[0,1,2]")
    made = staged(
        analyse_run.run, AnalyseRunConfig, "analyse_run", folder, *words, f"model_path={folder / 'chatml_llama'}"
    )
    assert "add up" in read_report(made.path).text
