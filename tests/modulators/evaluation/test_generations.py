"""Texts of the frozen and the modulated model."""

import nltk
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy

from src.models import LanguageModel, wrap_model
from src.modulators.controls.shuffled_field import ShuffledField
from src.modulators.evaluation.generations import Sampling, continuation_nll, edit_distance, generate
from src.modulators.field import FieldModulator, FieldShape
from src.modulators.residual import ResidualModulator
from tests.fixtures.tiny_models import D_MODEL, N_LAYERS, N_VOCAB, model_config, tiny_model

PROMPT = np.array([5, 41, 8, 77], np.int32)
TOKENS = st.lists(st.integers(0, 3), max_size=9)


def residual(alpha: float) -> ResidualModulator:
    draws = torch.Generator().manual_seed(0)
    table, projection = torch.randn(N_VOCAB, 4, generator=draws), torch.randn(D_MODEL, 4, generator=draws)
    return ResidualModulator(table, projection, torch.ones(N_VOCAB, dtype=torch.bool), range(N_LAYERS), alpha)


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    return wrap_model(tiny_model("llama", eos_token_id=None), model_config())


@given(TOKENS, TOKENS)
@settings(max_examples=150, deadline=None)
def test_edits_are_nltks(one, other):
    assert edit_distance(one, other) == nltk.edit_distance(one, other)


def test_a_greedy_text_is_the_likeliest_token_again_and_again(model):
    modulator = residual(0.4)
    ids = torch.from_numpy(PROMPT).long()[None]
    with modulator.attached(model), torch.no_grad():
        for _ in range(8):
            ids = torch.cat([ids, model.module(ids, use_cache=False).logits[:, -1:].argmax(-1)], 1)
    made = generate(model, modulator, PROMPT, 8)
    assert made.tolist() == ids[0, len(PROMPT) :].tolist()
    assert made.tolist() != generate(model, None, PROMPT, 8).tolist()


def test_sampled_texts_share_their_random_numbers(model):
    """Spec G10: two sampled texts of the published notebook have different random numbers, so they always differ."""
    original = generate(model, None, PROMPT, 20, Sampling(), seed=1)
    # the smallest of changes of the distribution
    changed = generate(model, residual(1e-6), PROMPT, 20, Sampling(), seed=1)
    assert original.tolist() == changed.tolist()
    assert original.tolist() != generate(model, None, PROMPT, 20, Sampling(), seed=2).tolist()


def test_the_random_numbers_of_others_are_left_alone(model):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    generate(model, None, PROMPT, 5, Sampling(), seed=1)
    assert torch.equal(torch.rand(3), expected)


def test_what_needs_whole_passes_is_given_them(model):
    field = FieldModulator(D_MODEL, (0, 1), FieldShape(dimensions=(1, 2), width=3, alpha=0.2), seed=0)
    shuffled = ShuffledField.of(field, shuffle_seed=0)
    assert len(generate(model, shuffled, PROMPT, 6)) == 6


def test_the_likelihood_of_a_continuation_is_that_of_its_tokens(model):
    modulator, answer = residual(0.3), np.array([9, 60, 3], np.int32)
    whole = torch.from_numpy(np.concatenate([PROMPT, answer])).long()
    with modulator.attached(model), torch.no_grad():
        logits = model.module(whole[None]).logits[0]
    expected = float(cross_entropy(logits[3:-1], whole[4:], reduction="sum"))
    assert continuation_nll(model, modulator, PROMPT, answer) == pytest.approx(expected, rel=1e-5)
    assert continuation_nll(model, None, PROMPT, answer) != pytest.approx(expected, rel=1e-3)


def test_an_encoder_decoder_answers():
    model = wrap_model(tiny_model("t5_with_head", eos_token_id=None), model_config())
    modulator = residual(0.5)
    made = generate(model, modulator, PROMPT, 5)
    ids = torch.from_numpy(PROMPT).long()[None]
    answer = torch.zeros(1, 1, dtype=torch.long)  # T5's start token
    with modulator.attached(model), torch.no_grad():
        for _ in range(5):
            answer = torch.cat([answer, model.module(ids, decoder_input_ids=answer).logits[:, -1:].argmax(-1)], 1)
        labels = torch.from_numpy(made).long()[None]
        loss = float(model.module(ids, labels=labels).loss)
    assert made.tolist() == answer[0, 1:].tolist()
    assert continuation_nll(model, modulator, PROMPT, made) == pytest.approx(5 * loss, rel=1e-4)
