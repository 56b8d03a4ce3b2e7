"""Local datasets: which files they are, and the rows in them."""

import glob
import io
import json
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

import pyarrow as pa
import pyarrow.parquet as pq

from src.config.shared import DatasetConfig
from src.errors import StrataError

REPOSITORY = Path(__file__).resolve().parents[2]
PARQUET_BATCH_ROWS = 1024

Rows = Iterator[tuple[int, object]]
"""(number of the line or row, counted from 1; value of the text column)"""

_COMPRESSION = (".gz", ".zst")
_SHARD = re.compile(r"-\d{5}-of-\d{5}")
_HUB_ID = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")


def local_files(config: DatasetConfig) -> list[Path]:
    """The local files of a dataset in the order in which they are read; none if `dataset_name` can only be a hub id.

    `dataset_name` is a file, a glob pattern (`**` crosses folders) or a folder; a relative one is looked up in the
    working directory first, then in the repository. A folder is searched at all depths; `dataset_split` keeps the
    files whose stem it is (train.jsonl, or the hub's train-00000-of-00002.parquet), null keeps all but README files.
    `dataset_data_dir` and `dataset_config` name folders inside it, if given. A file or a pattern ignores the split.

    Formats: .jsonl, .json (a list of objects, or JSON Lines), .parquet, .txt and .md, also with .gz or .zst behind.

    Raises StrataError: nothing there, no such split, a format that is not read.
    """
    name = Path(config.dataset_name).expanduser()
    for root in (Path.cwd(), REPOSITORY):
        place = root / name
        if place.is_dir():
            return _folder_files(place, config)
        matches = [place] if place.is_file() else _glob(root, name)
        if matches:
            _refuse_hub_keys(config, matches[0])
            for path in matches:
                _reader(path)
            return matches
    if _HUB_ID.fullmatch(config.dataset_name) and _format_suffix(name) is None:
        return []
    raise StrataError(
        f"dataset {config.dataset_name!r} was not found: {not_found_places(config)}; correct dataset.dataset_name"
    )


def not_found_places(config: DatasetConfig) -> str:
    """Says where a local dataset was looked for."""
    name = Path(config.dataset_name).expanduser()
    places = dict.fromkeys([Path.cwd() / name, REPOSITORY / name])
    return f"nothing is at {' or '.join(map(str, places))}"


def _glob(root: Path, pattern: Path) -> list[Path]:
    matches = sorted(glob.glob(str(pattern), root_dir=root, recursive=True))
    return [root / match for match in matches if (root / match).is_file()]


def read_rows(path: Path, config: DatasetConfig) -> Rows:
    """Stream the text column of one file. Raises StrataError with file and line where something is wrong."""
    with _reading(path):
        yield from _reader(path)(path, config.text_column_name)


def _folder_files(folder: Path, config: DatasetConfig) -> list[Path]:
    for key, part in (("dataset_data_dir", config.dataset_data_dir), ("dataset_config", config.dataset_config)):
        if part is not None:
            folder = folder / part
            if not folder.is_dir():
                raise StrataError(f"dataset.{key}={part}: {folder} is no folder; correct the key or set it to null")
    _refuse_revision(config, folder)
    stems = {
        path: path.name.removesuffix(suffix)
        for path in sorted(folder.rglob("*"))
        if (suffix := _format_suffix(path)) is not None and path.is_file() and not _hidden(path.relative_to(folder))
    }
    stems = {path: stem for path, stem in stems.items() if stem.upper() != "README"}
    if not stems:
        raise StrataError(f"dataset folder {folder} has no files to read: they end in {_known_suffixes()}")
    if config.dataset_split is None:
        return list(stems)
    files = [path for path, stem in stems.items() if _split_of(stem) == config.dataset_split]
    if not files:
        splits = ", ".join(dict.fromkeys(map(_split_of, stems.values())))
        raise StrataError(
            f"dataset folder {folder} has no file for dataset.dataset_split={config.dataset_split}: it has {splits} "
            "(null reads all of them)"
        )
    return files


def _split_of(stem: str) -> str:
    return _SHARD.sub("", stem)


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _refuse_hub_keys(config: DatasetConfig, file: Path) -> None:
    _refuse_revision(config, file)
    for key in ("dataset_config", "dataset_data_dir"):
        value = getattr(config, key)
        if value is not None:
            raise StrataError(f"dataset.{key}={value} has no meaning for the file {file}: set it to null")


