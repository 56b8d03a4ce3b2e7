"""Explanations of features in words: Neuronpedia's JSON Lines, the ids that are wanted, and the file for readers."""

import gzip
import json
import zlib
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from src.errors import StrataError

_MOST_LINE_BYTES = 4 * 2**20
# JSON Lines with embeddings shrink to a third, words to a tenth
_MOST_RATIO, _ALWAYS_BYTES = 200, 64 * 2**20


@dataclass(frozen=True)
class Explanation:
    """What someone says that a feature means. source: a model's name, or `Neuronpedia` where none is told."""

    feature: int
    text: str
    source: str
    method: str = ""


@dataclass
class NeuronpediaRows:
    """Neuronpedia's rows by feature: the one that was read last first, as it wins, then the others, latest first."""

    rows: dict[int, list[dict[str, Any]]] = field(default_factory=dict)
    files_read: int = 0

    def add(self, row: dict[str, Any]) -> None:
        """Take a row: the newest one of its feature."""
        self.rows.setdefault(int(row["index"]), []).insert(0, row)

    def explanations(self, feature: int) -> list[Explanation]:
        """The explanations of a feature that say something, the winner first."""
        found = []
        for row in self.rows.get(feature, []):
            text = (row.get("description") or "").strip()
            if text:
                source = str(row.get("explanationModelName") or "Neuronpedia")
                found.append(Explanation(feature, text, source, str(row.get("typeName") or "")))
        return found


def gather_rows(
    paths: Iterable[Path], wanted: Collection[int] | None, *, stop_when_found: bool = False
) -> NeuronpediaRows:
    """The rows of the wanted features (None = all) in files of Neuronpedia, read in the order given.

    stop_when_found: as soon as each wanted feature has a row, read no more; else explanations that come later are found
    too. Paths may be downloaded as they are drawn: what is not read is not drawn.

    Raises StrataError as `read_rows` does.
    """
    found = NeuronpediaRows()
    keep = None if wanted is None else set(wanted)
    for path in paths:
        found.files_read += 1
        for row in read_rows(path):
            if keep is None or int(row["index"]) in keep:
                found.add(row)
                if stop_when_found and keep is not None and len(found.rows) == len(keep):
                    return found
    return found


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a JSON Lines file (gzip), line by line; memory holds one line.

    Raises:
        StrataError: no gzip, a truncated one, or one that swells beyond all measure; a line that is no JSON object with
            a feature's `index`, or whose `description` is no text.
    """
    most = max(_ALWAYS_BYTES, _MOST_RATIO * path.stat().st_size)
    remedy = "remove it from the cache and run again; if it comes back so, that is what the server holds"
    total = number = 0
    try:
        with gzip.open(path, "rb") as file:
            while line := file.readline(_MOST_LINE_BYTES + 1):
                number += 1
                total += len(line)
                if len(line) > _MOST_LINE_BYTES or total > most:
                    raise StrataError(f"{path} swells to more than explanations can have (line {number}): {remedy}")
                if line.strip():
                    yield _checked(line, f"{path}, line {number}")
    except (EOFError, OSError, zlib.error) as error:
        raise StrataError(f"{path} is no whole gzip file ({type(error).__name__}: {error}): {remedy}") from None


def _checked(line: bytes, where: str) -> dict[str, Any]:
    try:
        row = json.loads(line, parse_constant=lambda _: None)
        if b"\\ud" in line.lower():  # JSON may hold half a surrogate pair, which no file takes
            row = json.loads(json.dumps(row, ensure_ascii=False).encode("utf-8", "replace"))
    except (ValueError, RecursionError) as error:
        raise StrataError(f"{where} is no JSON ({error})") from None
    if not isinstance(row, dict):
        raise StrataError(f"{where} is no JSON object")
    try:
        index = int(row["index"])
    except (KeyError, TypeError, ValueError):
        index = -1
    if index < 0 or not isinstance(row.get("description"), str | None):
        raise StrataError(f"{where} has no feature's index, or a description that is no text: {str(row)[:120]}")
    return row


def explanations_document(found: NeuronpediaRows, features: Sequence[int], meta: dict[str, Any]) -> dict[str, Any]:
    """The JSON document for readers: {"data": a row per feature, in the order asked for, "meta": {...}}.

    A row is Neuronpedia's own; where a feature has several, the others lie in it under `other_explanations`.
    """
    data = []
    for feature in features:
        if feature in found.rows:
            winner, *others = found.rows[feature]
            data.append({**winner, **({"other_explanations": others} if others else {})})
    return {"data": data, "meta": {**meta, "num_features": len(features), "num_explained": len(data)}}
