"""WordNet as a taxonomy: all four parts of speech, parsed once a machine."""

from array import array
from collections.abc import Iterator, Mapping, Sequence
from typing import overload

import numpy as np

from src.geometry.lexicon.database import Database
from src.geometry.lexicon.taxonomy import Taxonomy, WordSense
from src.geometry.lexicon.wordnet_cache import cache_path, load_tables, save_tables
from src.geometry.lexicon.wordnet_tables import CLASSES, WordnetTables, parse_database


def read_wordnet(database: Database) -> Taxonomy:
    """A database as a taxonomy, from the user's cache folder if it was parsed before.

    Parents are hypernyms and instance hypernyms, in the order of the file (BUG D-6: never a set). Senses are numbered
    as the published notebook walks them: adjectives, adverbs, nouns, verbs, each in the order of its file.

    Raises:
        StrataError: a file is damaged, or not of this format.
    """
    digest = database.digest
    path = cache_path(digest)
    tables = load_tables(path)
    if tables is None:
        tables = parse_database(database)
        save_tables(path, tables)
    return Taxonomy(
        source=f"WordNet {database.version} {digest[:12]}",
        names=tuple(tables.names),
        pos=tuple(tables.pos.tobytes().decode()),
        parent=tables.parent,
        parent_start=tables.parent_start,
        classes=tuple(CLASSES[number] for number in tables.class_number.tolist()),
        definitions=tuple(tables.definitions),
        words=_Words(tables),
        lemmas=_Lemmas(tables.lemmas),
    )


class _Words(Mapping[str, tuple[WordSense, ...]]):
    # 200,000 meanings as objects would take longer to make than all the rest takes to load
    def __init__(self, tables: WordnetTables) -> None:
        self.number = {word.replace("_", " "): i for i, word in enumerate(tables.words)}
        self.start = tables.word_start.tolist()
        self.sense, self.count, self.sense_number = (
            array("i", column.astype(np.intc).tobytes())
            for column in (tables.word_sense, tables.word_count, tables.word_number)
        )

    def __getitem__(self, word: str) -> tuple[WordSense, ...]:
        at = self.number[word]
        meanings = range(self.start[at], self.start[at + 1])
        return tuple(WordSense(self.sense[i], self.count[i], self.sense_number[i]) for i in meanings)

    def __iter__(self) -> Iterator[str]:
        return iter(self.number)

    def __len__(self) -> int:
        return len(self.number)


class _Lemmas(Sequence[tuple[str, ...]]):
    def __init__(self, joined: list[str]) -> None:
        self.joined = joined

    @overload
    def __getitem__(self, index: int) -> tuple[str, ...]: ...
    @overload
    def __getitem__(self, index: slice) -> "_Lemmas": ...
    def __getitem__(self, index: int | slice) -> "tuple[str, ...] | _Lemmas":
        if isinstance(index, slice):
            return _Lemmas(self.joined[index])
        return tuple(self.joined[index].replace("_", " ").split("\t"))

    def __len__(self) -> int:
        return len(self.joined)
