"""Texts, special tokens and padding of vocabularies of every kind, and the token that a word is."""

from pathlib import Path

import numpy as np
import pytest
from transformers import AutoTokenizer

from src.models.token_table import single_token, token_table
from tests.fixtures.chatml_model import N_VOCAB, chatml_tokenizer
from tests.fixtures.tiny_tokenizers import (
    gemma_tokenizer,
    sentencepiece_bpe_tokenizer,
    unigram_tokenizer,
    word_end_tokenizer,
    wordpiece_tokenizer,
)

TESTBED = Path(__file__).parents[2] / "testbed" / "models" / "base"
MAKERS = {
    "byte-level": chatml_tokenizer,
    "unigram": unigram_tokenizer,
    "sentencepiece": sentencepiece_bpe_tokenizer,
    "gemma": gemma_tokenizer,
    "wordpiece": wordpiece_tokenizer,
    "word-end": word_end_tokenizer,
    "words": lambda: AutoTokenizer.from_pretrained(TESTBED),
}


@pytest.fixture(scope="module", params=MAKERS)
def tokenizer(request):
    return MAKERS[request.param]()


def test_a_token_that_begins_a_word_has_its_space(tokenizer):
    table = token_table(tokenizer, len(tokenizer))
    letter = single_token(tokenizer, "a")
    assert table.texts[letter] == " a"
    assert table.initial[letter]
    # behind other text, texts of tokens put together are the text
    ids = tokenizer.encode("a a a", add_special_tokens=False)[1:]
    assert "".join(table.texts[token] for token in ids) == " a a"


def test_rows_beyond_the_tokenizer_are_padding_and_never_counted(tokenizer):
    n_tokens = len(tokenizer)
    table = token_table(tokenizer, n_tokens + 3)
    assert np.flatnonzero(table.padding).tolist() == [n_tokens, n_tokens + 1, n_tokens + 2]
    assert table.texts[n_tokens:] == ("", "", "")
    assert not table.special[n_tokens:].any()
    assert set(tokenizer.all_special_ids).isdisjoint(table.counted)
    assert n_tokens not in table.counted
    assert len(table.counted) + table.special.sum() + 3 == table.n_rows


def test_fewer_rows_than_tokens(tokenizer):
    assert token_table(tokenizer, 5).texts == token_table(tokenizer, len(tokenizer)).texts[:5]


def test_rows_between_tokens_are_padding_too():
    tokenizer = wordpiece_tokenizer()
    vocab = {name: token + 2 * (token > 8) for name, token in tokenizer.get_vocab().items()}
    table = token_table(type(tokenizer)(vocab=vocab), 14)
    assert np.flatnonzero(table.padding).tolist() == [9, 10]
    assert table.texts[12] == " 5"


def test_control_tokens_that_nobody_calls_special_are_special():
    tokenizer = chatml_tokenizer()
    tokenizer.add_tokens(["<tool_call>", "<|image|>", "twowords"])
    table = token_table(tokenizer, len(tokenizer))
    assert table.special[N_VOCAB : N_VOCAB + 3].tolist() == [True, True, False]
    assert token_table(gemma_tokenizer(), 17).special[5], "reserved: <unused0>"
    sentinels = token_table(unigram_tokenizer(), 13)
    assert sentinels.special[11:].all()
    assert sentinels.texts[11:] == ("<extra_id_1>", "<extra_id_0>")


def test_pieces_of_characters_are_fragments():
    tokenizer = chatml_tokenizer()
    table = token_table(tokenizer, len(tokenizer))
    # each byte above 127 is a token, and no character
    assert table.fragment.sum() == 128
    texts = [text for text, part in zip(table.texts, table.fragment, strict=True) if not part]
    assert "5" in texts
    assert not any("\N{REPLACEMENT CHARACTER}" in text for text in texts)
    assert token_table(sentencepiece_bpe_tokenizer(), 14).fragment.tolist() == [token == 4 for token in range(14)]
    # a character that is called replacement is one
    tokenizer.add_tokens(["\N{REPLACEMENT CHARACTER}"])
    assert not token_table(tokenizer, len(tokenizer)).fragment[N_VOCAB]


def test_a_continuation_begins_no_word():
    table = token_table(wordpiece_tokenizer(), 12)
    assert table.texts[8] == "s"
    assert not table.initial[8]
    assert table.initial[7]


def test_a_bare_word_boundary_is_no_digit():
    """BUG A-1: the first of several ids is the boundary, the same for every digit, so that all cosines are 1."""
    tokenizer = unigram_tokenizer()
    assert tokenizer.convert_ids_to_tokens(tokenizer.encode("5", add_special_tokens=False)) == ["▁", "5"]
    boundary = tokenizer.convert_tokens_to_ids("▁")
    assert single_token(tokenizer, "5") == tokenizer.convert_tokens_to_ids("5") != boundary
    assert single_token(tokenizer, "7") == tokenizer.convert_tokens_to_ids("▁7")
    assert single_token(sentencepiece_bpe_tokenizer(), "5") == 6


def test_digits_are_found_by_decoding_not_by_their_ascii_codes():
    """BUG A-2: in a byte-level vocabulary, ids 48 to 57 are other signs."""
    tokenizer = chatml_tokenizer()
    assert tokenizer.decode([48]) != "0"
    for digit in "0123456789":
        assert tokenizer.decode([single_token(tokenizer, digit)]).strip() == digit


def test_words_of_several_tokens_have_none(tokenizer):
    assert single_token(tokenizer, "a a") is None
    assert single_token(tokenizer, "") is None
    assert single_token(tokenizer, "zyzzyva") is None


def test_a_word_is_found_whatever_its_case_where_the_tokenizer_lowers_it():
    assert single_token(wordpiece_tokenizer(), "Monday") == 7
    assert single_token(MAKERS["words"](), "Monday") is None
