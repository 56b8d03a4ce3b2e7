"""WordNet's database files as tables of numbers and strings (man pages wndb(5WN), cntlist(5WN), lexnames(5WN))."""

import re
from array import array
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int32, Int64, UInt8

from src.errors import StrataError
from src.geometry.lexicon.database import PARTS, Database
from src.geometry.lexicon.tagged_counts import TaggedCounts

# lexnames(5WN): the lexicographer's file of a synset, by its number
CLASSES = (
    *("adj.all", "adj.pert", "adv.all"),
    *(
        f"noun.{topic}"
        for topic in (
            *(
                "Tops",
                "act",
                "animal",
                "artifact",
                "attribute",
                "body",
                "cognition",
                "communication",
                "event",
                "feeling",
            ),
            *(
                "food",
                "group",
                "location",
                "motive",
                "object",
                "person",
                "phenomenon",
                "plant",
                "possession",
                "process",
            ),
            *("quantity", "relation", "shape", "state", "substance", "time"),
        )
    ),
    *(
        f"verb.{topic}"
        for topic in (
            *("body", "change", "cognition", "communication", "competition", "consumption", "contact", "creation"),
            *("emotion", "motion", "perception", "possession", "social", "stative", "weather"),
        )
    ),
    "adj.ppl",
)
_ABOVE = ("@", "@i")  # hypernym, instance hypernym
# the adjectives' file marks where a word may stand: galore(ip)
_MARKER = re.compile(r"\((?:a|p|ip)\)$")
_QUOTED = re.compile(r'"[^"]*"')


@dataclass(frozen=True, eq=False)
class WordnetTables:
    """A parsed database: what is kept of it, in the form in which it is cached.

    names, definitions: of each synset. lemmas: of each synset, as the file spells them, with tabs between. pos: a
    letter of each. class_number: index into CLASSES. words: lower case, with underscores, in alphabetical order; the
    senses of word i are word_sense[word_start[i] : word_start[i + 1]], with their numbers and counts.
    """

    names: list[str]
    lemmas: list[str]
    definitions: list[str]
    words: list[str]
    pos: UInt8[np.ndarray, "synset"]
    class_number: UInt8[np.ndarray, "synset"]
    parent: Int32[np.ndarray, "edge"]
    parent_start: Int32[np.ndarray, "synset_and_one"]
    word_start: Int32[np.ndarray, "word_and_one"]
    word_sense: Int32[np.ndarray, "meaning"]
    word_number: Int32[np.ndarray, "meaning"]
    word_count: Int32[np.ndarray, "meaning"]


def parse_database(database: Database) -> WordnetTables:
    """Parse data.*, index.* and, if it is there, cntlist.rev (else all counts are 0).

    Raises:
        StrataError: a line that is not of this format, a pointer to nowhere, or data without its index.
    """
    parts = {part: pos for part, pos in PARTS.items() if f"data.{part}" in database.members}
    if missing := [f"index.{part}" for part in parts if f"index.{part}" not in database.members]:
        raise StrataError(f"{database.place} has no {' and no '.join(missing)}, but the data: it is not whole")
    tagged = TaggedCounts(database)
    synsets = _Synsets(database, tagged)
    for part, pos in parts.items():
        _read_data(database, part, pos, synsets)
    if not synsets.pos:
        raise StrataError(f"{database.place}: there are no synsets in its files")
    meanings = _Meanings(tagged.of_words())
    # senses of a word come by part of speech, nouns first
    for part, pos in sorted(parts.items(), key=lambda item: "nvar".index(item[1])):
        _read_index(database, part, pos, synsets, meanings)
    order = sorted(meanings.words)
    rank = np.empty(len(order), np.int64)
    rank[[meanings.words[word] for word in order]] = np.arange(len(order))
    word = rank[np.array(meanings.word, np.int64)]
    by_word = np.argsort(word, kind="stable")
    return WordnetTables(
        names=synsets.names(),
        lemmas=synsets.lemmas,
        definitions=synsets.definitions,
        words=order,
        pos=np.array(synsets.pos, np.uint8),
        class_number=np.array(synsets.class_number, np.uint8),
        parent=synsets.numbers_of_parents(),
        parent_start=_starts(np.array(synsets.parents)),
        word_start=_starts(np.bincount(word, minlength=len(order))),
        word_sense=np.array(meanings.sense, np.int32)[by_word],
        word_number=np.array(meanings.number, np.int32)[by_word],
        word_count=np.array(meanings.count, np.int32)[by_word],
    )


