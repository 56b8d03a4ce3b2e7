"""Draws with an exact code length, and the page that a document is written on.

The generators themselves are in `facts.py` (calendar, clock, sums, kinds), `stories.py`, `tales.py` (emotions,
descriptions, diaries) and `chats.py`; this module holds what they share, the mixture of topics, and the sampling of
whole documents.

**Code length.** `Draws` adds -ln p of every random choice to `nats`. Frames are made so that each choice can be read
off the text, so for a document the sum is -ln of its probability under the generator: its exact code length, which no
model can beat on average (tests enumerate the sentences to show it). Conversations are the exception: how long they
tend to be is drawn but not shown, so there the sum is an upper bound.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

T = TypeVar("T")
MARK = "^"  # in a frame, written before a word that the text so far determines; never part of the text
_LOG = [0.0] + [math.log(n) for n in range(1, 20001)]


class Draws:
    """Random choices, with the sum of their -ln p in `nats`."""

    def __init__(self, seed: int | str) -> None:
        self._random = random.Random(seed)
        self.nats = 0.0

    def below(self, n: int) -> int:
        """A uniform integer in [0, n)."""
        self.nats += _LOG[n]
        return int(self._random.random() * n)

    def choice(self, options: Sequence[T]) -> T:
        """One of `options`, all equally likely. They must be distinct, or the code length is only a bound."""
        return options[self.below(len(options))]

    def between(self, low: int, high: int) -> int:
        """A uniform integer in [low, high], both ends included."""
        return low + self.below(high - low + 1)

    def chance(self, p: float) -> bool:
        """True with probability p."""
        hit = self._random.random() < p
        self.nats -= math.log(p if hit else 1 - p)
        return hit

    def weighted(self, weights: dict[T, float]) -> T:
        """A key, with probability proportional to its weight."""
        total = sum(weights.values())
        point = self._random.random() * total
        chosen = next(reversed(weights))  # where rounding leaves the point beyond the last weight
        for key, weight in weights.items():
            point -= weight
            if point < 0:
                chosen = key
                break
        self.nats -= math.log(weights[chosen] / total)
        return chosen

    def sample(self, options: Sequence[T], k: int) -> list[T]:
        """Draw k different options in the order in which they were drawn."""
        left = list(options)
        return [left.pop(self.below(len(left))) for _ in range(k)]

    def length(self, low: int, stop: float, high: int) -> int:
        """A length in [low, high]: `low`, then one more until a stop of probability `stop` (forced at `high`)."""
        n = low
        while n < high and not self.chance(stop):
            n += 1
        return n


@dataclass
class Page:
    """The sentences of a document under way. `answers` holds (index of the word, skill) of the determined words."""

    draws: Draws
    words: list[str] = field(default_factory=list)
    answers: list[tuple[int, str]] = field(default_factory=list)

    def say(self, sentence: str, skill: str = "") -> None:
        """Append a sentence. Its words marked with ^ are counted as answers of `skill`."""
        if MARK not in sentence:
            self.words += sentence.split(" ")
            return
        for word in sentence.split(" "):
            if word[0] == MARK:
                word = word[1:]
                if skill:
                    self.answers.append((len(self.words), skill))
            self.words.append(word)

    def sentences(self, one: Callable[[Page], None], low: int, stop: float, limit: int) -> None:
        """Call `one` at least `low` times, then until a stop draw, or until the page has more than `limit` words.

        The limit can be read off the text, so a forced stop costs nothing.
        """
        count = 0
        while len(self.words) <= limit:
            one(self)
            count += 1
            if count >= low and len(self.words) <= limit and self.draws.chance(stop):
                return


@dataclass(frozen=True)
class Document:
    """A finished document. `nats` is its code length, the choice of topic and the end of the text included."""

    text: str
    topic: str
    nats: float
    answers: tuple[tuple[int, str], ...]  # (index of the word in the text, skill that determines it)

    @property
    def tokens(self) -> int:
        """Predicted tokens: the words and the EOS after them."""
        return self.text.count(" ") + 2


# Shares of documents (not of tokens). `TOPICS` is the corpus. The others open the two stages of training: `DRILL` is
# rich in arithmetic, in copying and in looking back; `LADDER` leads from copying to facts that only the text tells.
TOPICS: dict[str, float] = {
    "days": 0.12, "months": 0.18, "clock": 0.12, "sums": 0.11, "kinds": 0.12, "stories": 0.16,
    "emotions": 0.06, "descriptions": 0.04, "diaries": 0.04, "echoes": 0.03, "notes": 0.02,
}  # fmt: skip
DRILL: dict[str, float] = {
    "days": 0.08, "months": 0.17, "clock": 0.11, "sums": 0.08, "kinds": 0.09, "echoes": 0.14,
    "stories": 0.08, "retellings": 0.09, "inventories": 0.13, "emotions": 0.01, "descriptions": 0.01, "diaries": 0.01,
}  # fmt: skip
LADDER: dict[str, float] = {
    "days": 0.02, "months": 0.04, "clock": 0.03, "sums": 0.05, "kinds": 0.12, "echoes": 0.04, "links": 0.24,
    "stories": 0.16, "retellings": 0.12, "inventories": 0.16, "emotions": 0.01, "diaries": 0.01,
}  # fmt: skip


def writers() -> dict[str, Callable[[Page], None]]:
    """Topic -> the function that writes a document of it. Facts and tales import this module, hence here."""
    from testbed import facts, stories, tales

    return {
        "days": facts.days, "months": facts.months, "clock": facts.clock, "sums": facts.sums, "kinds": facts.kinds,
        "stories": stories.stories, "emotions": tales.emotions, "descriptions": tales.descriptions,
        "diaries": tales.diaries, "notes": tales.notes, "retellings": stories.retellings,
        "echoes": stories.echoes, "inventories": stories.inventories, "links": stories.links,
    }  # fmt: skip


def document(seed: int | str, weights: dict[str, float] = TOPICS) -> Document:
    """The document of a seed: the same seed and weights give the same document on every machine."""
    draws = Draws(seed)
    topic = draws.weighted(weights)
    page = Page(draws)
    writers()[topic](page)
    return Document(" ".join(page.words), topic, draws.nats, tuple(page.answers))
