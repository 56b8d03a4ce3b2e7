"""Which words of a taxonomy tokens' vectors are made from, and which are kept for evaluation."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from src.errors import NotApplicableError
from src.geometry.lexicon.taxonomy import Taxonomy
from src.geometry.words.matching import FEWEST_WORDS, Matches, Word


@dataclass(frozen=True)
class WordSplit:
    """Words of one token each, every list in the order of the matches.

    anchors: tokens' vectors are made from their relations. evaluated: no relation of theirs takes part, and no sense of
    theirs is one of an anchor's. others: left out of both, over the limit on anchors or with a sense on either side.
    scored: senses that something else is judged by (definitions, say): the relations of words that have one take no
    part either.
    """

    anchors: tuple[Word, ...]
    evaluated: tuple[Word, ...]
    others: tuple[Word, ...]
    scored: frozenset[int] = frozenset()

    @property
    def words(self) -> tuple[Word, ...]:
        """All of them, anchors first."""
        return self.anchors + self.evaluated + self.others

    @property
    def judged_senses(self) -> frozenset[int]:
        """Senses whose relations take no part in vectors: of evaluated words, and what else is scored."""
        return self.scored.union(*(word.senses for word in self.evaluated))


def split_words(taxonomy: Taxonomy, matches: Matches, held_out: float, max_anchors: int, seed: int) -> WordSplit:
    """Draw whole synsets for evaluation, and anchors among the words that share no sense with them (BUG G-7).

    Words of one chosen sense are never parted. A word that could be an anchor, but has an evaluated word's sense among
    its rarer ones (or the other way round), is neither. Words of several tokens have no row in a table of tokens, and
    take no part.

    Args:
        taxonomy: where the words are from, for messages.
        matches: words of the taxonomy that the model has tokens for.
        held_out: share of the words that is evaluated on, about.
        max_anchors: anchors that are drawn at most.
        seed: of the draw.

    Raises:
        NotApplicableError: too few words are left on either side.
    """
    words = [word for word in matches.words if len(word.token_ids) == 1]
    draws = np.random.default_rng([seed, 11])
    synsets, synset = np.unique([word.senses[0] for word in words], return_inverse=True)
    place = np.empty(len(synsets), np.int64)
    place[draws.permutation(len(synsets))] = np.arange(len(synsets))
    # whole synsets in a random order, until there are enough words
    sizes = np.bincount(place[synset], minlength=len(synsets))
    before = np.cumsum(sizes) - sizes
    is_evaluated = before[place[synset]] < round(held_out * len(words))
    taken = {sense for word, held in zip(words, is_evaluated, strict=True) if held for sense in word.senses}
    possible = [i for i, word in enumerate(words) if not is_evaluated[i] and taken.isdisjoint(word.senses)]
    chosen = set(possible)
    if len(possible) > max_anchors:
        chosen = set(draws.choice(possible, max_anchors, replace=False).tolist())
    anchors = tuple(word for i, word in enumerate(words) if i in chosen)
    evaluated = tuple(word for i, word in enumerate(words) if is_evaluated[i])
    others = tuple(word for i, word in enumerate(words) if i not in chosen and not is_evaluated[i])
    _refuse_too_few(taxonomy, anchors, evaluated, len(words))
    return WordSplit(anchors, evaluated, others)


def without_anchors(taxonomy: Taxonomy, split: WordSplit, senses: Collection[int]) -> WordSplit:
    """The split with no anchor that has one of these senses, since such words are scored.

    They join the others, and their relations make no vector.

    Raises:
        NotApplicableError: too few anchors are left.
    """
    scored = split.scored.union(senses)
    anchors = tuple(word for word in split.anchors if scored.isdisjoint(word.senses))
    others = split.others + tuple(word for word in split.anchors if not scored.isdisjoint(word.senses))
    _refuse_too_few(taxonomy, anchors, split.evaluated, len(split.words))
    return WordSplit(anchors, split.evaluated, others, scored)


def _refuse_too_few(taxonomy: Taxonomy, anchors: Sequence[Word], evaluated: Sequence[Word], n_words: int) -> None:
    if min(len(anchors), len(evaluated)) < FEWEST_WORDS:
        raise NotApplicableError(
            f"{n_words} words of {taxonomy.source} are single tokens of this model: {len(anchors)} of them can be "
            f"anchors and {len(evaluated)} be evaluated, and {FEWEST_WORDS} of each are needed: choose a larger "
            "taxonomy (lexicon.taxonomy=wordnet for English), or another lexicon.held_out"
        )
