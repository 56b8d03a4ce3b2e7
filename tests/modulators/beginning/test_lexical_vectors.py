"""Vectors of all words of a split."""

import numpy as np
import pytest
import torch

from src.geometry.words.matching import Matches, Word
from src.modulators.beginning.lexical import LexicalVectors, lexical_vectors, words_at
from src.modulators.beginning.relational import RelationalSpace, similarities
from src.modulators.beginning.words import WordSplit, split_words, without_anchors
from tests.fixtures.worded_taxonomy import tree_of_words

_TREE = tree_of_words([4, 4, 4])
_N = len(_TREE.names)


def _split(max_anchors: int = 1000, shared: int = 0) -> WordSplit:
    """All words of the tree, the first of which have a second sense, that of the last words."""
    words = [Word(f"w{i}", f"w{i}", (i,), (i, _N - 1 - i) if i < shared else (i,), 0) for i in range(_N)]
    return split_words(_TREE, Matches(tuple(words), _N, 0, 1.0), 0.3, max_anchors, seed=0)


def _embeddings(noise: float = 0.3) -> torch.Tensor:
    """Embeddings that know the tree, turned, shifted, and with noise."""
    space = RelationalSpace.of(similarities(_TREE, [Word("", "", (i,), (i,), 0) for i in range(_N)], "wu_palmer"), 24)
    draws = np.random.default_rng(0)
    turn = np.linalg.qr(draws.standard_normal((32, 32)))[0][:24]
    return torch.from_numpy(space.vectors @ turn + noise * draws.standard_normal((_N, 32)) * 0.2 + 3).float()


def _vectors(split: WordSplit, embeddings: torch.Tensor) -> LexicalVectors:
    return lexical_vectors(_TREE, split, embeddings, "wu_palmer", 24, 5, 10.0, seed=0)


def test_evaluated_words_follow_the_taxonomy_where_embeddings_do() -> None:
    found = _vectors(_split(), _embeddings())
    quality = found.quality
    assert quality.held_out.n_words == len(_split().evaluated)
    assert quality.held_out.low > quality.held_out.null_high
    assert quality.held_out.p == 0.005
    assert quality.anchors.r > 0.9


def test_evaluated_words_follow_nothing_where_embeddings_are_random() -> None:
    """BUG G-2 and G-7: r of the anchors themselves is high whatever the embeddings are, and says nothing of others."""
    quality = _vectors(_split(), torch.randn(_N, 32, generator=torch.Generator().manual_seed(0))).quality
    assert quality.anchors.r > 0.9
    assert quality.held_out.r < quality.held_out.null_high + 0.1
    assert quality.held_out.r < 0.2


def test_evaluated_words_relations_take_no_part() -> None:
    """BUG G-7: with other embeddings they have other vectors, and with the same ones the taxonomy can't move them."""
    split, embeddings = _split(), _embeddings()
    found = _vectors(split, embeddings)
    n = len(split.anchors)
    # the evaluated words with each other's senses
    mixed = [
        Word(word.text, word.surface, word.token_ids, other.senses, 0)
        for word, other in zip(split.evaluated, reversed(split.evaluated), strict=True)
    ]
    moved = _vectors(WordSplit(split.anchors, tuple(mixed), split.others), embeddings)
    assert torch.equal(found.vectors, moved.vectors)
    assert moved.quality.held_out.r < found.quality.held_out.r - 0.2
    other = embeddings.clone()
    other[found.tokens[n:]] = other[found.tokens[n:]].flip(0)
    assert not torch.allclose(_vectors(split, other).vectors[n:], found.vectors[n:])


def test_words_over_the_limit_are_placed_by_their_relations() -> None:
    split = _split(max_anchors=40)
    assert split.others
    found = _vectors(split, torch.randn(_N, 32, generator=torch.Generator().manual_seed(0)))
    first = 40 + len(split.evaluated)
    similar = similarities(_TREE, [*split.anchors, *split.others], "wu_palmer")
    placed = RelationalSpace.of(similar[:40, :40], 24).place(similar[40:, :40])
    assert found.vectors[first:].numpy() == pytest.approx(placed)


def test_words_that_share_a_sense_with_an_evaluated_one_are_interpolated() -> None:
    split = _split(shared=25)
    taken = {sense for word in split.evaluated for sense in word.senses}
    assert any(not taken.isdisjoint(word.senses) for word in split.others)
    first = _vectors(split, _embeddings())
    other = [Word(word.text, word.surface, word.token_ids, word.senses[::-1], 0) for word in split.others]
    second = _vectors(WordSplit(split.anchors, split.evaluated, tuple(other)), _embeddings())
    assert torch.equal(first.vectors, second.vectors)


def test_relations_of_words_that_definitions_are_scored_by_take_no_part() -> None:
    """BUG G-7: a word that is no anchor since it is scored is not placed by its relations either."""
    split = _split(max_anchors=40)
    scored = {word.senses[0] for word in (*split.anchors[:5], *split.others[:5])}
    kept = without_anchors(_TREE, split, scored)
    first = _vectors(kept, _embeddings())
    moved = [
        Word(word.text, word.surface, word.token_ids, tuple(sorted(scored - set(word.senses)))[:1], 0)
        if word.senses[0] in scored
        else word
        for word in kept.others
    ]
    assert moved != list(kept.others)
    second = _vectors(WordSplit(kept.anchors, kept.evaluated, tuple(moved), kept.scored), _embeddings())
    assert torch.equal(first.vectors, second.vectors)


def test_rows_go_with_their_words() -> None:
    split, found = _split(), _vectors(_split(), _embeddings())
    assert found.tokens.tolist() == [word.token_ids[0] for word in split.words]
    assert words_at(split, found.judged) == list(split.evaluated)
    assert found.quality.n_known == len(found.vectors) == _N
