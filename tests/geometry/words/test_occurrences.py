"""Words in running text."""

import numpy as np
import pytest
import torch

from src.activations.token_choice import TokenBlock, sequence_tokens
from src.geometry.words import occurrences
from src.geometry.words.matching import Word
from src.geometry.words.occurrences import at_occurrences, find_occurrences, words_around
from src.text import Keep, TokenSequence

# two kinds (0, 1), and words below the first
WORDS = [Word(f"t{token}", f"t{token}", (token,), (0,), 0) for token in (10, 11, 12, 13)]
KINDS = {2: [0], 3: [0]}


def block(*texts: list[int], keep: dict[tuple[int, int], Keep] | None = None) -> TokenBlock:
    sequences = []
    for number, text in enumerate(texts):
        roles = np.zeros(len(text), np.uint8)
        for (sequence, position), role in (keep or {}).items():
            if sequence == number:
                roles[position] = role
        sequences.append(TokenSequence(number, np.array(text, np.int32), roles))
    return next(sequence_tokens(sequences))


def found_in(blocks: list[TokenBlock], per_word: int = 9) -> tuple[set[tuple[int, int, int]], list[int], int]:
    found = find_occurrences(blocks, WORDS, KINDS, per_word)
    places = zip(found.word.tolist(), found.sequence.tolist(), found.position.tolist(), strict=True)
    return set(places), found.count.tolist(), found.named


def test_the_first_occurrences_are_taken_and_all_are_counted():
    blocks = [block([1, 12, 5, 12, 10], [1, 12, 99, 11])]
    places, count, named = found_in(blocks, per_word=2)
    assert places == {(2, 0, 1), (2, 0, 3), (0, 0, 4), (1, 1, 3)}
    assert count == [1, 1, 3, 0]
    assert named == 0


def test_an_occurrence_behind_a_word_for_its_kind_is_passed_over():
    """What a state has just read is not what the model knows of a word."""
    blocks = [block([1, 10, 12, 13, 11], [1, 12, 10, 11, 13])]
    places, _, named = found_in(blocks)
    assert places == {(0, 0, 1), (1, 0, 4), (2, 1, 1), (0, 1, 2), (1, 1, 3)}
    assert named == 3


def test_the_kind_in_another_text_does_not_matter():
    places, _, named = found_in([block([1, 10], [1, 12])])
    assert (2, 1, 1) in places
    assert named == 0


def test_tokens_that_are_not_counted_are_not_taken():
    places, count, _ = found_in([block([12, 12, 12], keep={(0, 0): Keep.FIRST, (0, 2): Keep.SINK})])
    assert places == {(2, 0, 1)}
    assert count == [0, 0, 1, 0]


def test_blocks_of_a_store_go_on_counting():
    first, second = block([1, 12, 11]), block([1, 12])
    second = TokenBlock(second.token_ids, second.position, second.sequence + 1, second.keep)
    places, count, _ = found_in([first, second])
    assert places == {(2, 0, 1), (1, 0, 2), (2, 1, 1)}
    assert count == [0, 1, 2, 0]


def test_words_of_several_tokens_are_not_looked_for():
    words = [*WORDS, Word("two", "two", (12, 11), (0,), 0)]
    found = find_occurrences([block([1, 12, 11])], words, {}, 5)
    assert found.count.tolist() == [0, 1, 1, 0, 0]


def test_points_are_the_words_that_occur():
    found = find_occurrences([block([1, 13, 11, 13])], WORDS, {}, 5)
    passages = at_occurrences(found, WORDS, None)
    assert passages.words.tolist() == [1, 3]
    assert passages.chosen.point.tolist() == [0, 1, 1]
    assert passages.chosen.position.tolist() == [2, 1, 3]
    assert passages.chosen.token_id.tolist() == [11, 13, 13]


def test_words_around_are_the_other_counted_tokens_of_the_text(monkeypatch):
    monkeypatch.setattr(occurrences, "_OCCURRENCES_AT_ONCE", 2)
    texts = [[1, 12, 5, 12, 10], [1, 11], [1, 10, 12, 7]]
    one = block(*texts, keep={(number, 0): Keep.BOS for number in range(3)})
    passages = at_occurrences(find_occurrences([one], WORDS, {}, 9), WORDS, None)
    table = torch.arange(40, dtype=torch.float32)[:, None].repeat(1, 2)
    found = words_around([one], passages, table)
    assert passages.words.tolist() == [0, 1, 2]
    # of word 12: around twice in the first text (5, 10), and once in the third (10, 7)
    expected = [np.mean([np.mean([12, 5, 12]), np.mean([12, 7])]), 0, np.mean([7.5, 7.5, 8.5])]
    assert found[:, 0].tolist() == pytest.approx(expected)
