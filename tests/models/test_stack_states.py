"""All states of a stack or of both, against Transformers' own recording."""

from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModel
from transformers.models.bart.modeling_bart import shift_tokens_right

from src.errors import StrataError
from src.hook_points import HookPoint
from src.models.language_model import wrap_model
from src.models.stack_states import run_stacks, shifted_right, stacks_of
from tests.fixtures.tiny_models import N_LAYERS, N_VOCAB, model_config, ragged_batch, tiny_model


def opened(module):
    return stacks_of(wrap_model(module, model_config()))


def read(stacks, ids, mask):
    """States by stack and layer: -1 before block 0, N_LAYERS after the final norm."""
    found = {}

    def take(stack, point, state):
        layer = N_LAYERS if point is None else -1 if point.hook == "resid_pre" else point.layer
        found[stack, layer] = state.clone()

    points = [HookPoint("resid_pre", 0), *(HookPoint("resid_post", layer) for layer in range(N_LAYERS))]
    run_stacks(stacks, ids, mask, [points] * len(stacks.models), take)
    return found


def test_a_decoder_is_given_what_the_library_would_give_it():
    t5: Any = tiny_model("t5")
    ids, _ = ragged_batch([6, 3])
    assert torch.equal(shifted_right(ids, 0), t5._shift_right(ids))
    assert torch.equal(shifted_right(ids, 2), shift_tokens_right(ids, pad_token_id=0, decoder_start_token_id=2))


def test_both_stacks_of_an_encoder_decoder_are_read_in_one_pass():
    t5: Any = tiny_model("t5")
    stacks = opened(t5)
    assert stacks.names == ("encoder", "decoder")
    assert stacks.has_final_norm == (True, True)
    ids, mask = ragged_batch([6, 3])
    found = read(stacks, ids, mask)
    with torch.inference_mode():
        recorded = t5(
            input_ids=ids,
            attention_mask=mask,
            decoder_input_ids=t5._shift_right(ids),
            decoder_attention_mask=mask,
            output_hidden_states=True,
        )
    for stack, entries in enumerate((recorded.encoder_hidden_states, recorded.decoder_hidden_states)):
        for layer in (*range(-1, N_LAYERS - 1), N_LAYERS):
            entry = min(layer + 1, N_LAYERS)
            assert torch.allclose(found[stack, layer][mask.bool()], entries[entry][mask.bool()], atol=1e-5)
        # what the library does not show: the last block before the final norm
        assert not torch.allclose(found[stack, N_LAYERS - 1], found[stack, N_LAYERS], atol=1e-2)
    # the same token begins from the same embedding, one position later
    assert torch.equal(found[0, -1][:, :-1], found[1, -1][:, 1:])


@pytest.mark.parametrize(("family", "has_norm"), [("llama", True), ("gpt2", True), ("bert", False)])
def test_the_final_norm_is_found_where_there_is_one(family, has_norm):
    stacks = opened(tiny_model(family))
    assert stacks.names == ("",)
    assert stacks.has_final_norm == (has_norm,)
    ids, mask = ragged_batch([5, 4])
    assert ((0, N_LAYERS) in read(stacks, ids, mask)) == has_norm


def test_an_encoder_decoder_that_does_not_know_its_start_is_refused():
    config = AutoConfig.for_model("t5", vocab_size=N_VOCAB, d_model=16, d_kv=4, d_ff=24, num_layers=2, num_heads=4)
    config.decoder_start_token_id = None
    with pytest.raises(StrataError, match="decoder_start_token_id"):
        opened(AutoModel.from_config(config))
