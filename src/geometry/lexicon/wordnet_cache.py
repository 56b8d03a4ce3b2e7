"""Parsed WordNet databases in the user's cache folder: they load in a fraction of the time that parsing takes."""

import contextlib
import os
import uuid
import zipfile
from dataclasses import fields
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from src.geometry.lexicon.wordnet_tables import WordnetTables

# raise it with every change of what WordnetTables holds: older files are then not found
_FORMAT = 1
_STRINGS = ("names", "lemmas", "definitions", "words")


def cache_path(digest: str) -> Path:
    """Where the tables of a database with this digest are kept: below $XDG_CACHE_HOME, or ~/.cache."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "strata" / "wordnet" / f"{digest[:32]}-{_FORMAT}.npz"


def load_tables(path: Path) -> WordnetTables | None:
    """The tables of a file; None if it is not there, damaged, or not of this format."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {field.name: archive[field.name] for field in fields(WordnetTables)}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    strings = {name: _split(arrays.pop(name)) for name in _STRINGS}
    return WordnetTables(**strings, **arrays)


def save_tables(path: Path, tables: WordnetTables) -> None:
    """Write the tables so that a reader sees all or none. A disk that refuses is no error: they are parsed again."""
    arrays = {field.name: getattr(tables, field.name) for field in fields(WordnetTables)}
    arrays |= {name: _join(arrays[name]) for name in _STRINGS}
    temporary = path.with_name(f".{uuid.uuid4().hex}.npz")
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("wb") as file:
                np.savez(file, **arrays)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


def _join(strings: list[str]) -> UInt8[np.ndarray, "byte"]:
    return np.frombuffer("\n".join(strings).encode(), np.uint8)


def _split(joined: UInt8[np.ndarray, "byte"]) -> list[str]:
    return joined.tobytes().decode().split("\n")
