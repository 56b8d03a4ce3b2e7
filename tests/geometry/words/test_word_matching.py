"""Which tokens are words of a taxonomy, and in which sense."""

import re

import numpy as np
import pytest

from src.errors import NotApplicableError
from src.geometry.words import matching
from src.geometry.words.matching import match_words
from src.geometry.words.word_distances import word_distances
from src.models.token_table import token_table
from tests.fixtures.byte_level_tokenizer import byte_level_tokenizer
from tests.fixtures.tiny_project import tiny_tokenizer
from tests.fixtures.tiny_tokenizers import sentencepiece_bpe_tokenizer, wordpiece_tokenizer
from tests.fixtures.worded_taxonomy import MadeSense, tree_of_words, worded_taxonomy


@pytest.fixture(autouse=True)
def _few_suffice(monkeypatch):
    monkeypatch.setattr(matching, "FEWEST_WORDS", 1)
    # words of the tiny tokenizer are letters and digits
    monkeypatch.setattr(matching, "_LETTERS", re.compile(r"[^\W_]+"))


def matched(taxonomy, tokenizer, pos="n", **more) -> dict[str, matching.Word]:
    found = match_words(taxonomy, token_table(tokenizer, len(tokenizer)), tokenizer, pos, enough=0, **more)
    return {word.text: word for word in found.words}


def test_the_most_frequent_sense_is_taken_and_parts_of_speech_stay_apart():
    """BUG D-1: the first sense in the order of the files is a rare one for half of the words, mostly an adjective."""
    taxonomy = worded_taxonomy(
        {
            "light.a": MadeSense({"w5": 90}, pos="a"),
            "light.n.rare": MadeSense({"w5": 2}),
            "light.n.frequent": MadeSense({"w5": 40, "w6": 0}, numbers={"w6": 2}),
            "light.v": MadeSense({"w5": 70}, pos="v"),
            "tie.n.first": MadeSense({"w6": 0}, numbers={"w6": 1}),
        }
    )
    nouns = matched(taxonomy, tiny_tokenizer())
    assert nouns["w5"].senses == (2, 1)
    assert nouns["w5"].count == 40
    assert nouns["w6"].senses[0] == 4
    assert matched(taxonomy, tiny_tokenizer(), "v")["w5"].senses == (3,)


def test_frequent_words_come_first_and_rare_ones_can_be_left_out():
    taxonomy = worded_taxonomy({f"s{i}": MadeSense({f"w{i}": i % 7}) for i in range(5, 25)})
    tokenizer = tiny_tokenizer()
    tokens = token_table(tokenizer, len(tokenizer))
    found = match_words(taxonomy, tokens, tokenizer, max_words=4, enough=0)
    assert [word.count for word in found.words] == [6, 6, 6, 5]
    assert found.n_found == 20
    assert found.uncounted == 0
    assert match_words(taxonomy, tokens, tokenizer, min_count=5, enough=0).n_found == 6
    assert match_words(taxonomy, tokens, tokenizer, enough=0).uncounted == 3 / 20


def test_of_several_tokens_for_a_word_the_one_inside_text_in_lower_case_is_taken():
    tokenizer = byte_level_tokenizer(["dog", "Ġdog", "ĠDog", "cat", "Cat"])
    taxonomy = worded_taxonomy({"dog": MadeSense({"dog": 1}), "cat": MadeSense({"cat": 1})})
    words = matched(taxonomy, tokenizer)
    spelled = {text: tokenizer.convert_ids_to_tokens(word.token_ids[0]) for text, word in words.items()}
    assert spelled == {"dog": "Ġdog", "cat": "cat"}
    assert words["dog"].surface == "dog"


def test_pieces_of_words_are_no_words():
    taxonomy = worded_taxonomy({name: MadeSense({name: 1}) for name in ("s", "monday", "a", "cat", "ca")})
    assert set(matched(taxonomy, wordpiece_tokenizer())) == {"a", "monday"}
    llama = sentencepiece_bpe_tokenizer()
    words = matched(taxonomy, llama)
    assert {text: llama.convert_ids_to_tokens(word.token_ids[0]) for text, word in words.items()} == {
        "a": "▁a",
        "cat": "▁cat",
        "ca": "ca",  # which stands behind a boundary of its own
    }


def test_words_of_several_tokens_are_taken_where_there_are_few_of_one():
    tokenizer = byte_level_tokenizer(["Ġdog", "Ġcat"])
    taxonomy = worded_taxonomy({name: MadeSense({name: 1}) for name in ("dog", "cat", "god cat", "taco")})
    tokens = token_table(tokenizer, len(tokenizer))
    found = match_words(taxonomy, tokens, tokenizer)
    ids = {word.text: [tokenizer.decode([token]) for token in word.token_ids] for word in found.words}
    assert ids["dog"] == [" dog"]
    assert ids["god cat"][-1] == " cat"
    assert "".join(ids["taco"]) == " taco"
    assert found.n_pieces == 2
    assert match_words(taxonomy, tokens, tokenizer, enough=2).n_pieces == 0


def test_unknown_words_are_no_match(monkeypatch):
    monkeypatch.setattr(matching, "FEWEST_WORDS", 2)
    tokenizer = tiny_tokenizer()
    with pytest.raises(NotApplicableError, match=r"0 nouns .* are words of this tokenizer, and 2 are needed"):
        match_words(tree_of_words([2]), token_table(tokenizer, 4), tokenizer)


def test_any_sense_gives_the_least_distance():
    taxonomy = worded_taxonomy(
        {
            "root": MadeSense({"w4": 1}),
            "bank.river": MadeSense({"w5": 9}, ["root"]),
            "money": MadeSense({"w6": 1}, ["root"]),
            "bank.money": MadeSense({"w5": 1}, ["money"]),
        }
    )
    words = [
        matching.Word("w4", "w4", (4,), (0,), 1),
        matching.Word("w5", "w5", (5,), (1, 3), 9),
        matching.Word("w6", "w6", (6,), (2,), 1),
    ]
    frequent = word_distances(taxonomy, words, "frequent")
    assert frequent.tolist() == [[0, 1, 1], [1, 0, 2], [1, 2, 0]]
    least = word_distances(taxonomy, words, "any")
    assert least.tolist() == [[0, 1, 1], [1, 0, 1], [1, 1, 0]]
    assert np.array_equal(least, least.T)
