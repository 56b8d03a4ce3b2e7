"""The modulated forward pass against one that is written out, and against plain hooks in every family."""

import math
from typing import cast

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import silu, softmax

from src.models import LanguageModel
from src.modulators.injection import changed_inputs
from src.modulators.residual import ResidualModulator
from tests.fixtures.tiny_models import D_MODEL, FAMILIES, MORE_FAMILIES, N_VOCAB, ragged_batch
from tests.fixtures.tiny_modulators import STACKS, modulators, residual_modulator, wrapped

LENGTHS = [7, 3, 5]
EVERYWHERE = [*((family, "auto") for family in (*FAMILIES, *MORE_FAMILIES, "roberta", "modernbert")), *STACKS]


def run(model: LanguageModel, ids: Tensor, mask: Tensor) -> Tensor:
    decoder = {"decoder_input_ids": ids.flip(1)} if model.module.config.is_encoder_decoder else {}
    cache = {"use_cache": False} if "use_cache" in model.forward_arguments else {}
    with torch.no_grad():
        return model.module(input_ids=ids, attention_mask=mask, **decoder, **cache)[0]


def mixed(modulator: ResidualModulator, r: Tensor, ids: Tensor, layer: int) -> Tensor:
    """r' = (1 - a) r + a |r| unit(P G[token]) for known tokens (spec G1, G5), token by token."""
    alpha = 1 / (1 + math.exp(-float(modulator.strength[layer].detach())))
    changed = r.clone()
    for row in range(ids.shape[0]):
        for pos in range(ids.shape[1]):
            token = int(ids[row, pos])
            if bool(modulator.known[token]):
                target = modulator.projection.detach() @ modulator.table.detach()[token]
                target = target / target.norm() * r[row, pos].norm()
                changed[row, pos] = (1 - alpha) * r[row, pos] + alpha * target
    return changed


