"""Which tokens of a text stand for a word."""

import numpy as np
import pytest
import torch

from src.activations.clouds import clouds_of_model
from src.errors import StrataError
from src.geometry.words.matching import Word
from src.geometry.words.passages import Passages, in_carriers, in_definitions
from src.hook_points import HookPoint
from src.models import capture, wrap_model
from tests.fixtures.byte_level_tokenizer import byte_level_tokenizer
from tests.fixtures.tiny_models import model_config, tiny_model
from tests.fixtures.tiny_project import tiny_tokenizer

WORDS = [Word("w9", "w9", (9,), (0,), 0), Word("w12", "w12", (12,), (1,), 0)]


def places(passages: Passages) -> set[tuple[int, int, int]]:
    """(point, sequence, position) of each chosen token."""
    chosen = passages.chosen
    return set(zip(chosen.point.tolist(), chosen.sequence.tolist(), chosen.position.tolist(), strict=True))


def test_in_a_carrier_the_words_own_tokens_stand_for_it():
    passages = in_carriers(WORDS, tiny_tokenizer(), ["w5 {word} w6", "{word} w7"], 16)
    assert passages.sequences is not None
    assert [sequence.token_ids.tolist() for sequence in passages.sequences] == [
        [1, 5, 9, 6],
        [1, 9, 7],
        [1, 5, 12, 6],
        [1, 12, 7],
    ]
    assert places(passages) == {(0, 0, 2), (0, 1, 1), (1, 2, 2), (1, 3, 1)}
    assert passages.words.tolist() == [0, 1]


def test_all_tokens_of_a_word_stand_for_it_and_the_space_in_front_alone_does_not():
    tokenizer = byte_level_tokenizer(["the", "Ġca", "t"])
    words = [Word("cat", "cat", (), (0,), 0), Word("ca", "ca", (), (0,), 0)]
    passages = in_carriers(words, tokenizer, ["the {word} the"], 32)
    assert passages.sequences is not None
    texts = [[tokenizer.decode([token]) for token in sequence.token_ids] for sequence in passages.sequences]
    assert texts[0] == ["the", " ca", "t", " ", "the"]
    assert places(passages) == {(0, 0, 1), (0, 0, 2), (1, 1, 1)}


def test_of_a_definition_the_mean_and_the_last_token_without_prefix_specials_and_unknown_words():
    definitions = ["w5 w6 zzz w7", "", "w8"]
    three = [*WORDS, Word("w13", "w13", (13,), (2,), 0)]
    passages = in_definitions(three, definitions, tiny_tokenizer(), "w20 {definition} w21", 16)
    assert passages.sequences is not None
    assert [sequence.token_ids.tolist() for sequence in passages.sequences] == [[1, 20, 5, 6, 3, 7, 21], [1, 20, 8, 21]]
    assert passages.words.tolist() == [0, 2]
    mean, last = {(0, 0, 2), (0, 0, 3), (0, 0, 5), (1, 1, 2)}, {(2, 0, 5), (3, 1, 2)}
    assert places(passages) == mean | last
    assert passages.chosen.token_id.tolist() == [5, 6, 7, 8, 7, 8]


def test_without_bos_the_first_position_is_left_out():
    tokenizer = byte_level_tokenizer(["the", "Ġcat", "Ġdog"])
    passages = in_definitions(WORDS, ["the cat dog", "cat"], tokenizer, "{definition}", 16)
    assert {place for place in places(passages) if place[0] == 0} == {(0, 0, 1), (0, 0, 2)}


def test_one_pass_gives_every_layer_and_both_poolings():
    model = wrap_model(tiny_model("llama"), model_config())
    passages = in_definitions(WORDS, ["w5 w6 w7", "w8 w9 w10 w11 w12"], tiny_tokenizer(), "{definition}", 16)
    assert passages.sequences is not None
    points = [HookPoint("resid_post", layer) for layer in range(model.n_layers)]
    clouds = clouds_of_model(model, passages.sequences, points, passages.chosen, batch_size=2)
    for place, sequence in enumerate(passages.sequences):
        ids = torch.from_numpy(sequence.token_ids.astype(np.int64))[None]
        states = capture(model, ids, torch.ones_like(ids), points)
        for point in points:
            own = states[point][0, 1:].numpy()
            assert clouds[point][place] == pytest.approx(own.mean(0), abs=1e-5)
            assert clouds[point][2 + place] == pytest.approx(own[-1], abs=1e-5)


def test_what_is_cut_off_is_refused():
    with pytest.raises(StrataError, match="cut off"):
        in_carriers(WORDS, tiny_tokenizer(), ["w5 w5 w5 w5 {word}"], 4)
    with pytest.raises(StrataError, match=r"no \{word\}"):
        in_carriers(WORDS, tiny_tokenizer(), ["w5"], 4)
    with pytest.raises(StrataError, match=r"no \{definition\}"):
        in_definitions(WORDS, ["w5", "w6"], tiny_tokenizer(), "w5", 4)
    with pytest.raises(StrataError, match="no definitions"):
        in_definitions(WORDS, ["", ""], tiny_tokenizer(), "{definition}", 4)
