"""Tokens of two stores that are the same place in the same text."""

from pathlib import Path

import numpy as np
import pytest

from src.activations.store import ActivationStore
from src.activations.token_pairs import PlainTokens, pair_tokens
from src.errors import StrataError
from src.hook_points import HookPoint
from src.text import Keep
from tests.fixtures.stores import make_store
from tests.fixtures.tiny_tokenizers import wordpiece_tokenizer

# one tokenizer of words, one of pieces: token 0 is special in both
WORDS = PlainTokens(("", "the", "cat", "sat", "catsat"), np.zeros(5, bool))
PIECES = PlainTokens(("", "t", "he", "cat", "s", "at", "\ufffd"), np.array([False] * 6 + [True]))


def store(folder: Path, sequences: list[list[int]], keep: list[list[int]] | None = None) -> ActivationStore:
    folder.mkdir()
    ids = np.array([token for sequence in sequences for token in sequence], np.int32)
    reasons = None if keep is None else np.array([code for codes in keep for code in codes], np.uint8)
    rows = {HookPoint("resid_post", 0): np.zeros((len(ids), 2), np.float32)}
    return make_store(folder, rows, [len(sequence) for sequence in sequences], reasons, 2, token_ids=ids)


def places(found) -> list[tuple[int, int, int, int]]:
    columns = (found.sequence, found.position, found.target_sequence, found.target_position)
    return list(zip(*(column.tolist() for column in columns), strict=True))


def paired(source, target, plain=(WORDS, PIECES), same_tokenizer=False, most=100, seed=0):
    return pair_tokens(source, target, *plain, same_tokenizer=same_tokenizer, most=most, seed=seed)


def test_tokens_pair_where_they_cover_the_same_characters(tmp_path):
    # "the cat sat" and "cat cat": the second store has them in another order, and without a special token
    source = store(tmp_path / "a", [[0, 1, 2, 3], [2, 2], [1]])
    target = store(tmp_path / "b", [[3, 3], [1, 2, 3, 4, 5]])
    found = paired(source, target)
    # cat stands whole in both; "the" and "sat" are cut in two
    assert places(found) == [(0, 2, 1, 2), (1, 0, 0, 0), (1, 1, 0, 1)]
    assert found.token_id.tolist() == [2, 2, 2]
    assert found.n_sequences == (3, 2)


def test_what_one_store_does_not_count_is_not_paired(tmp_path):
    source = store(tmp_path / "a", [[2, 2, 3]], [[Keep.COUNTED, Keep.SINK, Keep.COUNTED]])
    target = store(tmp_path / "b", [[2, 2, 3]], [[Keep.FIRST, Keep.COUNTED, Keep.COUNTED]])
    found = paired(source, target, (WORDS, WORDS), same_tokenizer=True)
    assert places(found) == [(0, 2, 0, 2)]


def test_places_behind_a_piece_of_a_character_are_not_known(tmp_path):
    source = store(tmp_path / "a", [[3, 6, 3]])
    assert places(paired(source, source, (PIECES, PIECES))) == [(0, 0, 0, 0)]


def test_texts_that_were_cut_at_other_places_pair_by_their_beginnings(tmp_path):
    long, longer = [2] * 80, [2] * 80 + [3] * 10
    found = paired(store(tmp_path / "a", [long, [3]]), store(tmp_path / "b", [[3], longer]), (WORDS, WORDS))
    assert len(found) == 81
    assert set(found.target_sequence[found.sequence == 0].tolist()) == {1}


def test_equal_texts_go_together_one_to_one(tmp_path):
    found = paired(store(tmp_path / "a", [[2], [2], [2]]), store(tmp_path / "b", [[2], [2]]), (WORDS, WORDS))
    assert places(found) == [(0, 0, 0, 0), (1, 0, 1, 0)]


def test_the_same_characters_of_another_cut_are_no_pair(tmp_path):
    # "catsat" in one token: only whole spans pair
    found = paired(store(tmp_path / "a", [[4, 1]]), store(tmp_path / "b", [[2, 3, 1]]), (WORDS, WORDS))
    assert places(found) == [(0, 1, 0, 2)]


def test_a_draw_depends_on_places_and_seed_alone(tmp_path):
    draws = np.random.default_rng(0)
    sequences = [draws.integers(1, 4, 30).tolist() for _ in range(20)]
    source = store(tmp_path / "a", sequences)
    mirrored = store(tmp_path / "b", sequences[::-1])
    first = paired(source, source, (WORDS, WORDS), same_tokenizer=True, most=50)
    second = paired(source, mirrored, (WORDS, WORDS), same_tokenizer=True, most=50)
    assert len(first) == 50
    assert first.sequence.tolist() == second.sequence.tolist()
    assert (second.target_sequence == 19 - second.sequence).all()
    assert (second.target_position == second.position).all()
    other = paired(source, source, (WORDS, WORDS), same_tokenizer=True, most=50, seed=1)
    assert places(other) != places(first)


def test_stores_of_other_texts_are_refused(tmp_path):
    with pytest.raises(StrataError, match=r"have no text in common: collect both with the same dataset"):
        paired(store(tmp_path / "a", [[2]]), store(tmp_path / "b", [[3]]), (WORDS, WORDS))


def test_plain_tokens_leave_out_spaces_case_and_special_tokens():
    tokenizer = wordpiece_tokenizer()
    plain = PlainTokens.of(tokenizer)
    ids = tokenizer("Monday 5s", add_special_tokens=True)["input_ids"]
    assert "".join(plain.texts[token] for token in ids).replace("##", "") == "monday5s"
    assert plain.lengths[tokenizer.all_special_ids].tolist() == [0] * len(tokenizer.all_special_ids)
