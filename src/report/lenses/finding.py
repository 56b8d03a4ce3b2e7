"""What an analysis has found, ready to be written and shown."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from src.artifacts import write_json
from src.report.artifact_report import NamedChart
from src.report.records import write_records
from src.report.tables import Table
from src.report.token_text import visible
from src.scenarios.lenses.items import Items

# columns of a figure: of more steps or messages the first are drawn, and the figure says so
MOST_DRAWN = 24


@dataclass(frozen=True)
class Finding:
    """One analysis.

    text: sentences for the report. details: tables that are too long for a terminal. records: of each parquet file
    (and JSON beside it), by its stem. files: JSON files by name.
    """

    text: str
    tables: Sequence[Table] = ()
    figures: Sequence[NamedChart] = ()
    details: Sequence[Table] = ()
    records: Mapping[str, list[dict[str, Any]]] = field(default_factory=dict)
    files: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)


def write_findings(folder: Path, findings: Sequence[Finding]) -> None:
    """Write all records and files of all findings."""
    for finding in findings:
        for stem, records in finding.records.items():
            write_records(folder / stem, records)
        for name, values in finding.files.items():
            write_json(folder / name, values)


def item_names(items: Items) -> list[str]:
    """A short name for each row, its own: number, and the token or role."""
    return [f"{number} {visible(word, 12)}" for number, word in zip(items.numbers, items.words, strict=True)]


def drawn_note(n_items: int, kind: str) -> str:
    """What a figure says that draws the first rows only; empty if it draws all."""
    return f"the first {MOST_DRAWN} of {n_items} {kind}" if n_items > MOST_DRAWN else ""


def sentence(*parts: str) -> str | None:
    """The parts that are not empty as one line; None without any."""
    return "; ".join(part for part in parts if part) or None
