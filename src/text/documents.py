"""Documents from local files or the hub, as one stream."""

import reprlib
from collections.abc import Iterator
from typing import Any, TypeAlias

from src.config.shared import DatasetConfig
from src.errors import StrataError
from src.text.files import local_files, read_rows
from src.text.hub import read_hub_rows

Document: TypeAlias = str | list[dict[str, Any]]
"""Text, or a chat: messages with `role` and `content`, for the tokenizer's chat template."""


def read_documents(config: DatasetConfig) -> Iterator[Document]:
    """Stream the documents of a dataset, in the order of the files (sorted by path) and of their rows.

    What `dataset_name` may be is told in `src.text.files.local_files`; whatever is not found there and can be a hub id
    is streamed from the hub. A null text is an empty document. Memory holds one document, one record batch of a
    parquet file, or one whole .json file (a JSON list cannot be streamed).

    Raises StrataError (some of it only when the stream gets there): nothing found, a missing column, a broken file, a
    value that is neither text nor a chat, no document at all.
    """
    files = local_files(config)
    if files:
        located = ((f"{path}:{row}", value) for path in files for row, value in read_rows(path, config))
    else:
        located = ((f"{config.dataset_name} row {row}", value) for row, value in read_hub_rows(config))
    return _documents(located, config)


def _documents(located: Iterator[tuple[str, object]], config: DatasetConfig) -> Iterator[Document]:
    empty = True
    for place, value in located:
        empty = False
        yield _as_document(value, place, config.text_column_name)
    if empty:
        split = f" (split {config.dataset_split})" if config.dataset_split else ""
        raise StrataError(f"dataset {config.dataset_name!r}{split} is empty: it has no documents")


def _as_document(value: object, place: str, column: str) -> Document:
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if not isinstance(value, list):
        raise StrataError(
            f"{place}: {column!r} holds {type(value).__name__}, not text: set dataset.text_column_name to a column "
            "of strings, or of chats (lists of messages)"
        )
    for message in value:
        if not isinstance(message, dict) or not isinstance(message.get("role"), str) or "content" not in message:
            raise StrataError(
                f"{place}: {column!r} is a list, so it is read as a chat, but {reprlib.repr(message)} is no message: "
                'messages look like {"role": "user", "content": "..."}'
            )
    return value
