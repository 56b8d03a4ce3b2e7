"""A taxonomy of senses: who is a kind of what, and which words mean it. Where it was read from does not matter here."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

# path distance of senses that nothing connects
UNCONNECTED = 255


@dataclass(frozen=True, slots=True)
class WordSense:
    """One meaning of a word.

    count: how often the word was found with this sense in tagged text; 0 if unknown. number: of the sense among those
    of the word and part of speech, from 1, the most frequent first.
    """

    sense: int
    count: int
    number: int


@dataclass(frozen=True, eq=False)
class Taxonomy:
    """Senses, numbered from 0.

    source: what it is, for readers and fingerprints (name and digest). names: e.g. `dog.n.01`. pos: n, v, a, s or r of
    each sense. parent, parent_start: the parents of sense i are parent[parent_start[i] : parent_start[i + 1]], in the
    order of the file. classes: the lexicographer's file of each sense, e.g. noun.animal, or the JSON's class.
    definitions: without quoted examples. words: lower case -> senses, by part of speech and number. lemmas: the words
    of each sense as they are spelled (Paris), in the order of the file.
    """

    source: str
    names: tuple[str, ...]
    pos: tuple[str, ...]
    parent: Int[np.ndarray, "edge"]
    parent_start: Int[np.ndarray, "sense_and_one"]
    classes: tuple[str, ...]
    definitions: tuple[str, ...]
    words: Mapping[str, tuple[WordSense, ...]]
    lemmas: Sequence[tuple[str, ...]]

    def parents(self, sense: int) -> Int[np.ndarray, "parent"]:
        """The senses that one is a kind of."""
        return self.parent[self.parent_start[sense] : self.parent_start[sense + 1]]
