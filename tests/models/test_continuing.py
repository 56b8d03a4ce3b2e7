"""Caches that grow, fork and branch, and what a model is trusted to do with them."""

import pytest
import torch

from src.models import wrap_model
from src.models.continuing import GrowingCache, continuation_of, hole_mask, next_logits, packed_mask
from tests.fixtures.tiny_models import model_config, tiny_model

IDS = torch.randint(3, 97, (1, 24), generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def model():
    return wrap_model(tiny_model("llama"), model_config())


@pytest.fixture(autouse=True)
def inference():
    with torch.inference_mode():
        yield


def alone(model, ids):
    return next_logits(model, ids)[0, 0]


@pytest.mark.parametrize("room", [0, 5, 100])
def test_a_cache_grows_token_by_token(model, room):
    cache = GrowingCache(model.n_layers, room)
    next_logits(model, IDS[:, :3], past_key_values=cache)
    for end in range(4, 25):
        found = next_logits(model, IDS[:, end - 1 : end], past_key_values=cache)[0, 0]
        assert cache.n_tokens == end
        torch.testing.assert_close(found, alone(model, IDS[:, :end]), rtol=1e-5, atol=1e-5)


def test_forks_and_branches_leave_the_cache_as_it_is(model):
    cache, other = GrowingCache(model.n_layers, 24), IDS.flip(1)
    next_logits(model, IDS[:, :20], past_key_values=cache)
    fork, empty = cache.fork(7, 9), cache.fork(0, 4)
    for end in range(1, 5):
        mixed = torch.cat([IDS[:, :7], other[:, :end]], 1)
        found = next_logits(model, other[:, end - 1 : end], past_key_values=fork)[0, 0]
        torch.testing.assert_close(found, alone(model, mixed), rtol=1e-5, atol=1e-5)
    behind = next_logits(model, other[:, :4], past_key_values=cache.behind(7))[0, 0]
    torch.testing.assert_close(behind, alone(model, mixed), rtol=1e-5, atol=1e-5)
    found = next_logits(model, other[:, :4], past_key_values=empty)[0, 0]
    torch.testing.assert_close(found, alone(model, other[:, :4]), rtol=1e-5, atol=1e-5)
    assert (cache.n_tokens, fork.n_tokens, empty.n_tokens) == (20, 11, 4)
    found = next_logits(model, IDS[:, 20:], past_key_values=cache)[0, 0]
    torch.testing.assert_close(found, alone(model, IDS), rtol=1e-5, atol=1e-5)


def test_rows_that_go_on_from_different_places():
    mask, positions = hole_mask([1, 3], [2, 1], 3, torch.device("cpu"))
    assert mask.tolist() == [[1, 0, 0, 1, 1], [1, 1, 1, 1, 0]]
    assert positions.tolist() == [[1, 2], [3, 3]]


def test_branches_one_after_the_other_do_not_see_each_other():
    seen, positions = packed_mask([1, 3], [2, 1], 3, torch.device("cpu"))
    assert seen.int().tolist() == [[1, 0, 0, 1, 0, 0], [1, 0, 0, 1, 1, 0], [1, 1, 1, 0, 0, 1]]
    assert positions.tolist() == [[1, 2, 3]]


def test_models_are_asked_once(model):
    assert continuation_of(model) is continuation_of(model)


@pytest.mark.parametrize(
    ("family", "keys", "causal", "cached", "stacked", "packed"),
    [
        ("llama", {}, True, True, True, True),
        ("opt", {}, True, True, True, True),
        ("falcon", {"alibi": True}, True, True, True, False),
        ("gemma2", {}, True, True, False, False),  # its windows are shorter than the probe
        ("bert", {}, False, False, False, False),
    ],
)
def test_what_models_are_trusted_with(family, keys, causal, cached, stacked, packed):
    if family == "bert":
        from transformers import AutoConfig, AutoModelForCausalLM

        config = AutoConfig.for_model("bert", vocab_size=97, hidden_size=16, num_hidden_layers=2, num_attention_heads=2)
        module = AutoModelForCausalLM.from_config(config).eval()
    else:
        module = tiny_model(family, **keys)
    known = continuation_of(wrap_model(module, model_config()))
    assert (known.causal, known.cached, known.stacked, known.packed) == (causal, cached, stacked, packed)
    assert known.padded


def test_a_model_that_ignores_the_cache_is_not_trusted():
    module = tiny_model("llama")
    plain = module.model.forward
    module.model.forward = lambda *args, past_key_values=None, **keys: plain(*args, **keys)
    known = continuation_of(wrap_model(module, model_config()))
    assert known.causal
    assert not known.cached
