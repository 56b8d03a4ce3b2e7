"""The report as one HTML file: it opens from disk, with the network off, on a wide or a narrow screen, and prints."""

import base64
import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from src.artifacts import Meta
from src.report.charts import PNG_SCALE, page_assets, templates, write_whole
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

    text: plain text; an empty line begins a new paragraph.
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


def write_page(path: Path, title: str, sections: Sequence[Section], subtitle: str = "") -> None:
    """Write the report to `path` (whole or not at all): no request leaves it, all it needs lies inside.

    Raises StrataError when the place can't be written.
    """
    page = templates().get_template("page.html.j2")
    html = page.render(
        title=title,
        subtitle=subtitle,
        sections=list(zip(_anchors(sections), _distinctions(sections), sections, strict=True)),
        cell_text=cell_text,
        numeric_columns=numeric_columns,
        paragraphs=paragraphs,
        base64=lambda content: base64.b64encode(content).decode(),
        pretty_json=lambda values: json.dumps(values, indent=2, ensure_ascii=False),
        duration=duration,
        **page_assets(),
    )
    write_whole(path, html.encode())


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