class _Synsets:
    """Synsets as they are read; arrays of machine numbers, since lists of objects would take three times the memory."""

    def __init__(self, database: Database, tagged: TaggedCounts) -> None:
        self.database, self.tagged = database, tagged
        self.number: dict[int, int] = {}  # key of the synset -> its number
        self.pos, self.class_number = array("B"), array("B")
        self.lemmas: list[str] = []
        self.definitions: list[str] = []
        self.parents, self.parent = array("q"), array("q")  # how many each has; keys of all
        self.sense_of_first: dict[int, int] = {}  # which sense of its first lemma a synset is

    @staticmethod
    def key(pos: str, offset: str) -> int:
        """One number for part of speech and offset; satellites are adjectives."""
        return int(offset) * 4 + "nvar".index("a" if pos == "s" else pos)

    def numbers_of_parents(self) -> Int32[np.ndarray, "edge"]:
        try:
            return np.fromiter((self.number[key] for key in self.parent), np.int32, len(self.parent))
        except KeyError as error:
            offset, pos = divmod(error.args[0], 4)
            place = self.database.place
            raise StrataError(
                f"{place}: a hypernym is not there: {offset:08} of part of speech {'nvar'[pos]}"
            ) from error

    def names(self) -> list[str]:
        """As NLTK has them: the first lemma, the part of speech, and which sense of the lemma it is."""
        found = []
        for number, (lemmas, pos) in enumerate(zip(self.lemmas, self.pos, strict=True)):
            first = lemmas.partition("\t")[0].lower()
            if number not in self.sense_of_first:
                raise StrataError(f"{self.database.place}: {first} ({chr(pos)}) is not in the index")
            found.append(f"{first}.{chr(pos)}.{self.sense_of_first[number]:02}")
        return found


class _Meanings:
    """Which word means which synset, as they are read."""

    def __init__(self, counts: dict[tuple[int, str], int]) -> None:
        self.counts = counts
        self.words: dict[str, int] = {}
        self.word, self.sense, self.number, self.count = array("q"), array("q"), array("q"), array("q")


def _read_data(database: Database, part: str, pos: str, synsets: _Synsets) -> None:
    name = f"data.{part}"
    for line_number, line in database.lines(name):
        try:
            head, gloss = line.split("|", 1)
            fields = head.split()
            words = int(fields[3], 16)
            first = 5 + 2 * words
            last = first + 4 * int(fields[first - 1])
            above = [i for i in range(first, last, 4) if fields[i] in _ABOVE and fields[i + 3] == "0000"]
            lemmas = fields[4 : first - 1 : 2]
            if int(fields[1]) >= len(CLASSES) or not lemmas:
                raise ValueError
            if pos == "a":
                lemmas = [_MARKER.sub("", lemma) for lemma in lemmas]
            heads = [fields[i + 1] for i in range(first, last, 4) if fields[i] == "&"] if fields[2] == "s" else []
            synsets.tagged.see(len(synsets.pos), fields, lemmas, heads)
            synsets.parent.extend(synsets.key(fields[i + 2], fields[i + 1]) for i in above)
            synsets.parents.append(len(above))
            synsets.number[synsets.key(pos, fields[0])] = len(synsets.pos)
            synsets.class_number.append(int(fields[1]))
            synsets.pos.append(ord(fields[2]))
            synsets.lemmas.append("\t".join(lemmas))
            synsets.definitions.append(_QUOTED.sub("", gloss).strip().strip("; "))
        except (ValueError, IndexError, KeyError) as error:
            raise database.wrong(name, line_number) from error


def _read_index(database: Database, part: str, pos: str, synsets: _Synsets, meanings: _Meanings) -> None:
    name = f"index.{part}"
    for line_number, line in database.lines(name):
        fields = line.split()
        try:
            word, offsets = fields[0], fields[-int(fields[2]) :]
            senses = [synsets.number[synsets.key(pos, offset)] for offset in offsets]
        except (ValueError, IndexError, KeyError) as error:
            raise database.wrong(name, line_number) from error
        at = meanings.words.setdefault(word, len(meanings.words))
        for number, sense in enumerate(senses, 1):
            meanings.word.append(at)
            meanings.sense.append(sense)
            meanings.number.append(number)
            meanings.count.append(meanings.counts.get((sense, word), 0))
            if synsets.lemmas[sense].partition("\t")[0].lower() == word:
                synsets.sense_of_first[sense] = number


def _starts(counts: Int64[np.ndarray, "list"]) -> Int32[np.ndarray, "list_and_one"]:
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