def rms(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    return x / (x.square().mean(-1, keepdim=True) + eps).sqrt() * weight


def split_heads(x: Tensor, d_head: int) -> Tensor:
    return x.unflatten(-1, (-1, d_head)).transpose(1, 2)


def rotated(x: Tensor, theta: float) -> Tensor:
    half = x.shape[-1] // 2
    angles = torch.arange(x.shape[-2])[:, None] * theta ** (-torch.arange(half) / half)
    first, second = x[..., :half], x[..., half:]
    return torch.cat(
        [first * angles.cos() - second * angles.sin(), second * angles.cos() + first * angles.sin()], dim=-1
    )


def llama_by_hand(model: LanguageModel, modulator: ResidualModulator, ids: Tensor, mask: Tensor) -> Tensor:
    weights, config = dict(model.module.named_parameters()), model.module.config
    eps, d_head = config.rms_norm_eps, D_MODEL // config.num_attention_heads
    n_pos = ids.shape[1]
    seen = torch.ones(n_pos, n_pos).tril().bool() & mask[:, None, None, :].bool()
    x = weights["model.embed_tokens.weight"][ids]
    for layer in range(model.n_layers):
        of = {name.split(f"layers.{layer}.")[1]: w for name, w in weights.items() if f"layers.{layer}." in name}
        x = mixed(modulator, x, ids, layer)
        normed = rms(x, of["input_layernorm.weight"], eps)
        q, k, v = (split_heads(normed @ of[f"self_attn.{name}_proj.weight"].T, d_head) for name in "qkv")
        q, k = (rotated(it, config.rope_parameters["rope_theta"]) for it in (q, k))
        k, v = (it.repeat_interleave(q.shape[1] // it.shape[1], dim=1) for it in (k, v))
        scores = (q @ k.mT / d_head**0.5).masked_fill(~seen, -torch.inf)
        mixed_heads = (softmax(scores, -1) @ v).transpose(1, 2).flatten(2)
        x = x + mixed_heads @ of["self_attn.o_proj.weight"].T
        normed = rms(x, of["post_attention_layernorm.weight"], eps)
        gate = silu(normed @ of["mlp.gate_proj.weight"].T) * (normed @ of["mlp.up_proj.weight"].T)
        x = x + gate @ of["mlp.down_proj.weight"].T
    return rms(x, weights["model.norm.weight"], eps) @ weights["lm_head.weight"].T


def t5_encoder_by_hand(model: LanguageModel, modulator: ResidualModulator, ids: Tensor, mask: Tensor) -> Tensor:
    """No scale on attention scores, position biases of the first block in all of them, norms without a mean."""
    weights, config = dict(model.inner.module.named_parameters()), model.module.config
    eps, n_pos = config.layer_norm_epsilon, ids.shape[1]
    attention = model.blocks[0].get_submodule("layer.0.SelfAttention")
    buckets = attention._relative_position_bucket(  # pyright: ignore[reportCallIssue]
        torch.arange(n_pos)[None] - torch.arange(n_pos)[:, None],
        bidirectional=True,
        num_buckets=config.relative_attention_num_buckets,
        max_distance=config.relative_attention_max_distance,
    )
    bias = weights["block.0.layer.0.SelfAttention.relative_attention_bias.weight"][buckets].permute(2, 0, 1)
    x = weights["embed_tokens.weight"][ids]
    for layer in range(model.n_layers):
        of = {name.split(f"block.{layer}.")[1]: w for name, w in weights.items() if f"block.{layer}." in name}
        x = mixed(modulator, x, ids, layer)
        normed = rms(x, of["layer.0.layer_norm.weight"], eps)
        q, k, v = (split_heads(normed @ of[f"layer.0.SelfAttention.{name}.weight"].T, config.d_kv) for name in "qkv")
        scores = (q @ k.mT + bias).masked_fill(~mask[:, None, None].bool(), -torch.inf)
        mixed_heads = (softmax(scores, -1) @ v).transpose(1, 2).flatten(2)
        x = x + mixed_heads @ of["layer.0.SelfAttention.o.weight"].T
        normed = rms(x, of["layer.1.layer_norm.weight"], eps)
        x = x + (normed @ of["layer.1.DenseReluDense.wi.weight"].T).relu() @ of["layer.1.DenseReluDense.wo.weight"].T
    return rms(x, weights["final_layer_norm.weight"], eps)


@torch.no_grad()
def test_a_modulated_llama_is_the_forward_pass_written_out():
    model = wrapped("llama")
    modulator = residual_modulator(model, unknown=[0, 3, 4, 5, 50])
    ids, mask = ragged_batch(LENGTHS)
    ids[0, 2] = 50
    expected = llama_by_hand(model, modulator, ids, mask)
    with modulator.attached(model):
        found = run(model, ids, mask)
    torch.testing.assert_close(found[mask.bool()], expected[mask.bool()], atol=2e-5, rtol=1e-4)
    assert (run(model, ids, mask) - found)[mask.bool()].abs().max() > 0.1


@torch.no_grad()
def test_a_modulated_t5_encoder_is_the_forward_pass_written_out():
    model = wrapped("t5_with_head", "encoder")
    modulator = residual_modulator(model, unknown=[0, 7])
    ids, mask = ragged_batch(LENGTHS)
    expected = t5_encoder_by_hand(model, modulator, ids, mask)
    with modulator.attached(model):
        found = model.inner(ids, mask).last_hidden_state
    torch.testing.assert_close(found[mask.bool()], expected[mask.bool()], atol=2e-5, rtol=1e-4)
    assert (model.inner(ids, mask).last_hidden_state - found)[mask.bool()].abs().max() > 0.1


@pytest.mark.parametrize(("family", "stack"), EVERYWHERE)
def test_every_block_of_every_family_is_given_the_change_of_its_own_tokens(family: str, stack: str):
    """Bit for bit what plain hooks give that are told the ids; a decoder's ids are not its encoder's."""
    model = wrapped(family, "encoder" if family == "t5" else stack)
    ids, mask = ragged_batch(LENGTHS)
    own_ids = ids.flip(1) if stack == "decoder" else ids
    draws = torch.Generator().manual_seed(3)
    steps = torch.randn(N_VOCAB, D_MODEL, generator=draws)
    before = run(model, ids, mask)

    def plain(layer: int):
        def hook(_module, args, kwargs):
            states = args[0] if args else kwargs["hidden_states"]
            states = states + (layer + 1) * steps[own_ids]
            return ((states, *args[1:]), kwargs) if args else (args, kwargs | {"hidden_states": states})

        return hook

    handles = [
        block.register_forward_pre_hook(plain(layer), with_kwargs=True) for layer, block in enumerate(model.blocks)
    ]
    expected = run(model, ids, mask)
    for handle in handles:
        handle.remove()
    with changed_inputs(model, range(model.n_layers), lambda r, tokens, layer: r + (layer + 1) * steps[tokens]):
        found = run(model, ids, mask)
    assert torch.equal(found, expected)
    assert not torch.equal(found, before)
    assert torch.equal(run(model, ids, mask), before)


@pytest.mark.parametrize(("family", "stack"), [("llama", "auto"), ("gpt2", "auto"), ("bert", "auto"), *STACKS])
def test_nothing_is_changed_at_alpha_0_or_where_no_token_is_known(family: str, stack: str):
    """BUG G-3: a token without a vector is left alone, to the bit."""
    model = wrapped(family, stack)
    ids, mask = ragged_batch(LENGTHS)
    before = run(model, ids, mask)
    at_zero, all_unknown = residual_modulator(model), residual_modulator(model, unknown=range(N_VOCAB))
    with torch.no_grad():
        at_zero.strength.fill_(-torch.inf)
    for modulator in (at_zero, all_unknown):
        with modulator.attached(model):
            assert torch.equal(run(model, ids, mask), before)
    with residual_modulator(model).attached(model):
        assert not torch.equal(run(model, ids, mask), before)


def test_an_unknown_token_changes_only_by_what_known_ones_say():
    """In a causal model, what stands before the first known token is the frozen model's, to the bit."""
    model = wrapped("llama")
    ids = torch.tensor([[5, 6, 7, 8, 9]])
    before = run(model, ids, torch.ones_like(ids))
    with residual_modulator(model, unknown=[5, 6, 7, 9]).attached(model):
        found = run(model, ids, torch.ones_like(ids))
    assert torch.equal(found[:, :3], before[:, :3])
    assert (found[:, 3:] != before[:, 3:]).any(-1).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("family", "stack"), [("llama", "auto"), ("t5_with_head", "encoder")])
def test_half_precision_keeps_its_stream_and_the_modulator_float32(family: str, stack: str, dtype: torch.dtype):
    model = wrapped(family, stack)
    ids, mask = ragged_batch(LENGTHS)
    for name, modulator in modulators(model).items():
        with modulator.attached(model):
            exact = run(model, ids, mask)
        half = wrapped(family, stack)
        cast(nn.Module, half.module).to(dtype)
        with modulator.attached(half):
            found = run(half, ids, mask)
        assert found.dtype == dtype
        frozen = run(half, ids, mask).float()
        error = (found.float() - exact)[mask.bool()].norm() / (frozen - exact)[mask.bool()].norm()
        assert error < 0.15, name
        residual = half.module.get_input_embeddings()(ids)
        assert modulator(residual, ids, 0).dtype == dtype
        assert {parameter.dtype for parameter in modulator.parameters()} == {torch.float32}


def test_the_modulator_computes_in_float32_under_autocast():
    model = wrapped("llama")
    ids, mask = ragged_batch(LENGTHS)
    modulator = residual_modulator(model)
    seen = []

    def change(residual: Tensor, tokens: Tensor, layer: int) -> Tensor:
        seen.append((modulator.table[tokens] @ modulator.projection.T).dtype)
        return modulator(residual, tokens, layer)

    with torch.autocast("cpu", dtype=torch.bfloat16), changed_inputs(model, [1], change):
        assert run(model, ids, mask).dtype == torch.bfloat16
    assert seen == [torch.float32]


@pytest.mark.parametrize("match_norms", [True, False])
def test_gradients_are_those_of_the_loss(match_norms):
    """By finite differences: lengths that targets take are not constants, since earlier layers move them."""
    model = wrapped("llama")
    for parameter in model.module.parameters():
        parameter.data = parameter.data.double()
    modulator = residual_modulator(model).double()
    modulator.match_norms = match_norms
    ids = torch.randint(0, N_VOCAB, (3, 9), generator=torch.Generator().manual_seed(0))

    def loss() -> Tensor:
        with modulator.attached(model):
            logits = model.module(input_ids=ids).logits[:, :-1].double()
        return torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())

    (found,) = torch.autograd.grad(loss(), [modulator.strength])
    step, expected = 1e-3, []
    with torch.no_grad():
        for layer in range(model.n_layers):
            ends = []
            for way in (step, -2 * step):
                modulator.strength[layer] += way
                ends.append(float(loss()))
            modulator.strength[layer] += step
            expected.append((ends[0] - ends[1]) / (2 * step))
    # the library takes some steps in float32
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=2e-3, atol=1e-4)
