"""Files that map words to labels."""

import csv
import json
from pathlib import Path

import yaml

from src.errors import StrataError

_SUFFIXES = (".json", ".yaml", ".yml", ".csv")


def read_labels(path: Path) -> dict[str, str]:
    """The label of each word, in the order of the file.

    .json, .yaml: an object {word: label}, or {label: [word, ...]}. .csv: two columns, word and label, with or without
    the header `word,label` (or `token,label`).

    Raises:
        StrataError: no such file, another format, contents that are no labels, a word with two labels.
    """
    if path.suffix not in _SUFFIXES:
        raise StrataError(f"labels={path}: a file of labels ends in {', '.join(_SUFFIXES)}")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise StrataError(f"labels={path} can't be read ({reason})") from None
    pairs = _from_csv(text, path) if path.suffix == ".csv" else _from_mapping(text, path)
    labels: dict[str, str] = {}
    for word, label in pairs:
        if labels.setdefault(word, label) != label:
            raise StrataError(f"labels={path}: {word!r} has two labels, {labels[word]!r} and {label!r}")
    if len(set(labels.values())) < 2:
        raise StrataError(f"labels={path} has {len(set(labels.values()))} label: two or more are needed")
    return labels


def _from_mapping(text: str, path: Path) -> list[tuple[str, str]]:
    try:
        mapping = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except (ValueError, yaml.YAMLError, RecursionError) as error:
        raise StrataError(f"labels={path} can't be read: {str(error).splitlines()[0]}") from None
    if not isinstance(mapping, dict):
        raise StrataError(f"labels={path} is no mapping: write {{word: label}}, or {{label: [word, ...]}}")
    found = []
    for key, value in mapping.items():
        if isinstance(value, list):
            found += [(str(word), str(key)) for word in value]
        elif isinstance(value, str | int):
            found.append((str(key), str(value)))
        else:
            raise StrataError(f"labels={path}: {key!r} maps to {value!r}, which is no label and no list of words")
    return found


def _from_csv(text: str, path: Path) -> list[tuple[str, str]]:
    rows = [row for row in csv.reader(text.splitlines()) if row]
    if rows and rows[0] in (["word", "label"], ["token", "label"]):
        rows = rows[1:]
    for number, row in enumerate(rows, start=1):
        if len(row) != 2:
            raise StrataError(f"labels={path}: row {number} has {len(row)} columns; two are needed, word and label")
    return [(word, label) for word, label in rows]
