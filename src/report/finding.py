"""What one analysis of a stage has found, ready to be written and shown."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from src.artifacts import write_json
from src.artifacts.tensors import save_tensors
from src.report.artifact_report import NamedChart
from src.report.records import write_records
from src.report.tables import Table


@dataclass(frozen=True)
class Finding:
    """One analysis.

    text: sentences for the report; the first one says what was found. details: tables that are too long for a terminal.
    records: of each parquet file (and JSON beside it), by its stem. files: JSON files by name. tensors: of each
    safetensors file, by its stem. metrics: numbers for the tracker.
    """

    text: str
    tables: Sequence[Table] = ()
    figures: Sequence[NamedChart] = ()
    details: Sequence[Table] = ()
    records: Mapping[str, list[dict[str, Any]]] = field(default_factory=dict)
    files: Mapping[str, Any] = field(default_factory=dict)
    tensors: Mapping[str, Mapping[str, Tensor]] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)


def joined(findings: Sequence[Finding]) -> Finding:
    """Several findings as one: texts as paragraphs, all else one after the other."""
    return Finding(
        "\n\n".join(finding.text for finding in findings if finding.text),
        [table for finding in findings for table in finding.tables],
        [figure for finding in findings for figure in finding.figures],
        [table for finding in findings for table in finding.details],
        records={stem: rows for finding in findings for stem, rows in finding.records.items()},
        files={name: values for finding in findings for name, values in finding.files.items()},
        tensors={stem: tensors for finding in findings for stem, tensors in finding.tensors.items()},
        metrics={name: value for finding in findings for name, value in finding.metrics.items()},
    )


def write_finding(folder: Path, finding: Finding) -> None:
    """Write all records, files and tensors; numbers that are not defined are null in JSON."""
    for stem, records in finding.records.items():
        write_records(folder / stem, records)
    for name, values in finding.files.items():
        write_json(folder / name, _defined(values))
    for stem, tensors in finding.tensors.items():
        save_tensors(folder / f"{stem}.safetensors", tensors)


def _defined(values: Any) -> Any:
    """Plain nested values with null for numbers that are not defined: JSON has no NaN."""
    if isinstance(values, float):
        return values if math.isfinite(values) else None
    if isinstance(values, Mapping):
        return {key: _defined(value) for key, value in values.items()}
    return [_defined(value) for value in values] if isinstance(values, list | tuple) else values
