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


def write_findings(folder: Path, findings: Sequence[Finding]) -> None:
    """Write all records and files of all findings."""
    for finding in findings:
        for stem, records in finding.records.items():
            write_records(folder / stem, records)
        for name, values in finding.files.items():
            write_json(folder / name, _without_non_finite(values))
        for stem, tensors in finding.tensors.items():
            save_tensors(folder / f"{stem}.safetensors", tensors)


def _without_non_finite(values: Any) -> Any:
    """JSON has no NaN: what is undefined for a model (no spread, no pairs) is null, and the other numbers are kept."""
    if isinstance(values, Mapping):
        return {key: _without_non_finite(value) for key, value in values.items()}
    if isinstance(values, (list, tuple)):
        return [_without_non_finite(value) for value in values]
    return None if isinstance(values, float) and not math.isfinite(values) else values
