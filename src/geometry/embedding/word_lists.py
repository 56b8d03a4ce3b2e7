"""Ordered sets and categories of words that a user brings along, as JSON."""

import json
from collections import Counter
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from src.errors import StrataError
from src.geometry.embedding.ordered_sets import FEWEST_WORDS, OrderedSet

_Word = Annotated[str, Field(min_length=1, max_length=100)]


class _Ordered(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")
    words: list[_Word]
    cycle: bool = False


_ORDERED = TypeAdapter(dict[str, _Ordered | list[_Word]])
_CATEGORIES = TypeAdapter(dict[str, list[_Word]])


def read_ordered_sets(path: Path) -> tuple[OrderedSet, ...]:
    """`{"sizes": ["tiny", "small", ...], "seasons": {"words": ["spring", ...], "cycle": true}}`.

    Raises:
        StrataError: no such file, no JSON of this form, a word twice in a set, fewer than 4 words.
    """
    shape = '{"NAME": ["first", "second", ...], "NAME": {"words": [...], "cycle": true}}'
    sets = []
    for name, value in _read(path, _ORDERED, shape).items():
        words, cycle = (value.words, value.cycle) if isinstance(value, _Ordered) else (value, False)
        _refuse_copies(path, name, words)
        if len(words) < FEWEST_WORDS:
            raise StrataError(f"{path}: {name!r} has {len(words)} words; an order needs at least {FEWEST_WORDS}")
        sets.append(OrderedSet(name, tuple(words), cycle))
    return tuple(sets)


def read_categories(path: Path) -> dict[str, tuple[str, ...]]:
    """`{"animals": ["dog", "cat", ...], "colours": [...]}`, no word in two categories.

    Raises:
        StrataError: no such file, no JSON of this form, a word twice.
    """
    categories = _read(path, _CATEGORIES, '{"NAME": ["word", "word", ...], ...}')
    _refuse_copies(path, "the file", [word for words in categories.values() for word in words])
    return {name: tuple(words) for name, words in categories.items()}


def _first(error: ValidationError) -> str:
    """What is wrong first, and at which name and word."""
    found = error.errors()[0]
    place = next((str(part) for part in found["loc"]), "")
    return f"{place}: {found['msg']}" if place else found["msg"]


def _read(path: Path, form: TypeAdapter, shape: str) -> dict:
    try:
        values = form.validate_python(json.loads(path.read_text(encoding="utf-8")), strict=True)
    except OSError as error:
        raise StrataError(f"{path} can't be read ({error.strerror}): give a JSON file {shape}") from None
    except (ValueError, RecursionError, ValidationError) as error:
        why = _first(error) if isinstance(error, ValidationError) else str(error)
        raise StrataError(f"{path} is no word list ({' '.join(why.split())}): it must be JSON {shape}") from None
    if not values:
        raise StrataError(f"{path} holds no words: it must be JSON {shape}")
    return values


def _refuse_copies(path: Path, where: str, words: list[str]) -> None:
    copies = [word for word, count in Counter(words).items() if count > 1]
    if copies:
        raise StrataError(f"{path}: {copies[0]!r} is there twice in {where}; each word must have one place")
