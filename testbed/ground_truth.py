"""What is true of every word of a text, from the text and the generators alone: boolean latents to look for.

`find` gives the words of a document that each latent holds at. A latent holds at a word where the words up to and
including it say so (as far as the document's topic is concerned: where they say so sooner or later), and what is "next"
holds at the word before, where a model must know it. Words count from 0, without BOS.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache

from testbed.facts import spaced
from testbed.language import TOPICS
from testbed.lexicon import (
    DIGITS,
    EMOTION_OF,
    EMOTIONS,
    EVENTS,
    HE_NAMES,
    HOURS,
    KIND_OF,
    KINDS,
    MONTHS,
    NAMES,
    NUMBERS,
    OBJECTS,
    PARENT,
    PLACES,
    PRONOUN,
    REACTIONS,
    SEASONS,
    WEEKDAYS,
    ancestors,
)  # fmt: skip


@dataclass(frozen=True)
class Latent:
    """Something that holds at some words of the corpus and not at others."""

    group: str
    name: str


@dataclass(frozen=True)
class Marked:
    """A document: its words, its topic, and the words that the text before them determines: index -> skill."""

    words: Sequence[str]
    topic: str
    answers: dict[int, str]


Found = Iterator[tuple[str, str, int]]  # group, name and word at which the latent holds

# what makes a sum, at the sign before it: is there a carry into the tens, and one into the hundreds?
CARRY, NO_CARRY, BEFORE_TENS = "carry into the tens", "no carry into the tens", "before the tens digit"
LAST_OPERAND, AT_SIGN, OVER, UNDER = "at the last operand digit", "at the = sign", "sum 100 or more", "sum below 100"
PLACES_OF_DIGITS = ("ones", "tens", "hundreds")
MAX_ECHO = 8

LATENTS: tuple[Latent, ...] = tuple(
    Latent(group, name)
    for group, names in {
        "weekdays": WEEKDAYS,
        "months": MONTHS,
        "hours and numbers": NUMBERS,
        "digits": DIGITS,
        "next weekday": WEEKDAYS,
        "next month": MONTHS,
        "next hour": HOURS,
        "next digit of a sum": DIGITS,
        "next place of a sum": PLACES_OF_DIGITS,
        "sum's carry": (
            *(f"{carry}, {where}" for carry in (CARRY, NO_CARRY) for where in (LAST_OPERAND, AT_SIGN, BEFORE_TENS)),
            *(f"{carry}, {size}, {AT_SIGN}" for carry in (CARRY, NO_CARRY) for size in (UNDER, OVER)),
            f"{OVER}, {AT_SIGN}",
        ),
        "direction of arithmetic": ("forward", "back"),
        "other answers": (*SEASONS, "longer", "shorter", "yes", "no"),
        "words of emotions": tuple(EMOTIONS),
        "emotion of the passage": tuple(EMOTIONS),
        "next emotion": tuple(EMOTIONS),
        "reactions": tuple(EMOTIONS),
        "kinds": (*KINDS, "animal", "plant", "artefact"),
        "next kind": tuple(kind for kind in PARENT if kind != "organism"),
        "people, things, places": ("man's name", "woman's name", "person", "thing", "place"),
        "next in a story": ("he", "she", "person", "thing", "place"),
        "referent of a pronoun": NAMES,
        "echoes": ("said first", "said again", "first of a pair", "second of a pair", "next is copied"),
        "position in an echo": tuple(str(i + 1) for i in range(MAX_ECHO)),
        "topics": tuple(TOPICS),
    }.items()
    for name in names
)


def find(document: Marked) -> dict[Latent, set[int]]:
    """The words at which each latent holds; latents that hold nowhere are left out."""
    places: dict[Latent, set[int]] = {}
    for parse in _PARSERS:
        for group, name, index in parse(document):
            places.setdefault(Latent(group, name), set()).add(index)
    return places


def _words_themselves(document: Marked) -> Found:
    classes = {"weekdays": WEEKDAYS, "months": MONTHS, "hours and numbers": NUMBERS, "digits": DIGITS}
    group_of = {word: group for group, words in classes.items() for word in words}
    for i, word in enumerate(document.words):
        yield "topics", document.topic, i
        if word in group_of:
            yield group_of[word], word, i
        if word in EMOTION_OF:
            yield "words of emotions", EMOTION_OF[word], i
        if word in KIND_OF:
            yield "kinds", KIND_OF[word], i
            yield "kinds", next(above for above in ancestors(word) if above in ("animal", "plant", "artefact")), i


def _answers(document: Marked) -> Found:
    words = document.words
    for i, skill in document.answers.items():
        word, before = words[i], i - 1  # no text begins with an answer
        if word in WEEKDAYS:
            yield "next weekday", word, before
        elif word in MONTHS:
            yield "next month", word, before
        elif word in HOURS and skill.startswith("clock") and skill != "clock distance":
            yield "next hour", word, before
        elif skill == "sums":
            yield "next digit of a sum", word, before
        elif skill == "emotions" and word in EMOTION_OF:
            yield "next emotion", EMOTION_OF[word], before
        elif skill == "kinds" and word in PARENT and word != "organism":
            yield "next kind", word, before
        elif skill in ("pronouns", "emotions") and word in ("he", "she"):
            yield "next in a story", word, before
        elif skill.startswith("recall"):
            yield "next in a story", "person" if word in NAMES else "place", before
        elif skill == "pronouns" and word in OBJECTS:
            yield "next in a story", "thing", before
        elif skill.startswith("echoes"):
            yield "echoes", "next is copied", before
        if word in (*SEASONS, "longer", "shorter", "yes", "no"):
            yield "other answers", word, before
        if skill.endswith("arithmetic"):
            back = {"before", "earlier", "ago"} & set(words[_sentence_start(words, i) : i])
            yield "direction of arithmetic", "back" if back else "forward", before


def _sentence_start(words: Sequence[str], i: int) -> int:
    return next((j + 1 for j in range(i - 1, -1, -1) if words[j] == "."), 0)


def _sums(document: Marked) -> Found:
    """Sums as texts write them, the most significant digit first: a carry is needed before the digit that makes it."""
    words = document.words
    for plus in (i for i, word in enumerate(words) if word == "+"):
        low, mark = plus, plus + 1
        while low > 0 and words[low - 1] in DIGITS:
            low -= 1
        while mark < len(words) and words[mark] in DIGITS:
            mark += 1
        a, b = int("".join(words[low:plus])), int("".join(words[plus + 1 : mark]))
        answer = spaced(a + b).split(" ")
        if list(words[mark + 1 : mark + 1 + len(answer)]) != answer:
            raise ValueError(f"{' '.join(words[low : mark + 4])} is no sum of this language")
        for i in range(len(answer)):
            yield "next place of a sum", PLACES_OF_DIGITS[len(answer) - 1 - i], mark + i
        carry = CARRY if a % 10 + b % 10 >= 10 else NO_CARRY
        if mark - plus == 3:  # after one digit of b another may follow; after two, none
            yield "sum's carry", f"{carry}, {LAST_OPERAND}", mark - 1
        if len(answer) > 1:
            yield "sum's carry", f"{carry}, {BEFORE_TENS}", mark + len(answer) - 2
        yield "sum's carry", f"{carry}, {AT_SIGN}", mark
        yield "sum's carry", f"{carry}, {OVER if a + b >= 100 else UNDER}, {AT_SIGN}", mark
        if a + b >= 100:
            yield "sum's carry", f"{OVER}, {AT_SIGN}", mark


# What else a person can do with the first words of an event: the stories.
_OTHER_STARTS = (("had", "the"), ("found", "the"))


@cache
def _events() -> dict[tuple[str, ...], tuple[str, int]]:
    """Event -> (emotion, number of its words after which no event of another emotion is possible)."""
    events = {
        tuple(event.format(p=p).split(" ")): emotion
        for emotion, phrases in EVENTS.items()
        for event in phrases
        for p in ("his", "her")
    }

    def needed(event: tuple[str, ...], emotion: str) -> int:
        others = [*(other for other, name in events.items() if name != emotion), *_OTHER_STARTS]
        return next(n for n in range(1, len(event) + 1) if all(other[:n] != event[:n] for other in others))

    return {event: (emotion, needed(event, emotion)) for event, emotion in events.items()}


def _event_at(words: Sequence[str], i: int) -> tuple[str, int] | None:
    """The emotion of the event that begins at a word, and the word at which the text has told the emotion."""
    if i == 0 or words[i - 1] not in (*NAMES, "he", "she"):
        return None
    for event, (emotion, n) in _events().items():
        if tuple(words[i : i + len(event)]) == event:
            return emotion, i + n - 1
    return None


def _emotions(document: Marked) -> Found:
    """A passage goes from the word that tells the emotion (of an event, or a feeling) to the end of a sentence.

    It is the sentence that draws the consequence: a feeling or a reaction.
    """
    words = document.words
    emotion: str | None = None
    starts: int = 0
    is_drawn = False
    for i, word in enumerate(words):
        event = _event_at(words, i)
        if event is not None and emotion is None:
            (emotion, starts), is_drawn = event, False
        elif word in EMOTION_OF and emotion is None:  # "why was ben happy ?"
            emotion, starts, is_drawn = EMOTION_OF[word], i, True
        if emotion is None:
            continue
        if i >= starts:
            yield "emotion of the passage", emotion, i
        if word in EMOTION_OF:
            is_drawn = True
        elif word in REACTIONS[emotion] and event is None:
            yield "reactions", emotion, i
            is_drawn = True
        if word == "." and is_drawn:
            emotion = None


def _people(document: Marked) -> Found:
    words = document.words
    last: str | None = None
    for i, word in enumerate(words):
        before = words[max(i - 2, 0) : i]
        if word in NAMES:
            last = word
            yield "people, things, places", "person", i
            yield "people, things, places", "man's name" if word in HE_NAMES else "woman's name", i
        elif word in ("he", "she") and last is not None and PRONOUN[last] == word:
            yield "referent of a pronoun", last, i
        elif document.topic == "stories" and word in OBJECTS:
            yield "people, things, places", "thing", i
        elif word in PLACES and before in (["in", "the"], ["to", "the"]):
            yield "people, things, places", "place", i


def _echoes(document: Marked) -> Found:
    words = document.words
    earlier: list[str] = []
    for i, verb in enumerate(words[:-1]):
        if verb not in ("said", "chose") or words[i + 1] != ":":
            continue
        end = words.index(".", i)
        told = list(words[i + 2 : end])
        if verb == "said":
            again = told == earlier
            for position in range(len(told)):
                yield "echoes", "said again" if again else "said first", i + 2 + position
                yield "position in an echo", str(position + 1), i + 2 + position
            earlier = [] if again else told
        else:
            for position in range(0, len(told), 3):
                yield "echoes", "first of a pair", i + 2 + position
                yield "echoes", "second of a pair", i + 3 + position


_PARSERS: tuple[Callable[[Marked], Found], ...] = (_words_themselves, _answers, _sums, _emotions, _people, _echoes)
