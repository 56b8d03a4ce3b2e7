"""Anchors and evaluated words: what may make vectors, and what may judge them."""

import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from src.errors import NotApplicableError
from src.geometry.words.matching import Matches, Word
from src.modulators.beginning.words import WordSplit, split_words, without_anchors
from tests.fixtures.worded_taxonomy import tree_of_words

_TAXONOMY = tree_of_words([2, 2])


def _matches(senses: list[tuple[int, ...]], pieces: int = 0) -> Matches:
    words = [
        Word(f"w{i}", f"w{i}", (i, i + 1) if i < pieces else (i,), tuple(meant), 0) for i, meant in enumerate(senses)
    ]
    return Matches(tuple(words), len(words), pieces, 1.0)


def _split(matches: Matches, held_out: float = 0.3, max_anchors: int = 3000, seed: int = 0) -> WordSplit:
    return split_words(_TAXONOMY, matches, held_out, max_anchors, seed)


@settings(max_examples=50)
@given(
    st.lists(st.lists(st.integers(0, 300), max_size=2, unique=True), min_size=100, max_size=160),
    st.integers(0, 3),
)
def test_no_sense_is_on_both_sides_and_every_word_is_somewhere(senses: list[list[int]], seed: int) -> None:
    """BUG G-7: words whose similarities made the vectors are not those that the vectors are judged by."""
    matches = _matches([(1000 + i, *meant) for i, meant in enumerate(senses)])
    try:
        split = _split(matches, seed=seed)
    except NotApplicableError:
        reject()
    anchored = {sense for word in split.anchors for sense in word.senses}
    assert anchored.isdisjoint(sense for word in split.evaluated for sense in word.senses)
    assert sorted(word.text for word in split.words) == sorted(word.text for word in matches.words)


def test_words_of_one_synset_are_not_parted() -> None:
    """BUG G-7 by synonyms: 22 % of WordNet's words share their chosen synset with another (BUG D-2)."""
    split = _split(_matches([(i // 4,) for i in range(200)]), held_out=0.5)
    assert {word.senses[0] for word in split.anchors}.isdisjoint(word.senses[0] for word in split.evaluated)
    assert 96 <= len(split.evaluated) <= 104
    assert not split.others


def test_a_rare_sense_keeps_a_word_out() -> None:
    """`bank` the building is no anchor where `bank` of a river is evaluated."""
    split = _split(_matches([(i, 100) if i < 50 else (i + 100,) for i in range(100)]), held_out=0.2)
    shared = {word.text for word in split.words if 100 in word.senses}
    assert shared.isdisjoint(word.text for word in split.anchors)
    assert len(split.anchors) + len(split.evaluated) + len(split.others) == 100


def test_the_share_is_kept_and_the_limit_too() -> None:
    split = _split(_matches([(i,) for i in range(200)]), held_out=0.3, max_anchors=50)
    assert (len(split.anchors), len(split.evaluated), len(split.others)) == (50, 60, 90)


def test_the_draw_follows_the_seed_alone() -> None:
    matches = _matches([(i,) for i in range(200)])
    assert _split(matches, seed=1) == _split(matches, seed=1)
    first, other = (_split(matches, seed=seed).evaluated for seed in (1, 2))
    # 60 of 200 twice: 18 shared by chance
    assert len(set(first) & set(other)) < 40


def test_a_word_of_several_tokens_takes_no_part() -> None:
    split = _split(_matches([(i,) for i in range(100)], pieces=30))
    assert len(split.words) == 70
    assert all(len(word.token_ids) == 1 for word in split.words)


def test_too_few_words_are_refused() -> None:
    with pytest.raises(NotApplicableError, match=r"20 words of made 0123 .* 6 be evaluated, and 8 of each are needed"):
        _split(_matches([(i,) for i in range(20)]))


def test_words_that_are_scored_are_no_anchors():
    """BUG G-7, of definitions: no vector is made from the relations of a word that is to be told."""
    taxonomy = tree_of_words([4, 10])
    words = tuple(Word(f"w{i}", f"w{i}", (i,), (i,), 0) for i in range(45))
    split = split_words(taxonomy, Matches(words, 45, 0, 1.0), 0.3, 3000, 0)
    scored = {word.senses[0] for word in (*split.anchors[:5], *split.evaluated[:2])}
    kept = without_anchors(taxonomy, split, scored)
    assert kept.anchors == split.anchors[5:]
    assert kept.evaluated == split.evaluated
    assert set(kept.words) == set(split.words)
    with pytest.raises(NotApplicableError, match="can be anchors"):
        without_anchors(taxonomy, split, range(45))
