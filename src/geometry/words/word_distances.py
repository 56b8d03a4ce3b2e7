"""Distances between words, from those of their senses."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from jaxtyping import UInt8

from src.geometry.lexicon.distances import path_distances
from src.geometry.lexicon.taxonomy import Taxonomy
from src.geometry.words.matching import Word

SenseRule = Literal["frequent", "any"]


def word_distances(taxonomy: Taxonomy, words: Sequence[Word], rule: SenseRule) -> UInt8[np.ndarray, "word word"]:
    """Path distances of words in edges, UNCONNECTED where nothing connects them.

    rule: `frequent` = of the chosen senses; `any` = the least over all pairs of senses, so the largest similarity.
    """
    if rule == "frequent":
        return path_distances(taxonomy, [word.senses[0] for word in words])
    all_senses = [sense for word in words for sense in word.senses]
    starts = np.cumsum([0, *(len(word.senses) for word in words[:-1])])
    between = path_distances(taxonomy, all_senses)
    return np.minimum.reduceat(np.minimum.reduceat(between, starts, axis=0), starts, axis=1)
