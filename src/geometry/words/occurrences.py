"""Words where they stand in running text: a model's states there, averaged, are what it makes of the word in use."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn.functional import embedding_bag

from src.activations.token_choice import TokenBlock
from src.geometry.words.matching import Word
from src.geometry.words.passages import Passages, choice_of
from src.text import Keep, TokenSequence

_OCCURRENCES_AT_ONCE = 4096


@dataclass(frozen=True, eq=False)
class Occurrences:
    """Chosen occurrences of words. count: of each word in all the text, chosen or not.

    named: occurrences behind a word for a kind of theirs, which were passed over.
    """

    sequence: Int64[np.ndarray, "occurrence"]
    position: Int64[np.ndarray, "occurrence"]
    word: Int64[np.ndarray, "occurrence"]
    count: Int64[np.ndarray, "word"]
    named: int


def find_occurrences(
    blocks: Iterable[TokenBlock],
    words: Sequence[Word],
    kinds_of_word: Mapping[int, Sequence[int]],
    per_word: int,
) -> Occurrences:
    """The first so many occurrences of each word of one token, in the order of the text.

    An occurrence behind a word for a kind of its own ("which is a flower, the flute or the lily") is passed over: a
    state that has just read the kind says nothing of what the model knows of the word.

    Args:
        blocks: running text, whole sequences; only counted tokens are taken.
        words: those of several tokens are not looked for.
        kinds_of_word: the words (indices) for senses above that of each word.
        per_word: occurrences that are taken of each.
    """
    single = {word.token_ids[0]: place for place, word in enumerate(words) if len(word.token_ids) == 1}
    largest = max(single, default=0)
    word_of = np.full(largest + 2, -1)
    word_of[list(single)] = list(single.values())
    kinds = {word: np.array(above) for word, above in kinds_of_word.items() if len(above)}
    count, taken = np.zeros(len(words), np.int64), np.zeros(len(words), np.int64)
    found: list[tuple[int, int, int]] = []
    named = 0
    for block in blocks:
        word_at = word_of[np.minimum(block.token_ids, largest + 1)]
        here = np.flatnonzero((word_at >= 0) & (block.keep == Keep.COUNTED))
        count += np.bincount(word_at[here], minlength=len(words))
        for row in here[taken[word_at[here]] < per_word].tolist():
            word = int(word_at[row])
            if taken[word] >= per_word:
                continue
            before = word_at[row - int(block.position[row]) : row]
            if word in kinds and np.isin(kinds[word], before).any():
                named += 1
                continue
            taken[word] += 1
            found.append((int(block.sequence[row]), int(block.position[row]), word))
    table = np.array(found, np.int64).reshape(-1, 3)
    return Occurrences(table[:, 0], table[:, 1], table[:, 2], count, named)


def at_occurrences(found: Occurrences, words: Sequence[Word], sequences: list[TokenSequence] | None) -> Passages:
    """The occurrences, averaged for each word that has one; sequences: None where the text lies in a store."""
    having = np.unique(found.word)
    ids = np.array([word.token_ids[0] for word in words])[found.word]
    point = np.searchsorted(having, found.word)
    order = np.lexsort([found.position, found.sequence, point])
    chosen = choice_of(found.sequence[order], found.position[order], ids[order], point[order], n_points=len(having))
    return Passages(sequences, chosen, having)


def words_around(
    blocks: Iterable[TokenBlock], passages: Passages, table: Float[Tensor, "row d"]
) -> Float[Tensor, "word d"]:
    """What the texts alone give: the mean embedding row of the other counted tokens of each occurrence's sequence.

    A model that knows nothing of words still mixes these into its states; the word's own token does not take part.
    """
    chosen = passages.chosen
    sums = torch.zeros(chosen.n_points, table.shape[1], dtype=torch.float64)
    filled = torch.zeros(chosen.n_points, dtype=torch.float64)
    for block in blocks:
        if not len(block.sequence):
            continue
        here = np.flatnonzero((chosen.sequence >= block.sequence[0]) & (chosen.sequence <= block.sequence[-1]))
        for first in range(0, len(here), _OCCURRENCES_AT_ONCE):
            some = here[first : first + _OCCURRENCES_AT_ONCE]
            start, stop = (np.searchsorted(block.sequence, chosen.sequence[some], side) for side in ("left", "right"))
            bag = np.repeat(np.arange(len(some)), stop - start)
            rows = np.arange(len(bag)) + np.repeat(start - np.cumsum(stop - start) + (stop - start), stop - start)
            other = (block.keep[rows] == Keep.COUNTED) & (block.token_ids[rows] != chosen.token_id[some][bag])
            ids, bag = block.token_ids[rows][other], bag[other]
            used, place = np.unique(ids, return_inverse=True)
            offsets = np.searchsorted(bag, np.arange(len(some)))
            means = embedding_bag(
                torch.from_numpy(place), table[torch.from_numpy(used).long()].double(), torch.from_numpy(offsets)
            )
            point = torch.from_numpy(chosen.point[some])
            sums.index_add_(0, point, means)
            filled.index_add_(0, point, torch.from_numpy(np.bincount(bag, minlength=len(some)) > 0).double())
    return sums / filled.clamp_min(1)[:, None]
