"""Tokens as a reader sees them, and ids that a model has and its tokenizer has not."""

from src.text.token_strings import token_strings
from tests.fixtures.chatml_model import N_VOCAB, chatml_tokenizer


def test_tokens_have_the_space_that_they_begin_with():
    tokenizer = chatml_tokenizer()
    ids = tokenizer.encode("one thing, and that is all")
    found = token_strings(tokenizer, ids)
    assert "".join(found[token] for token in ids) == "one thing, and that is all"
    assert any(text.startswith(" ") for text in found.values())


def test_ids_beyond_the_tokenizer_are_named_with_and_without_others():
    tokenizer = chatml_tokenizer()
    inside = tokenizer.encode("a")[0]
    assert token_strings(tokenizer, [N_VOCAB + 5]) == {N_VOCAB + 5: f"<{N_VOCAB + 5}>"}
    assert token_strings(tokenizer, [N_VOCAB + 5, inside]) == {N_VOCAB + 5: f"<{N_VOCAB + 5}>", inside: "a"}
    assert token_strings(tokenizer, []) == {}
