"""Flat records as files for other programs: parquet for data frames, CSV for spreadsheets, JSON for all else."""

import csv
import math
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from src.artifacts import disk_errors, write_json
from src.transport.bootstrap import Estimate


def write_records(stem: Path, records: list[dict[str, Any]]) -> None:
    """Write `<stem>.parquet` and `<stem>.json`. Records may lack keys; NaN becomes null in JSON, which has none."""
    keys = list(dict.fromkeys(key for record in records for key in record))
    pq.write_table(
        pa.table({key: [record.get(key) for record in records] for key in keys}), stem.with_suffix(".parquet")
    )
    write_json(stem.with_suffix(".json"), [{key: _plain(value) for key, value in record.items()} for record in records])


def write_csv(path: Path, records: list[dict[str, Any]]) -> None:
    """Write a CSV file with a header; every digit of a number is kept, and what is missing is an empty field.

    Raises StrataError when the disk is full.
    """
    keys = list(dict.fromkeys(key for record in records for key in record))
    with disk_errors(path), path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, keys, lineterminator="\n")
        writer.writeheader()
        writer.writerows({key: _plain(value) for key, value in record.items()} for record in records)


def estimate_fields(name: str, estimate: Estimate) -> dict[str, float]:
    """An estimate and the ends of its interval: `name`, `name_low`, `name_high`."""
    return {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
