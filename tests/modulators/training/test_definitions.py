"""Words from their definitions: what is read, what is told, and what may not lie on two sides of a split."""

import numpy as np
import pytest

from src.activations.splits import split_groups
from src.geometry.words.matching import Word
from src.modulators.training.definitions import defined_words, definition_examples, definition_groups
from tests.fixtures.tiny_project import tiny_tokenizer
from tests.fixtures.tiny_tokenizers import unigram_tokenizer
from tests.fixtures.worded_taxonomy import MadeSense, worded_taxonomy

TAXONOMY = worded_taxonomy(
    {
        "one": MadeSense({"w10": 0, "w11": 0}, definition="w50 w51 w52"),
        "two": MadeSense({"w12": 0}, definition=" W50  w51 w52 "),
        "three": MadeSense({"w13": 0}, definition="w60 w61"),
        "undefined": MadeSense({"w14": 0}),
    }
)


def word(text: str, sense: int, *tokens: int) -> Word:
    return Word(text, text, tokens or (int(text[1:]),), (sense,), 0)


WORDS = [word("w10", 0), word("w11", 0), word("w12", 1), word("w13", 2), word("w14", 3)]


def examples_of(words, template="{definition} w7", max_length=20):
    groups = list(range(len(words)))
    return definition_examples(TAXONOMY, words, groups, tiny_tokenizer(), template, max_length, encoder_decoder=False)


def test_only_the_words_tokens_are_predicted():
    prompt_then_word, several = examples_of([WORDS[0], word("w13", 2, 13, 20)])
    assert prompt_then_word.input_ids.tolist() == [1, 50, 51, 52, 7, 10]
    assert prompt_then_word.predicted.tolist() == [False] * 5 + [True]
    assert prompt_then_word.target_ids is None
    assert several.input_ids.tolist() == [1, 60, 61, 7, 13, 20]
    assert several.predicted.tolist() == [False] * 4 + [True] * 2


def test_of_a_long_definition_the_end_is_left_out_and_the_prompt_stays():
    (example,) = examples_of([WORDS[0]], template="w8 {definition} w7", max_length=5)
    assert example.input_ids.tolist() == [1, 8, 50, 51, 7, 10]


def test_an_encoder_decoder_reads_and_answers_as_its_tokenizer_writes():
    taxonomy = worded_taxonomy({"monday": MadeSense({"monday": 0}, definition="a 7")})
    tokenizer = unigram_tokenizer()
    (example,) = definition_examples(
        taxonomy, [word("monday", 0, 5)], [3], tokenizer, "{definition}", 20, encoder_decoder=True
    )
    assert example.target_ids is not None
    assert tokenizer.convert_ids_to_tokens(example.input_ids.tolist()) == ["▁a", "▁7", "</s>"]
    assert tokenizer.convert_ids_to_tokens(example.target_ids.tolist()) == ["▁monday", "</s>"]
    assert example.predicted.tolist() == [True, True]
    assert example.group == 3


def test_what_ends_a_text_does_not_stand_before_the_word():
    tokenizer = unigram_tokenizer()
    taxonomy = worded_taxonomy({"monday": MadeSense({"monday": 0}, definition="a 7")})
    (example,) = definition_examples(
        taxonomy, [word("monday", 0, 5)], [0], tokenizer, "{definition}", 20, encoder_decoder=False
    )
    assert tokenizer.convert_ids_to_tokens(example.input_ids.tolist()) == ["▁a", "▁7", "▁monday"]


def test_words_without_a_definition_are_left_out():
    assert [each.text for each in defined_words(TAXONOMY, WORDS)] == ["w10", "w11", "w12", "w13"]


def test_a_synset_and_definitions_that_read_the_same_are_one_group():
    """BUG G-10: two words of a synset, and a synset defined in the same words, are never parted."""
    hashes = definition_groups(TAXONOMY, WORDS[:4], seed=0)
    assert hashes[0] == hashes[1] == hashes[2]
    assert hashes[3] != hashes[0]
    assert definition_groups(TAXONOMY, WORDS[:4], seed=1)[0] != hashes[0]


def test_no_definition_is_in_two_shares():
    """BUG G-10: splitting by word leaves definitions of validation in training."""
    draws = np.random.default_rng(0)
    senses, words = {}, []
    for place in range(200):
        senses[f"s{place}"] = MadeSense({f"w{place}": 0}, definition=f"definition {draws.integers(60)}")
        words.append(word(f"w{place}", place))
    for extra in range(200, 260):  # a second word of some synsets
        words.append(word(f"w{extra}", int(draws.integers(200))))
    taxonomy = worded_taxonomy(senses)
    groups = split_groups(definition_groups(taxonomy, words, 0), (0.6, 0.2, 0.2), n_folds=1)
    for share in range(3):
        here = {
            (taxonomy.definitions[w.senses[0]], w.senses[0]) for w, g in zip(words, groups, strict=True) if g == share
        }
        other = {
            (taxonomy.definitions[w.senses[0]], w.senses[0]) for w, g in zip(words, groups, strict=True) if g != share
        }
        assert here
        assert not {definition for definition, _ in here} & {definition for definition, _ in other}
        assert not {sense for _, sense in here} & {sense for _, sense in other}
    parted = draws.permutation(len(words)) < 0.8 * len(words)  # by word, as the mistake had it
    texts = np.array([taxonomy.definitions[w.senses[0]] for w in words])
    assert np.isin(texts[~parted], texts[parted]).mean() > 0.2


@pytest.mark.parametrize("max_length", [3, 4, 6, 50])
def test_a_prompt_keeps_to_its_length_where_the_definition_can_be_cut(max_length):
    taxonomy = worded_taxonomy({"long": MadeSense({"w9": 0}, definition=" ".join(f"w{i}" for i in range(10, 70)))})
    (example,) = definition_examples(
        taxonomy, [word("w9", 0)], [0], tiny_tokenizer(), "{definition} w7", max_length, encoder_decoder=False
    )
    assert len(example.input_ids) == max_length + 1
