"""Taxonomies in JSON: for languages and worlds that WordNet does not know, the testbed's among them.

    {"name": "kitchen",
     "senses": {
        "tool":   {},
        "knife":  {"parents": ["tool"], "words": ["knife", "blade"], "class": "tool", "definition": "a tool that cuts"},
        "to cut": {"words": {"cut": 12, "carve": 3}, "pos": "v"}}}

All keys of a sense may be left out. parents: senses that it is a kind of, none for a root. words: that mean it, or each
with its count in tagged text (spaces are fine; the sense's own name if left out). pos: n, v, a, s or r (n). class and
definition: text. Senses of a word come in the order of their counts, then of the file.
"""

import hashlib
import json
from collections import defaultdict
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, NonNegativeInt, ValidationError

from src.errors import StrataError
from src.geometry.lexicon.taxonomy import Taxonomy, WordSense


def _uncounted(words: object) -> object:
    if isinstance(words, list) and all(isinstance(word, str) for word in words):
        return dict.fromkeys(words, 0)
    return words


class _Sense(BaseModel):
    model_config = ConfigDict(extra="forbid", populate_by_name=True)
    parents: list[str] = []
    words: Annotated[dict[str, NonNegativeInt] | None, BeforeValidator(_uncounted)] = None
    pos: Literal["n", "v", "a", "s", "r"] = "n"
    class_: str = Field("", alias="class")
    definition: str = ""


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: str = Field(min_length=1)
    senses: dict[str, _Sense] = Field(min_length=1)


def read_json_taxonomy(path: Path) -> Taxonomy:
    """Read a taxonomy.

    Raises:
        StrataError: no such file, not this format, an unknown parent, or a circle.
    """
    try:
        text = path.read_bytes()
    except OSError as error:
        raise StrataError(f"{path}: can't be read as a taxonomy ({error.strerror})") from error
    try:
        content = _File.model_validate(json.loads(text))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the file"
        raise StrataError(
            f"{path} is no taxonomy: {place}: {first['msg']} (docs/artifacts.md has the format)"
        ) from error
    except ValueError as error:  # json.JSONDecodeError and UnicodeDecodeError are
        raise StrataError(f"{path} is no JSON: {error}") from error
    senses = content.senses
    _check_parents(path, senses)
    number = {name: index for index, name in enumerate(senses)}
    parents = [[number[parent] for parent in dict.fromkeys(sense.parents)] for sense in senses.values()]
    return Taxonomy(
        source=f"{content.name} {hashlib.sha256(text).hexdigest()[:12]}",
        names=tuple(senses),
        pos=tuple(sense.pos for sense in senses.values()),
        parent=np.array([parent for above in parents for parent in above], np.int32),
        parent_start=np.cumsum([0, *map(len, parents)], dtype=np.int32),
        classes=tuple(sense.class_ for sense in senses.values()),
        definitions=tuple(sense.definition for sense in senses.values()),
        words=_words(senses),
        lemmas=[tuple(_words_of(name, sense)) for name, sense in senses.items()],
    )


def _check_parents(path: Path, senses: dict[str, _Sense]) -> None:
    for name, sense in senses.items():
        for parent in sense.parents:
            if parent not in senses:
                raise StrataError(f"{path}: {name} is a kind of {parent}, which is not among the senses: add it")
    try:
        TopologicalSorter({name: sense.parents for name, sense in senses.items()}).prepare()
    except CycleError as error:
        raise StrataError(f"{path}: kinds of each other in a circle: {' > '.join(error.args[1])}") from error


def _words_of(name: str, sense: _Sense) -> dict[str, int]:
    # with their counts
    return {name: 0} if sense.words is None else sense.words


def _words(senses: dict[str, _Sense]) -> dict[str, tuple[WordSense, ...]]:
    found: dict[tuple[str, str], list[tuple[int, int]]] = defaultdict(list)
    for index, (name, sense) in enumerate(senses.items()):
        for word, count in _words_of(name, sense).items():
            found[word.lower(), sense.pos].append((index, count))
    together: dict[str, list[WordSense]] = defaultdict(list)
    for (word, _), meanings in found.items():
        frequent_first = sorted(meanings, key=lambda meaning: -meaning[1])
        together[word] += [WordSense(sense, count, i) for i, (sense, count) in enumerate(frequent_first, 1)]
    return {word: tuple(meanings) for word, meanings in together.items()}
