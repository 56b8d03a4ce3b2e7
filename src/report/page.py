"""The report as one HTML file: it opens from disk, with the network off, on a wide or a narrow screen, and prints."""

import base64
import io
import json
import re
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from pathlib import Path
from typing import Any

from PIL import Image

from src.artifacts import Meta
from src.report.charts import PNG_SCALE, page_assets, templates, write_whole
from src.report.findings import lead
from src.report.tables import Table, cell_text, numeric_columns


@dataclass(frozen=True)
class Figure:
    """A drawn chart: the Vega-Lite specification for the reader's browser, the PNG for paper and for no JavaScript."""

    title: str
    spec: dict[str, Any]
    png: bytes
    caption: str = ""

    @property
    def width(self) -> int:
        """Width on the page in CSS pixels (bytes 16 to 20 of a PNG hold its width in pixels)."""
        return int.from_bytes(self.png[16:20], "big") // PNG_SCALE


@dataclass(frozen=True)
class PageLink:
    """A page of an artifact of its own. href: relative to the folder that holds all artifacts."""

    title: str
    href: str


@dataclass(frozen=True)
class Section:
    """One part of the report.

    text: plain text; an empty line begins a new paragraph. Its first sentence stands in the contents too.
    chapter: sections of one chapter that follow each other stand together in the contents; empty: in none.
    source: the meta.json of the artifact that it shows.
    problem: True where the section says what could not be shown.
    links: pages of the artifact that stand beside the report.
    """

    title: str
    text: str = ""
    tables: Sequence[Table] = ()
    figures: Sequence[Figure] = ()
    source: Meta | None = None
    problem: bool = False
    links: Sequence[PageLink] = ()
    chapter: str = ""


@dataclass(frozen=True)
class _Placed:
    """A section on the page. distinction: what tells it from its namesakes."""

    anchor: str
    distinction: str
    section: Section


def write_page(path: Path, title: str, sections: Sequence[Section], subtitle: str = "") -> None:
    """Write the report to `path` (whole or not at all): no request leaves it, all it needs lies inside.

    Raises StrataError when the place can't be written.
    """
    page = templates().get_template("page.html.j2")
    placed = list(map(_Placed, _anchors(sections), _distinctions(sections), sections))
    drawn = [figure.png for section in sections for figure in section.figures]
    with ThreadPoolExecutor() as pool:  # Pillow encodes without the interpreter's lock
        addresses = dict(zip(drawn, pool.map(_embedded, drawn), strict=True))
    html = page.render(
        title=title,
        subtitle=subtitle,
        chapters=[(name, list(each)) for name, each in groupby(placed, lambda one: one.section.chapter)],
        lead=lead,
        cell_text=cell_text,
        numeric_columns=numeric_columns,
        paragraphs=paragraphs,
        picture=addresses.__getitem__,
        pretty_json=lambda values: json.dumps(values, indent=2, ensure_ascii=False),
        duration=duration,
        **page_assets(),
    )
    write_whole(path, html.encode())


def _embedded(png: bytes) -> str:
    """A picture inside of the page: the same pixels as WebP, in a tenth of the bytes; one that is damaged as it is."""
    content, kind = io.BytesIO(), "webp"
    try:
        Image.open(io.BytesIO(png)).save(content, "WEBP", lossless=True, method=2)
    except (OSError, SyntaxError, ValueError):  # Pillow's, of a file that is no picture or too large for WebP
        content, kind = io.BytesIO(png), "png"
    return f"data:image/{kind};base64,{base64.b64encode(content.getvalue()).decode()}"


def _anchors(sections: Sequence[Section]) -> list[str]:
    """An id for each section, from its title or artifact; a number makes it unique."""
    taken: dict[str, int] = {}
    anchors = []
    for section in sections:
        words = f"{section.source.kind}-{section.source.name}" if section.source else section.title
        slug = re.sub(r"[^a-z0-9]+", "-", words.lower()).strip("-") or "section"
        taken[slug] = taken.get(slug, 0) + 1
        anchors.append(slug if taken[slug] == 1 else f"{slug}--{taken[slug]}")
    return anchors


def _distinctions(sections: Sequence[Section]) -> list[str]:
    """What stands beside each title to tell it from its namesakes: the artifact's name; empty where not needed."""
    titles = Counter(section.title for section in sections)
    return [section.source.name if section.source and titles[section.title] > 1 else "" for section in sections]


def paragraphs(text: str) -> list[str]:
    """The paragraphs of plain text."""
    return [part.strip() for part in re.split(r"\n\s*\n", text) if part.strip()]


def duration(meta: Meta) -> str:
    """How long the artifact took to make: "41 s", "3 min 20 s" or "2 h 5 min"; empty if its times can't be read."""
    try:
        seconds = round(
            (datetime.fromisoformat(meta.ended_at) - datetime.fromisoformat(meta.started_at)).total_seconds()
        )
    except (TypeError, ValueError):
        return ""
    if seconds < 60:
        return f"{seconds} s"
    minutes, seconds = divmod(seconds, 60)
    if minutes < 60:
        return f"{minutes} min {seconds} s"
    return f"{minutes // 60:,} h {minutes % 60} min"
