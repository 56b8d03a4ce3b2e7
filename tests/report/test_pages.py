import base64
import errno
import hashlib
import io
import json
import os
import re
import subprocess
import sys
import threading
from html.parser import HTMLParser
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import altair as alt
import pytest
from PIL import Image

from src.artifacts import Meta, Parent
from src.errors import StrataError
from src.report.charts import chart_spec, draw_png, save_chart
from src.report.figures.activations import keep_reasons
from src.report.findings import lead
from src.report.page import Figure, Section, duration, write_page
from src.report.tables import Table

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(1)> <!-- \u2028 & 'q' \"q\""


class Elements(HTMLParser):
    """All elements of a page, with their attributes and the text that lies directly in them."""

    VOID = ("img", "meta", "link", "br", "hr", "input")

    def __init__(self, html):
        super().__init__()
        self.found = []
        self._open = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        element = {"tag": tag, "attributes": dict(attrs), "text": ""}
        self.found.append(element)
        if tag not in self.VOID:
            self._open.append(element)

    def handle_endtag(self, tag):
        assert self._open.pop()["tag"] == tag

    def handle_data(self, data):
        if self._open:
            self._open[-1]["text"] += data

    def of(self, tag, **attributes):
        return [
            element
            for element in self.found
            if element["tag"] == tag and attributes.items() <= element["attributes"].items()
        ]


def chart(title="Tokens"):
    return keep_reasons([{"reason": HOSTILE, "tokens": 3}], 10, title)


def figure(title="Tokens"):
    spec = chart_spec(chart())
    return Figure(title, spec, draw_png(spec), "a caption")


def meta(**changes):
    values = {
        "kind": "evaluation",
        "format_version": 1,
        "name": "ridge-0123abcd",
        "fingerprint": "0123abcd" * 8,
        "identity": {},
        "parents": [Parent("operators", "ridge-77", "77" * 32)],
        "config": {"prompt": HOSTILE},
        "config_fingerprint": "00" * 32,
        "seed": 7,
        "device": "cpu",
        "versions": {"torch": "2.13.0"},
        "git_revision": "3262ff5aa11bb22",
        "started_at": "2026-11-21T01:00:00+00:00",
        "ended_at": "2026-11-21T01:03:20+00:00",
    }
    return Meta(**{**values, **changes})


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "index.html"
    table = Table(HOSTILE, ["prompt", "R2"], [[HOSTILE, {"value": 0.5, "low": 0.4, "high": 0.6}]], HOSTILE)
    sections = [
        Section(HOSTILE, f"{HOSTILE}\n\nsecond", [table], [figure(HOSTILE), figure()], meta()),
        Section("Twice"),
        Section("Twice"),
    ]
    write_page(path, HOSTILE, sections, HOSTILE)
    return Elements(path.read_text(encoding="utf-8"))


def assert_no_request_leaves(elements):
    for element in elements.found:
        for name in ("src", "href", "action", "data", "srcset", "poster"):
            address = element["attributes"].get(name, "")
            assert address.startswith(("data:", "#")) or not address
    assert not elements.of("link")
    styles = "".join(element["text"] for element in elements.of("style"))
    assert "url(" not in styles
    assert "@import" not in styles


def assert_only_our_scripts_may_run(elements):
    policy = elements.of("meta", **{"http-equiv": "Content-Security-Policy"})[0]["attributes"]["content"]
    assert "default-src 'none'" in policy
    allowed = set(re.findall(r"'sha256-[^']+'", policy))
    code = [element["text"] for element in elements.of("script") if "type" not in element["attributes"]]
    digests = (base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in code)
    assert {f"'sha256-{digest}'" for digest in digests} == allowed
    assert "unsafe-inline" not in policy.split("script-src")[1].split(";")[0]
    assert "unsafe-eval" not in policy


def test_the_page_asks_nothing_of_the_network(page):
    assert_no_request_leaves(page)