def _refuse_revision(config: DatasetConfig, path: Path) -> None:
    if config.dataset_revision is not None:
        raise StrataError(
            f"dataset.dataset_revision={config.dataset_revision} has no meaning for the local {path}: set it to null, "
            "or name a dataset on the hub"
        )


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except UnicodeDecodeError as error:
        byte = error.object[error.start]
        raise StrataError(f"{path} is not UTF-8 text ({error.reason} 0x{byte:02x}): convert it to UTF-8") from None
    except (OSError, pa.ArrowException) as error:
        raise StrataError(f"{path} cannot be read: {str(error).splitlines()[0]}") from None


def _open_text(path: Path) -> TextIO:
    # pyarrow chooses the decompression by the suffix; utf-8-sig forgives a byte order mark
    return io.TextIOWrapper(pa.input_stream(str(path)), encoding="utf-8-sig")


def _read_json_lines(path: Path, column: str) -> Rows:
    with _open_text(path) as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                yield number, _value(_parse(line.rstrip(), path, number), column, f"{path}:{number}")


def _read_json(path: Path, column: str) -> Rows:
    # on the hub, many a .json file is JSON Lines
    with _open_text(path) as text:
        start = next((line for line in text if line.strip()), "")
    if not start.lstrip().startswith("["):
        yield from _read_json_lines(path, column)
        return
    with _open_text(path) as text:
        records = _parse(text.read(), path, 1)
    assert isinstance(records, list)
    for number, record in enumerate(records, start=1):
        yield number, _value(record, column, f"{path}, item {number}")


def _parse(text: str, path: Path, first_line: int) -> object:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        place = f"{path}:{first_line + error.lineno - 1}"
        raise StrataError(f"{place}: invalid JSON: {error.msg} (column {error.colno})") from None
    except RecursionError:
        raise StrataError(f"{path}:{first_line}: this JSON is nested too deeply to be read: take it out") from None
    except ValueError as error:  # a number of thousands of digits
        raise StrataError(f"{path}:{first_line}: this JSON cannot be read: {error}") from None


def _value(record: object, column: str, place: str) -> object:
    if not isinstance(record, dict):
        raise StrataError(f"{place}: expected a JSON object with the key {column!r}, found {type(record).__name__}")
    if column not in record:
        raise missing_column(place, column, record)
    return record[column]


def missing_column(place: object, column: str, columns: Iterable[str]) -> StrataError:
    """The error for a column that a source does not have; `columns` are those that it has."""
    names = ", ".join(columns) or "(there are none)"
    return StrataError(f"{place}: no column {column!r}; set dataset.text_column_name to one of: {names}")


def _read_plain_text(path: Path, column: str) -> Rows:
    if column not in ("text", "line"):
        raise StrataError(
            f"{path} is plain text and has no column {column!r}: set dataset.text_column_name to text (the file is one "
            "document) or to line (each line is one)"
        )
    with _open_text(path) as text:
        if column == "line":
            for number, line in enumerate(text, start=1):
                yield number, line.rstrip("\n")
        else:
            yield 1, text.read()


def _read_parquet(path: Path, column: str) -> Rows:
    with pq.ParquetFile(path, pre_buffer=False) as file:
        names = file.schema_arrow.names
        if column not in names:
            raise missing_column(path, column, names)
        number = 0
        for batch in file.iter_batches(batch_size=PARQUET_BATCH_ROWS, columns=[column]):
            for value in batch.column(0).to_pylist():
                number += 1
                yield number, value


_READERS: dict[str, Callable[[Path, str], Rows]] = {
    ".jsonl": _read_json_lines,
    ".json": _read_json,
    ".parquet": _read_parquet,
    ".txt": _read_plain_text,
    ".md": _read_plain_text,
}


def _known_suffixes() -> str:
    return f"{', '.join(_READERS)} (also with {' or '.join(_COMPRESSION)} behind)"


def _format_suffix(path: Path) -> str | None:
    """`.jsonl`, `.jsonl.gz`, ...; None if the format is not read."""
    compression = next((suffix for suffix in _COMPRESSION if path.name.endswith(suffix)), "")
    suffix = Path(path.name.removesuffix(compression)).suffix
    return suffix + compression if suffix in _READERS else None


def _reader(path: Path) -> Callable[[Path, str], Rows]:
    suffix = _format_suffix(path)
    if suffix is None:
        raise StrataError(f"{path} is of a format that is not read: files end in {_known_suffixes()}")
    return _READERS["." + suffix.split(".")[1]]
