"""Flat records as files for other programs: parquet for data frames, JSON for everything else."""

import math
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from src.artifacts import write_json


def write_records(stem: Path, records: list[dict[str, Any]]) -> None:
    """Write `<stem>.parquet` and `<stem>.json`. Records may lack keys; NaN becomes null in JSON, which has none."""
    keys = list(dict.fromkeys(key for record in records for key in record))
    pq.write_table(
        pa.table({key: [record.get(key) for record in records] for key in keys}), stem.with_suffix(".parquet")
    )
    write_json(stem.with_suffix(".json"), [{key: _plain(value) for key, value in record.items()} for record in records])


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