def test_hostile_strings_stay_text(page):
    assert_only_our_scripts_may_run(page)
    assert page.of("h1")[0]["text"] == HOSTILE
    assert page.of("h2")[0]["text"] == HOSTILE
    assert page.of("td")[0]["text"] == HOSTILE
    assert json.loads(page.of("pre")[0]["text"]) == {"prompt": HOSTILE}
    assert all(image["attributes"]["src"].startswith("data:image/webp") for image in page.of("img"))
    assert not any(name.startswith("on") for element in page.found for name in element["attributes"])


def test_figures_come_with_specification_and_picture_and_one_copy_of_the_libraries(page):
    specs = [json.loads(element["text"]) for element in page.of("script", type="application/json")]
    assert specs == [chart_spec(chart())] * 2
    pictures = [image["attributes"]["src"].partition("base64,")[2] for image in page.of("img")]
    drawn = [Image.open(io.BytesIO(content)) for content in (base64.b64decode(pictures[1]), figure().png)]
    assert len(pictures) == 2
    assert drawn[0].format == "WEBP"
    assert drawn[0].convert("RGB").tobytes() == drawn[1].convert("RGB").tobytes()  # smaller, and the same pixels
    assert [image["attributes"]["alt"] for image in page.of("img")] == [HOSTILE, "Tokens"]
    assert sum(len(element["text"]) > 500_000 for element in page.of("script")) == 1


def test_numbers_stand_on_the_right_with_their_interval(page):
    number = page.of("td", **{"class": "number"})[0]
    assert number["text"].strip() == "0.5000"
    assert page.of("span", **{"class": "interval"})[0]["text"] == "[0.4000, 0.6000]"


def test_contents_lead_to_every_section(page):
    anchors = [link["attributes"]["href"] for link in page.of("a")]
    ids = [f"#{section['attributes']['id']}" for section in page.of("section")]
    assert anchors == ids
    assert len(set(ids)) == 3


def test_a_damaged_picture_does_not_cost_the_page(tmp_path):
    broken = b"\x89PNG\r\n\x1a\n" + bytes(24)
    write_page(tmp_path / "index.html", "Strata", [Section("s", figures=[Figure("f", figure().spec, broken)])])
    (image,) = Elements((tmp_path / "index.html").read_text(encoding="utf-8")).of("img")
    assert image["attributes"]["src"] == f"data:image/png;base64,{base64.b64encode(broken).decode()}"


def test_chapters_stand_together_and_their_first_sentences_at_the_top(tmp_path):
    sections = [
        Section("Operators", "R² is 0.5 (L0_k1). More is said here.", chapter="Transport"),
        Section("Evaluation", HOSTILE, chapter="Transport"),
        Section("Artifacts", chapter="Provenance"),
    ]
    write_page(tmp_path / "index.html", "Strata", sections)
    elements = Elements((tmp_path / "index.html").read_text(encoding="utf-8"))
    chapters = ["Transport", "Provenance"]
    assert [element["text"] for element in elements.of("p", **{"class": "chapter"})] == chapters
    assert [element["text"] for element in elements.of("h2", **{"class": "chapter"})] == chapters
    said = [element["text"] for element in elements.of("dd")]
    assert said == ["R² is 0.5 (L0_k1).", lead(HOSTILE), ""]
    assert len(elements.of("script")) == 2


def test_sections_of_one_title_are_told_apart_by_their_artifact(tmp_path):
    sections = [
        Section("Operators", source=meta(name="L0_k1")),
        Section("Operators", source=meta(name="L0_k2")),
        Section("Evaluation", source=meta(name="scores")),
    ]
    write_page(tmp_path / "index.html", "Strata", sections)
    elements = Elements((tmp_path / "index.html").read_text(encoding="utf-8"))
    names = [element["text"] for element in elements.of("span", **{"class": "artifact"})]
    assert names == ["L0_k1", "L0_k2"] * 2
    for tag in ("h2", "a"):
        assert [element["text"].strip() for element in elements.of(tag)] == ["Operators", "Operators", "Evaluation"]


