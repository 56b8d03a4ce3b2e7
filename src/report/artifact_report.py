"""What an artifact says to its reader: `report.json` and the figures beside it, written by its stage.

<artifact>/report.json              title, text, tables, figures
<artifact>/figures/<name>.png       for paper; also .html (interactive, offline) and .vl.json (the specification)
"""

import json
import math
import re
import urllib.parse
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import altair as alt
from pydantic import TypeAdapter, ValidationError

from src.artifacts import Meta, write_json
from src.errors import StrataError
from src.report.charts import save_chart
from src.report.page import Figure, PageLink, Section
from src.report.tables import Cell, Table, cell_text, format_number

REPORT = "report.json"
FIGURES = "figures"


@dataclass(frozen=True)
class NamedChart:
    """A chart on its way into an artifact. name: stem of its files (letters, digits, `_` and `-`).

    caption: a sentence at least, of what is seen.
    """

    name: str
    title: str
    chart: alt.TopLevelMixin
    caption: str


@dataclass(frozen=True)
class _FigureFiles:
    title: str
    spec: str
    png: str
    caption: str = ""


@dataclass(frozen=True)
class NamedPage:
    """An HTML page in an artifact, which the report links to. file: relative to the artifact."""

    title: str
    file: str


@dataclass(frozen=True)
class _Report:
    title: str
    text: str = ""
    tables: list[Table] = field(default_factory=list)
    figures: list[_FigureFiles] = field(default_factory=list)
    pages: list[NamedPage] = field(default_factory=list)


_REPORT_FORMAT = TypeAdapter(_Report)


def write_report(
    folder: Path,
    title: str,
    text: str,
    tables: Sequence[Table] = (),
    figures: Sequence[NamedChart] = (),
    pages: Sequence[NamedPage] = (),
) -> dict[str, Path]:
    """Write report.json and the figures into an artifact folder under construction.

    Returns the PNG of each figure by title (for experiment trackers). Two runs with the same input write the same
    bytes. Raises ValueError for a figure name that is no file stem or is used twice.
    """
    names = [figure.name for figure in figures]
    for name in names:
        if not re.fullmatch(r"[A-Za-z0-9_-]+", name) or names.count(name) > 1:
            raise ValueError(f"figure name {name!r}: needs letters, digits, _ and - only, and to be used once")
    pictures = {figure.title: save_chart(figure.chart, folder / FIGURES / figure.name)["png"] for figure in figures}
    report = {
        "title": title,
        "text": text,
        "tables": [
            {
                "title": table.title,
                "columns": list(table.columns),
                "rows": [[_json_cell(cell) for cell in row] for row in table.rows],
                "caption": table.caption,
            }
            for table in tables
        ],
        "figures": [
            {
                "title": figure.title,
                "spec": f"{FIGURES}/{figure.name}.vl.json",
                "png": f"{FIGURES}/{figure.name}.png",
                "caption": figure.caption,
            }
            for figure in figures
        ],
        "pages": [vars(page) for page in pages],
    }
    write_json(folder / REPORT, report)
    return pictures


def _json_cell(cell: Cell) -> Cell:
    """JSON has no NaN and no infinity: they are kept as words."""
    if isinstance(cell, float) and not math.isfinite(cell):
        return format_number(cell)
    if (
        isinstance(cell, dict)
        and "value" in cell
        and not all(math.isfinite(number) for number in (cell["value"], cell["low"], cell["high"]))
    ):
        words = cell_text(cell)
        return f"{words.text} {words.interval}"
    return cell


def read_report(folder: Path, source: Meta | None = None) -> Section:
    """The section that an artifact's report.json describes, with its figures.

    Raises StrataError if report.json or a figure is missing, damaged, or lies outside the artifact.
    """
    path = folder / REPORT
    try:
        report = _REPORT_FORMAT.validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise StrataError(
            f"{path} is damaged or foreign ({place or 'file'}: {first['msg']}); remake the artifact"
        ) from None
    except OSError as error:
        raise StrataError(f"{path} can't be read ({error.strerror}); remake the artifact") from None
    figures = [
        Figure(files.title, _read_spec(folder, files.spec), _read_png(folder, files.png), files.caption)
        for files in report.figures
    ]
    links = [PageLink(page.title, _href(folder, page.file)) for page in report.pages]
    return Section(report.title, report.text, report.tables, figures, source, links=links)


def _href(folder: Path, name: str) -> str:
    """The address of a file of an artifact from the folder that holds all artifacts."""
    path = folder / name
    if not path.resolve().is_relative_to(folder.resolve()) or not path.is_file():
        raise StrataError(f"{folder / REPORT} names a page that is not there ({name}); remake the artifact")
    return urllib.parse.quote(f"{folder.parent.name}/{folder.name}/{name}")


def _read_inside(folder: Path, name: str) -> bytes:
    path = folder / name
    # a report may come from someone else: it must not pull other files of this machine into a page
    if not path.resolve().is_relative_to(folder.resolve()):
        raise StrataError(f"{folder / REPORT} points outside its artifact ({name}); remake the artifact")
    try:
        return path.read_bytes()
    except OSError as error:
        raise StrataError(f"{path} can't be read ({error.strerror}); remake the artifact") from None


def _read_spec(folder: Path, name: str) -> dict[str, Any]:
    try:
        spec = json.loads(_read_inside(folder, name), parse_constant=_refuse_constant)
    except ValueError as error:
        raise StrataError(f"{folder / name} is no JSON ({error}); remake the artifact") from None
    if not isinstance(spec, dict):
        raise StrataError(f"{folder / name} is no Vega-Lite specification; remake the artifact")
    return spec


def _refuse_constant(word: str) -> None:
    raise ValueError(f"{word} is not JSON")


def _read_png(folder: Path, name: str) -> bytes:
    png = _read_inside(folder, name)
    if not png.startswith(b"\x89PNG\r\n\x1a\n") or len(png) < 24:
        raise StrataError(f"{folder / name} is no PNG; remake the artifact")
    return png
