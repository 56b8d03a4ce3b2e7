"""report.html of compared runs in a real browser with the network off, with the worst of texts in it."""

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

import compare_runs
from src.config.compare_runs import CompareRunsConfig
from src.report.cube import Cube
from src.stage.entry import compose, run_stage
from tests.fixtures.browser import CHROMIUM, Browser
from tests.fixtures.made_scenarios import HOSTILE, ScenarioMaker

TEXTS = [HOSTILE, HOSTILE * 40, "x" * 5000, "line one\nline two", HOSTILE, "مرحبا 🙂"]
SHOWN = "[...document.querySelectorAll('figure.pooled')].filter((figure) => figure.checkVisibility())"
DRAWN = f"{SHOWN}.every((figure) => figure.querySelector('svg.marks'))"


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """Three runs of a hostile scenario, compared; chart files, which take longest, are not what is tested here."""
    folder = tmp_path_factory.mktemp("page")
    labels = ["joy", "fear", "<script>'x'[red]"]
    maker = ScenarioMaker(texts=TEXTS, reference_labels=labels, labels={0: "joy", 2: "fear"}, n_steps=4)
    conversations = [maker.conversation("talk", after=[2, 6]), maker.conversation("other")]
    maker.write(folder / "artifacts", "hostile", conversations, maker.references())
    words = [f"artifacts_dir={folder / 'artifacts'}", "draws=99", "threads=1"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("src.report.run_comparison.showing.figures", lambda found: [])
        return run_stage(
            compare_runs.run, CompareRunsConfig, "compare_runs", compose("compare_runs", words), words
        ).path


class Elements(HTMLParser):
    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict]] = []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))


def test_texts_of_strangers_stay_text_and_nothing_is_requested(made):
    html = (made / "report.html").read_text(encoding="utf-8")
    elements = Elements(html).found
    assert [tag for tag, _ in elements].count("script") == 3
    assert not {"img", "iframe", "link", "object"} & {tag for tag, _ in elements}
    assert not any(name.startswith("on") for _, attributes in elements for name in attributes)
    addresses = [value for _, attributes in elements for name, value in attributes.items() if name in ("src", "href")]
    assert addresses
    assert all(address.startswith("#") for address in addresses)
    assert not {value for _, it in elements if "href" in it for value in [it["href"][1:]]} - {
        it["id"] for _, it in elements if "id" in it
    }
    policy = next(it["content"] for _, it in elements if it.get("http-equiv") == "Content-Security-Policy")
    assert "default-src 'none'" in policy


def test_each_table_has_as_many_headers_as_cells(made):
    html = (made / "report.html").read_text(encoding="utf-8")
    tables = re.findall(r"<table>.*?</table>", html, re.S)
    assert len(tables) > 10
    for table in tables:
        rows = [row for row in re.findall(r"<tr>.*?</tr>", table, re.S)]
        assert len({row.count("<th ") + row.count("<td ") for row in rows}) == 1
    summary = next(table for table in tables if "most divergent layer" in table)
    header = re.findall(r"<th [^>]*>([^<]*)", summary)
    assert header[:3] == ["source", "mean cosine", "std cosine"]
    assert len(header) == 15


def test_the_numbers_of_a_page_lie_in_it_once(made):
    html = (made / "report.html").read_text(encoding="utf-8")
    data = json.loads(html.partition('id="data">')[2].partition("</script>")[0])
    assert len(data["specs"]) < 60 < len(data["figures"])
    assert {figure["cube"] for figure in data["figures"]} == set(range(len(data["cubes"])))
    assert len(html) < 4_000_000


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine")
def test_in_a_browser_all_is_drawn_nothing_runs_and_the_slider_moves(made, tmp_path):
    page = tmp_path / "report.html"  # alone: nothing beside it is needed
    shutil.copy(made / "report.html", page)
    with Browser() as browser:
        browser.open(page)
        count = browser.run(f"{SHOWN}.length")
        # printing comes first: charts that nobody has scrolled to are drawn for it
        assert browser.pdf().startswith(b"%PDF")
        browser.wait(DRAWN)
        assert browser.run("document.querySelectorAll('svg.marks').length") == count > 30

        browser.run("document.querySelector('.explorer input').focus()")
        read = "document.querySelector('.explorer output').textContent"
        assert browser.run(read).startswith("0 of 3")
        browser.press("ArrowRight")
        assert browser.run(read).startswith("1 of 3")
        assert "</script><script>" in browser.run("document.querySelector('.explorer tbody').textContent")
        assert browser.run("document.querySelector('.explorer [aria-current=step]').textContent") == "w1"

        # what is closed is drawn when it is opened: the reference block of the second run
        browser.run("location.hash = '#run-2'")
        browser.wait("document.querySelector('#run-2 details').open")
        browser.run("document.querySelectorAll('#run-2 details').forEach((it) => { it.open = true; })")
        browser.run("document.querySelector('#run-2 figure').scrollIntoView()")
        browser.wait("document.querySelector('#run-2 figure svg.marks') !== null")

        assert browser.run("document.title") == "Runs compared"
        assert (browser.problems, browser.requests) == ([], [])

        # rows of charts as the page makes them, against those of Cube.records
        data = browser.run("data")
        for figure in data["figures"][:: len(data["figures"]) // 12]:
            compact = data["cubes"][figure["cube"]]
            cube = _cube(compact)
            rows = browser.run(f"records({json.dumps(figure)})")
            assert rows == cube.records(figure.get("at"), figure["fields"])


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine")
@pytest.mark.parametrize("width", [390, 1400])
def test_nothing_sticks_out_of_a_narrow_or_a_wide_screen(made, width):
    outside = (
        "[...document.querySelectorAll('main *')].filter((it) => it.checkVisibility() && "
        "it.getBoundingClientRect().right > innerWidth + 1 && !it.closest('.scroll, .drawing, .steps, .likely'))"
        ".map((it) => it.tagName + '.' + it.className)"
    )
    with Browser(width, 900) as browser:
        browser.open(made / "report.html")
        browser.run("document.querySelector('button[data-fold=open]').click()")
        assert browser.run("document.documentElement.scrollWidth") == width
        assert browser.run(outside) == []


def _cube(compact: dict) -> Cube:
    dims = dict(compact["dims"])
    shape = [len(values) for values in dims.values()]
    values = {name: np.array(array, float).reshape(shape) for name, array in compact["values"].items()}
    return Cube(dims, values, compact["about"])