def test_a_figure_without_a_caption_has_none(tmp_path):
    drawn = figure()
    bare = Figure(drawn.title, drawn.spec, drawn.png)
    write_page(tmp_path / "index.html", "Strata", [Section("s", figures=[drawn, bare])])
    elements = Elements((tmp_path / "index.html").read_text(encoding="utf-8"))
    assert [caption["text"] for caption in elements.of("figcaption")] == ["a caption"]


def test_provenance_is_told(page):
    told = " ".join(element["text"] for element in page.found if element["tag"] in ("span", "code", "dd", "summary"))
    for word in (
        "evaluation/ridge-0123abcd",
        "0123abcd0123",
        "seed 7",
        "3262ff5aa11b",
        "3 min 20 s",
        "operators/ridge-77",
    ):
        assert word in told


@pytest.mark.parametrize(
    ("ended_at", "shown"),
    [("2026-11-21T01:00:41+00:00", "41 s"), ("2026-11-21T03:05:00+00:00", "2 h 5 min"), ("yesterday", "")],
)
def test_duration(ended_at, shown):
    assert duration(meta(ended_at=ended_at)) == shown


def test_a_report_of_nothing_says_so(tmp_path):
    write_page(tmp_path / "index.html", "Empty", [])
    assert "nothing to show" in (tmp_path / "index.html").read_text()


def test_a_chart_becomes_picture_page_and_specification(tmp_path):
    paths = save_chart(chart(HOSTILE), tmp_path / "figures" / "keep.v2")
    assert sorted(path.name for path in (tmp_path / "figures").iterdir()) == [
        "keep.v2.html",
        "keep.v2.png",
        "keep.v2.vl.json",
    ]
    png = paths["png"].read_bytes()
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    assert int.from_bytes(png[16:20], "big") > 600
    assert json.loads(paths["vl.json"].read_text()) == chart_spec(chart(HOSTILE))
    elements = Elements(paths["html"].read_text(encoding="utf-8"))
    assert_no_request_leaves(elements)
    assert_only_our_scripts_may_run(elements)
    assert json.loads(elements.of("script", type="application/json")[0]["text"]) == chart_spec(chart(HOSTILE))


def test_a_chart_that_cannot_be_json_leaves_no_file(tmp_path):
    broken = alt.Chart(alt.Data(values=[{"x": float("nan")}])).mark_point().encode(x="x:Q")
    with pytest.raises(ValueError, match="JSON"):
        save_chart(broken, tmp_path / "broken")
    assert list(tmp_path.iterdir()) == []


def test_drawing_fetches_nothing():
    asked = []

    class Listener(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_error(404)

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Listener)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    spec = {
        "data": {"url": f"http://127.0.0.1:{server.server_port}/data.json"},
        "mark": "point",
        "encoding": {"x": {"field": "a", "type": "quantitative"}},
    }
    # in a process of its own: drawing holds the interpreter's lock, so the listener here could not answer
    code = f"from src.report.charts import draw_png; print('drawing', flush=True); draw_png({spec!r})"
    command = [sys.executable, "-c", code]
    drawing = subprocess.run(command, capture_output=True, timeout=60, check=False, cwd=Path(__file__).parents[2])
    assert drawing.stdout == b"drawing\n"
    server.shutdown()
    server.server_close()
    assert asked == []


def test_a_full_disk_is_named_and_keeps_the_old_page(tmp_path, monkeypatch):
    path = tmp_path / "index.html"
    write_page(path, "old", [])
    old = path.read_bytes()

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StrataError, match=r"index\.html is full"):
        write_page(path, "new", [])
    assert path.read_bytes() == old
    assert list(tmp_path.iterdir()) == [path]
