"""How often a word was tagged with a synset (cntlist.rev), by sense keys (man pages cntlist(5WN), senseidx(5WN)).

The file numbers the senses too, but not all as index.* does: 713 of WordNet 3.0's 37,387 numbers are others.
"""

from collections.abc import Sequence

from src.geometry.lexicon.database import COUNTS, Database

_SYNSET_TYPES = {"n": 1, "v": 2, "a": 3, "r": 4, "s": 5}


class TaggedCounts:
    """Counts of a database's words, matched with its synsets as these are read."""

    def __init__(self, database: Database) -> None:
        self._counts = _read(database) if COUNTS in database.members else {}
        self._found: dict[tuple[int, str], int] = {}
        # keys of satellites end in the first word of their head, which may come later in the file
        self._first_words: dict[str, str] = {}
        self._satellites: list[tuple[int, str, str, str]] = []

    def see(self, synset: int, fields: Sequence[str], lemmas: Sequence[str], heads: Sequence[str]) -> None:
        """A synset's line in data.*.

        Args:
            synset: its number.
            fields: of the line.
            lemmas: its words without markers.
            heads: offsets of a satellite's head.

        Raises:
            ValueError: an id of a word that is no hexadecimal number.
        """
        words = [lemma.lower() for lemma in lemmas]
        ids = [f"{int(lex_id, 16):02}" for lex_id in fields[5 : 5 + 2 * len(words) : 2]]
        keys = [
            f"{word}%{_SYNSET_TYPES[fields[2]]}:{fields[1]}:{lex_id}:" for word, lex_id in zip(words, ids, strict=True)
        ]
        if fields[2] == "s":
            self._satellites += [(synset, word, key, heads[0]) for word, key in zip(words, keys, strict=True)]
            return
        if fields[2] == "a":
            self._first_words[fields[0]] = f"{words[0]}:{ids[0]}"
        self._keep(synset, words, [f"{key}:" for key in keys])

    def of_words(self) -> dict[tuple[int, str], int]:
        """(synset, word in lower case with underscores) -> count; only those that were found in the tagged text."""
        for synset, word, key, head in self._satellites:
            self._keep(synset, [word], [key + self._first_words.get(head, ":")])
        return self._found

    def _keep(self, synset: int, words: Sequence[str], keys: Sequence[str]) -> None:
        for word, key in zip(words, keys, strict=True):
            if key in self._counts:
                self._found[synset, word] = self._counts[key]


def _read(database: Database) -> dict[str, int]:
    found = {}
    for line_number, line in database.lines(COUNTS):
        try:
            key, _, count = line.split()
            found[key] = int(count)
        except ValueError as error:
            raise database.wrong(COUNTS, line_number) from error
    return found
