"""Folded queries and keys give the model's own attention logits, whatever the layout."""

import pytest
import torch
from torch import nn

from src.models.attention_rows import listening_to_sdpa
from src.models.checkpoint import catalogue, weights_of
from src.models.checkpoint.attention import AttentionWeights, attention_layers
from tests.fixtures.tiny_models import tiny_model

PLAIN = (
    *("llama", "qwen2", "mistral", "gemma2", "gpt2", "gpt_neox", "gpt_neox_sequential", "opt", "opt_post_norm"),
    *("phi3", "falcon", "falcon_new", "falcon_sequential", "bert", "distilbert", "phi", "glm", "gpt_neo", "gptj"),
    *("codegen", "gpt_bigcode", "gpt_bigcode_heads", "gpt_oss", "olmo"),
)
IMAGES = ("vit", "dinov2", "clip_vision_model")
NORMED = ("qwen3", "gemma3", "olmo2", "qwen3_next")


def without_positions(module: nn.Module) -> None:
    """All positions are offset 0 for rotary positions, and relative position biases are 0."""
    for name, buffer in module.named_buffers():
        if name.endswith("inv_freq"):
            buffer.zero_()
        elif name.endswith("embed_positions"):  # gptj: sines, then cosines
            buffer[:, : buffer.shape[1] // 2], buffer[:, buffer.shape[1] // 2 :] = 0, 1
    for name, parameter in module.named_parameters():
        if "relative_attention_bias" in name:
            parameter.data.zero_()


def divisors(module: nn.Module, states: torch.Tensor, layer: AttentionWeights, has_norm: bool) -> torch.Tensor:
    """What the norm before attention divides each token by."""
    if not has_norm:
        return torch.ones(len(states), dtype=torch.float64)
    states = states.double()
    centred = states - states.mean(-1, keepdim=True) if layer.centred else states
    names = ("rms_norm_eps", "layer_norm_epsilon", "layer_norm_eps", "norm_eps")
    eps = next((getattr(module.config, name) for name in names if getattr(module.config, name, None) is not None), 1e-5)
    return (centred.square().mean(-1) + eps).sqrt()


def logits(layer: AttentionWeights, states: torch.Tensor, n: torch.Tensor) -> torch.Tensor:
    """[head, query, key], by the definition of AttentionWeights."""
    scaled = states / n[:, None]
    q = torch.einsum("ham,tm->hta", layer.q, scaled)
    k = torch.einsum("ham,tm->hta", layer.k, scaled)
    q = q if layer.q_bias is None else q + layer.q_bias[:, None]
    k = k if layer.k_bias is None else k + layer.k_bias[:, None]
    return layer.logit_scale * q @ k.repeat_interleave(layer.repeats, 0).mT


def blocks_of(module: nn.Module, layers: list[AttentionWeights]) -> list[nn.Module]:
    return [module.get_submodule(layer.module.partition(f".{layer.layer}.")[0] + f".{layer.layer}") for layer in layers]


def run(family: str, implementation: str):
    """Layers of a tiny model in float64, the input of each block, and what each attention gave, on 4 tokens."""
    keys = {"gemma2": {"attn_logit_softcapping": None}, "olmo": {"clip_qkv": None}}.get(family, {})
    module = tiny_model(family, attn_implementation=implementation, **keys)
    module = module if family in ("gpt_oss", "qwen3_next") else module.double()  # experts are never float64
    without_positions(module)
    weights = weights_of(module)
    layers = list(attention_layers(weights, catalogue(weights)))
    seen, given = {}, {}
    hooks = [
        block.register_forward_pre_hook(
            lambda _, args, kwargs, place=place: seen.__setitem__(
                place, (args[0] if args else kwargs["hidden_states"])[0]
            ),
            with_kwargs=True,
        )
        for place, block in enumerate(blocks_of(module, layers))
    ]
    attention = {module.get_submodule(layer.module): place for place, layer in enumerate(layers)}
    inputs = {"input_ids": torch.tensor([[5, 17, 40, 8]])}
    if family in IMAGES:
        config = module.config
        draws = torch.Generator().manual_seed(0)
        inputs = {"pixel_values": torch.randn(1, 3, config.image_size, config.image_size, generator=draws).double()}
    with torch.no_grad():
        if implementation == "sdpa":
            listeners = {
                each: lambda inputs, place=place: given.__setitem__(place, inputs) for each, place in attention.items()
            }
            with listening_to_sdpa(listeners):
                module(**inputs)
        else:
            given = dict(enumerate(module(**inputs, output_attentions=True).attentions))
    for hook in hooks:
        hook.remove()
    return module, layers, seen, given


@pytest.mark.parametrize("family", [*PLAIN, *IMAGES, "roberta"])
def test_folded_heads_give_the_models_own_attention(family):
    module, layers, seen, given = run(family, "eager")
    assert len(layers) == 3
    has_norm = family not in ("bert", "roberta", "distilbert", "opt_post_norm")
    for place, layer in enumerate(layers):
        n = divisors(module, seen[place], layer, has_norm)
        found = given[place][0].log()
        expected = logits(layer, seen[place].double(), n)
        visible = found.isfinite() & (found > -600)
        # softmax knows logits up to a constant for each query
        gap = torch.where(visible, found - expected, torch.nan)
        spread = (gap - gap.nanmean(-1, keepdim=True)).abs()
        assert int(visible.sum()) >= 4 * 10
        assert float(spread[visible].max()) < 1e-3, place


@pytest.mark.parametrize("family", NORMED)
def test_norms_of_queries_and_keys_are_folded_but_for_their_division(family):
    module, layers, seen, given = run(family, "sdpa")
    for place, layer in enumerate(layers):
        assert layer.normed
        n = divisors(module, seen[place], layer, family != "olmo2")
        query, key = (
            given[place]["query"][0].double(),
            given[place]["key"][0].double().repeat_interleave(layer.repeats, 0),
        )
        expected = logits(layer, seen[place].double(), n) / layer.logit_scale
        # one positive divisor for each query and head, and one for each key and head
        ratio = (query @ key.mT) / expected
        assert bool((ratio > 0).all())
        logs = ratio.log()
        rank_one = logs.mean(1, keepdim=True) + logs.mean(2, keepdim=True) - logs.mean((1, 2), keepdim=True)
        torch.testing.assert_close(logs, rank_one, atol=1e-3, rtol=0)


def t5_logits(layer: AttentionWeights, targets: torch.Tensor, sources: torch.Tensor) -> torch.Tensor:
    def normed(states: torch.Tensor) -> torch.Tensor:
        return states / (states.square().mean(-1, keepdim=True) + 1e-6).sqrt()

    q = torch.einsum("ham,tm->hta", layer.q, normed(targets))
    return layer.logit_scale * q @ torch.einsum("ham,sm->has", layer.k, normed(sources))


@pytest.mark.parametrize("keys", [{}, {"d_kv": 6}])  # h * d_head = d_model, and not
def test_self_and_cross_attention_of_t5_read_raw_streams(keys):
    module = tiny_model("t5", attn_implementation="eager", **keys).double()
    without_positions(module)
    weights = weights_of(module)
    layers = list(attention_layers(weights, catalogue(weights)))
    seen = {}
    for name, submodule in module.named_modules():
        if name.endswith(("layer.0", "layer.1", "encoder.final_layer_norm")):
            submodule.register_forward_pre_hook(lambda _, args, name=name: seen.__setitem__(name, args[0][0]))
    with torch.no_grad():
        ids = torch.tensor([[5, 17, 40, 8, 9]])
        output = module(input_ids=ids, decoder_input_ids=ids[:, 1:], output_attentions=True)
    given = {
        ("encoder", "self"): output.encoder_attentions,
        ("decoder", "self"): output.decoder_attentions,
        ("decoder", "cross"): output.cross_attentions,
    }
    assert len(layers) == 9
    for layer in layers:
        targets = seen[layer.module.rpartition(".")[0]]
        sources = seen["encoder.final_layer_norm"] if layer.attention == "cross" else targets
        found = given[layer.stack, layer.attention][layer.layer][0].log()
        visible = found > -600
        gap = torch.where(visible, found - t5_logits(layer, targets, sources), torch.nan)
        assert float((gap - gap.nanmean(-1, keepdim=True)).abs()[visible].max()) < 1e-3


def test_what_a_head_writes_is_scaled_as_the_model_scales_it():
    """gemma2 norms what attention gives: with uniform gains of 3 more, a head writes 4 times as much."""
    module = tiny_model("gemma2")
    gains = [p for name, p in module.named_parameters() if "post_attention_layernorm" in name]
    written = []
    for gain in (0.0, 3.0):
        for parameter in gains:
            parameter.data.fill_(gain)  # multiplies by 1 + this
        weights = weights_of(module)
        written.append(next(attention_layers(weights, catalogue(weights))).o)
    torch.testing.assert_close(written[1], 4 * written[0])


def test_gated_queries_are_told_from_their_gates():
    """qwen3_next: the projection has queries and gates in turn, head by head."""
    module = tiny_model("qwen3_next")
    weights = weights_of(module)
    layer = next(attention_layers(weights, catalogue(weights)))
    attention = module.get_submodule(layer.module)
    rows = attention.q_proj.weight.double().unflatten(0, (4, 2, 4))[:, 0]
    gains = module.get_submodule(layer.module.replace("self_attn", "input_layernorm")).weight.double() + 1
    expected = rows * gains * (1 + attention.q_norm.weight.double())[:, None]
    torch.testing.assert_close(layer.q, expected.detach())


@pytest.mark.parametrize(
    ("family", "interleaved", "width"), [("llama", False, 4), ("gptj", True, 4), ("phi", False, 2)]
)
def test_rotary_positions_are_the_models_own(family, interleaved, width):
    module = tiny_model(family)
    weights = weights_of(module)
    layer = next(attention_layers(weights, catalogue(weights)))
    assert layer.rotary is not None
    assert sorted([*layer.rotary.first.tolist(), *layer.rotary.second.tolist()]) == list(range(width))
    assert (layer.rotary.second[0] == 1) == (interleaved or width == 2)
    torch.testing.assert_close(layer.rotary.frequencies, 10000.0 ** -(torch.arange(0, width, 2).double() / width))


@pytest.mark.parametrize(
    "family", ["llama", "qwen2", "gpt2", "gpt_neox", "opt", "phi3", "falcon", "falcon_new", "bert"]
)
def test_a_token_that_sees_itself_gets_what_its_heads_write(family):
    """Differences between tokens: biases of values and outputs are not folded."""
    module = tiny_model(family, attn_implementation="eager").double()
    weights = weights_of(module)
    layers = list(attention_layers(weights, catalogue(weights)))
    written: list[torch.Tensor] = []
    read: list[torch.Tensor] = []
    with torch.no_grad():
        for layer, block in zip(layers, blocks_of(module, layers), strict=True):
            path = layer.module.removesuffix(".self") if family == "bert" else layer.module
            attention = module.get_submodule(path).output.dense if family == "bert" else module.get_submodule(path)
            hooks = [
                block.register_forward_pre_hook(lambda _, args: read.append(args[0][0, 0])),
                attention.register_forward_hook(
                    lambda _, args, out: written.append((out[0] if isinstance(out, tuple) else out)[0, 0])
                ),
            ]
            for token in (5, 40):
                module(input_ids=torch.tensor([[token]]))
            for hook in hooks:
                hook.remove()
            states = torch.stack(read)
            scaled = states / divisors(module, states, layer, family != "bert")[:, None]
            v = layer.v.repeat_interleave(layer.repeats, 0)
            given = torch.einsum("hmv,hvn,tn->tm", layer.o, v, scaled)
            torch.testing.assert_close(given[0] - given[1], written[0] - written[1], atol=1e-4, rtol=1e-4)
            read.clear()
            written.clear()
