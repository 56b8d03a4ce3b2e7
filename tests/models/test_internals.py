"""q, k, v and neurons are those of the modelling code, however it lays them out; what is not there is refused."""

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import linear
from transformers import DynamicCache
from transformers.activations import ACT2FN

from src.errors import StrataError
from src.hook_points import MLP_SOURCES, QKV_SOURCES, SOURCES
from src.models import LanguageModel, wrap_model
from src.models.recording import ActivationRecorder
from src.models.sources import AttentionShape, attention_shape, available_sources, check_sources
from tests.fixtures.tiny_models import FAMILIES, MORE_FAMILIES, N_LAYERS, model_config, ragged_batch, tiny_model

EVERY = (*FAMILIES, *MORE_FAMILIES)
ENCODERS = ("bert", "distilbert", "t5")
CHAINED = "deepseek_v3"  # its queries, keys and values come through a compressed state
MIXTURES = {"qwen3_moe": [0], "deepseek_v3": [0], "gpt_oss": [], "qwen3_next": []}  # layers with an ordinary MLP
LENGTHS = [7, 4]

_model = functools.cache(lambda family: wrap_model(tiny_model(family, seed=1), model_config()))

# as the modelling code has it: where the projections are
SEPARATE = {
    **dict.fromkeys(
        ("llama", "qwen2", "qwen3", "mistral", "gemma2", "gemma3", "olmo2", "phi", "glm"), "self_attn.{}_proj"
    ),
    **dict.fromkeys(("opt", "opt_post_norm", "qwen3_moe", "gpt_oss"), "self_attn.{}_proj"),
    "gpt_neo": "attn.attention.{}_proj",
    "gptj": "attn.{}_proj",
    "distilbert": "attention.{}_lin",
    "t5": "layer.0.SelfAttention.{}",
}
HEADS, D_HEAD = 4, 4


def _one_after_the_other(n_kv_heads: int) -> Callable[[Tensor], tuple[Tensor, ...]]:
    return lambda fused: fused.split([HEADS * D_HEAD, n_kv_heads * D_HEAD, n_kv_heads * D_HEAD], -1)


def _by_group(n_groups: int) -> Callable[[Tensor], tuple[Tensor, ...]]:
    """Queries of a group of heads, then its key, then its value."""

    def split(fused: Tensor) -> tuple[Tensor, ...]:
        groups = fused.unflatten(-1, (n_groups, HEADS // n_groups + 2, D_HEAD))
        return groups[..., :-2, :].flatten(-3), groups[..., -2, :].flatten(-2), groups[..., -1, :].flatten(-2)

    return split


def _codegen(fused: Tensor) -> tuple[Tensor, ...]:
    query, value, key = fused.unflatten(-1, (4, 3, -1)).unbind(-2)
    return query.flatten(-2), key.flatten(-2), value.flatten(-2)


FUSED: dict[str, tuple[str, Callable[[Tensor], tuple[Tensor, ...]]]] = {
    "gpt2": ("attn.c_attn", _one_after_the_other(4)),
    "gpt_bigcode": ("attn.c_attn", _one_after_the_other(1)),
    "gpt_bigcode_heads": ("attn.c_attn", _by_group(4)),
    "phi3": ("self_attn.qkv_proj", _one_after_the_other(2)),
    "mpt": ("attn.Wqkv", _one_after_the_other(4)),
    "gpt_neox": ("attention.query_key_value", _by_group(4)),
    "gpt_neox_sequential": ("attention.query_key_value", _by_group(4)),
    "persimmon": ("self_attn.query_key_value", _by_group(4)),
    "bloom": ("self_attention.query_key_value", _by_group(4)),
    "falcon": ("self_attention.query_key_value", _one_after_the_other(1)),
    "falcon_sequential": ("self_attention.query_key_value", _one_after_the_other(1)),
    "falcon_new": ("self_attention.query_key_value", _by_group(2)),
    "falcon_alibi": ("self_attention.query_key_value", _by_group(4)),
    "codegen": ("attn.qkv_proj", _codegen),
}


def _record(model: LanguageModel, sources: Any, layers: Any = range(N_LAYERS)) -> dict[str, Tensor]:
    """Every token of a batch: [layer, token, width]."""
    ids, mask = ragged_batch(LENGTHS)
    with ActivationRecorder(model, sources, layers) as recorder, torch.inference_mode():
        recorder.want()
        model.inner(ids, mask)
        return recorder.take()


def _taken_and_given(model: LanguageModel, paths: list[str]) -> list[list[tuple[Tensor, Tensor]]]:
    """Inputs and outputs of modules in every layer, [token, width], by plain hooks that copy."""
    found: list[list[tuple[Tensor, Tensor]]] = []
    ids, mask = ragged_batch(LENGTHS)
    for block in model.blocks:
        found.append([])
        for path in paths:

            def note(
                _module: nn.Module, args: Any, output: Any, seen: Any = found[-1], at: int = len(found[-1])
            ) -> None:
                output = output[0] if isinstance(output, tuple) else output
                seen[at] = tuple(value.clone().reshape(ids.numel(), -1) for value in (args[0], output))

            found[-1].append(None)  # pyright: ignore[reportArgumentType]
            block.get_submodule(path).register_forward_hook(note)
    with torch.inference_mode():
        model.inner(ids, mask)
    for block in model.blocks:
        for path in paths:
            block.get_submodule(path)._forward_hooks.clear()
    return found


def _applied(module: nn.Module, given: Tensor) -> Tensor:
    """A projection's weight (Conv1D: transposed) and bias, without running the module."""
    weight: Any = module.weight
    return linear(given, weight.T if type(module).__name__ == "Conv1D" else weight, module.bias)  # pyright: ignore


@pytest.mark.parametrize("family", sorted(SEPARATE))
def test_separate_projections(family: str) -> None:
    model = _model(family)
    paths = [SEPARATE[family].format(role) for role in QKV_SOURCES]
    recorded = _record(model, QKV_SOURCES)
    for layer, calls in enumerate(_taken_and_given(model, paths)):
        for role, path, (given, _) in zip(QKV_SOURCES, paths, calls, strict=True):
            expected = _applied(model.blocks[layer].get_submodule(path), given)
            torch.testing.assert_close(recorded[role][layer], expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", sorted(FUSED))
def test_fused_projections_are_split_as_the_model_splits_them(family: str) -> None:
    model, (path, split) = _model(family), FUSED[family]
    recorded = _record(model, QKV_SOURCES)
    for layer, ((given, _),) in enumerate(_taken_and_given(model, [path])):
        fused = _applied(model.blocks[layer].get_submodule(path), given)
        for role, expected in zip(QKV_SOURCES, split(fused), strict=True):
            torch.testing.assert_close(recorded[role][layer], expected, atol=1e-5, rtol=1e-5)


class _Shuffled(nn.Module):
    """A fused projection whose rows are stored in another order."""

    def __init__(self, fused: nn.Linear, order: Tensor) -> None:
        super().__init__()
        self.back = order.argsort()
        self.stored = nn.Linear(16, 48)
        self.stored.weight, self.stored.bias = nn.Parameter(fused.weight[order]), nn.Parameter(fused.bias[order])

    def forward(self, x: Tensor) -> Tensor:
        return self.stored(x)[..., self.back]


def test_heads_come_in_the_order_of_the_attention() -> None:
    expected = _record(_model("gpt_neox"), QKV_SOURCES)
    module = tiny_model("gpt_neox", seed=1)
    order = torch.arange(48).view(4, 3, 4)[[2, 0, 3, 1]].flip(1).flatten()  # heads mixed; value, key, query
    for block in module.gpt_neox.layers:
        block.attention.query_key_value = _Shuffled(block.attention.query_key_value, order)
    found = _record(wrap_model(module, model_config()), QKV_SOURCES)
    for role in QKV_SOURCES:
        torch.testing.assert_close(found[role], expected[role])


def test_projections_that_are_clipped_in_place_are_read_before() -> None:
    """olmo clips to +-0.5 what its projections return."""
    model = _model("olmo")
    paths = [f"self_attn.{role}_proj" for role in QKV_SOURCES]
    recorded = _record(model, QKV_SOURCES)
    for layer, calls in enumerate(_taken_and_given(model, paths)):
        for role, path, (given, _) in zip(QKV_SOURCES, paths, calls, strict=True):
            expected = _applied(model.blocks[layer].get_submodule(path), given)
            torch.testing.assert_close(recorded[role][layer], expected, atol=1e-5, rtol=1e-5)
            assert float(recorded[role][layer].abs().max()) > 0.5


def test_a_gate_that_is_fused_with_the_queries_is_left_out() -> None:
    """qwen3_next: q_proj gives each head its query and then the gate of its output; layer 0 has linear attention."""
    model = _model("qwen3_next")
    recorded = _record(model, ["q", "k"], [1, 2])
    hooked = {}
    for layer in (1, 2):
        projection = model.blocks[layer].get_submodule("self_attn.q_proj")
        projection.register_forward_hook(lambda _m, _a, output, layer=layer: hooked.update({layer: output.clone()}))
    again = _record(model, ["resid_post"], [2])
    assert again
    for place, layer in enumerate((1, 2)):
        model.blocks[layer].get_submodule("self_attn.q_proj")._forward_hooks.clear()
        heads = hooked[layer].reshape(-1, HEADS, 2 * D_HEAD)
        torch.testing.assert_close(recorded["q"][place], heads[..., :D_HEAD].flatten(1))


@pytest.mark.parametrize("family", sorted({*EVERY} - {*ENCODERS, CHAINED, "qwen3_next", "olmo", "falcon_new"}))
def test_values_are_those_of_the_cache_and_keys_where_positions_do_not_turn_them(family: str) -> None:
    """A cache holds v as it is, and k after norms and rotation, which at position 0 is none."""
    model = _model(family)
    ids, _ = ragged_batch([5])
    cache = DynamicCache()
    with ActivationRecorder(model, ["k", "v"], range(N_LAYERS)) as recorder, torch.inference_mode():
        recorder.want()
        model.inner(ids, torch.ones_like(ids), past_key_values=cache, use_cache=True)
        recorded = recorder.take()
    for layer, kept in enumerate(cache.layers):
        keys, values = (states[0].transpose(0, 1).flatten(1) for states in (kept.keys, kept.values))
        torch.testing.assert_close(recorded["v"][layer], values)
        if family in ("qwen3", "gemma3", "olmo2", "persimmon", "qwen3_moe"):  # a norm comes between
            continue
        scale = 1.3465736 if family == "gpt_oss" else 1.0  # yarn scales what it rotates: 0.1 ln 32 + 1
        torch.testing.assert_close(scale * recorded["k"][layer, 0], keys[0], atol=1e-5, rtol=1e-5)


# activation, and the modules of each MLP: gate (None, or the same as up: fused, gate first), up, down
MLPS: dict[str, tuple[str, str | None, str, str]] = {
    **dict.fromkeys(
        ("llama", "qwen2", "qwen3", "mistral", "olmo2", "olmo"), ("silu", "gate_proj", "up_proj", "down_proj")
    ),
    **dict.fromkeys(("gemma2", "gemma3"), ("gelu_pytorch_tanh", "gate_proj", "up_proj", "down_proj")),
    **dict.fromkeys(("phi3", "glm"), ("silu", "gate_up_proj", "gate_up_proj", "down_proj")),
    **dict.fromkeys(("gpt_neox", "gpt_neox_sequential"), ("gelu", None, "dense_h_to_4h", "dense_4h_to_h")),
    **dict.fromkeys(("falcon", "falcon_new"), ("gelu", None, "dense_h_to_4h", "dense_4h_to_h")),
    **dict.fromkeys(("falcon_sequential", "falcon_alibi"), ("gelu", None, "dense_h_to_4h", "dense_4h_to_h")),
    **dict.fromkeys(("gpt2", "gpt_neo"), ("gelu_new", None, "c_fc", "c_proj")),
    **dict.fromkeys(("gptj", "codegen"), ("gelu_new", None, "fc_in", "fc_out")),
    "persimmon": ("relu2", None, "dense_h_to_4h", "dense_4h_to_h"),
    "phi": ("gelu_new", None, "fc1", "fc2"),
    "mpt": ("gelu", None, "up_proj", "down_proj"),
    "gpt_bigcode": ("gelu_pytorch_tanh", None, "c_fc", "c_proj"),
    "distilbert": ("gelu", None, "lin1", "lin2"),
    "bert": ("gelu", None, "intermediate.dense", "output.dense"),
    "opt": ("relu", None, "fc1", "fc2"),
    "opt_post_norm": ("relu", None, "fc1", "fc2"),
    "t5": ("relu", None, "wi", "wo"),
}
INSIDE = {
    "bert": "",
    "opt": "",
    "opt_post_norm": "",
    "distilbert": "ffn.",
    "mpt": "ffn.",
    "t5": "layer.1.DenseReluDense.",
}


@pytest.mark.parametrize("family", sorted(MLPS))
def test_neurons_and_their_projections(family: str) -> None:
    model, (activation, gate, up, down) = _model(family), MLPS[family]
    inside = INSIDE.get(family, "mlp.")
    recorded = _record(model, ["mlp_up", "mlp_act", *(["mlp_gate"] if gate else [])])
    for layer, calls in enumerate(_taken_and_given(model, [inside + up, inside + down])):
        (given, _), (_, output) = calls
        project = model.blocks[layer].get_submodule(inside + up)
        projected = _applied(project, given)
        neurons = recorded["mlp_act"][layer]
        if gate is None:
            torch.testing.assert_close(recorded["mlp_up"][layer], projected, atol=1e-5, rtol=1e-5)
            torch.testing.assert_close(ACT2FN[activation](projected), neurons, atol=1e-5, rtol=1e-5)
        else:
            fused = projected.split(24, -1)
            gates = fused[0] if gate == up else _applied(model.blocks[layer].get_submodule(inside + gate), given)
            torch.testing.assert_close(recorded["mlp_gate"][layer], gates, atol=1e-5, rtol=1e-5)
            torch.testing.assert_close(recorded["mlp_up"][layer], fused[-1], atol=1e-5, rtol=1e-5)
            torch.testing.assert_close(ACT2FN[activation](gates) * fused[-1], neurons, atol=1e-5, rtol=1e-5)
        # through the down projection they are the MLP's output, before any norm after it
        of_neurons = _applied(model.blocks[layer].get_submodule(inside + down), neurons)
        torch.testing.assert_close(of_neurons, output, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("activation", ["relu", "silu"])
def test_gate_and_up_are_told_apart_by_what_they_do(activation: str) -> None:
    """Names swapped, and with relu both are homogeneous of degree 1."""
    model = wrap_model(tiny_model("llama", hidden_act=activation), model_config())
    expected = _record(model, ["mlp_gate", "mlp_up"])
    module = tiny_model("llama", hidden_act=activation)
    for block in module.model.layers:
        mlp = block.mlp
        mlp.first, mlp.second = mlp.up_proj, mlp.gate_proj
        del mlp.up_proj, mlp.gate_proj
        mlp.forward = lambda x, mlp=mlp: mlp.down_proj(mlp.first(x) * mlp.act_fn(mlp.second(x)))
    found = _record(wrap_model(module, model_config()), ["mlp_gate", "mlp_up"])
    assert all(torch.equal(found[source], expected[source]) for source in found)


def test_gated_t5() -> None:
    model = wrap_model(tiny_model("t5", feed_forward_proj="gated-gelu"), model_config())
    recorded = _record(model, MLP_SOURCES)
    neurons = ACT2FN["gelu_new"](recorded["mlp_gate"]) * recorded["mlp_up"]
    torch.testing.assert_close(neurons, recorded["mlp_act"])


class _InTurn(nn.Module):
    """An MLP whose gates and up-projections take turns in one fused projection."""

    def __init__(self, mlp: nn.Module) -> None:
        super().__init__()
        self.both, self.down = nn.Linear(16, 48, bias=False), mlp.down_proj
        weights = torch.stack([mlp.gate_proj.weight, mlp.up_proj.weight], 1)  # pyright: ignore[reportArgumentType]
        self.both.weight = nn.Parameter(weights.flatten(0, 1))

    def forward(self, x: Tensor) -> Tensor:
        both = self.both(x)
        return self.down(nn.functional.silu(both[..., ::2]) * both[..., 1::2])  # pyright: ignore


def test_a_fused_gate_whose_columns_take_turns() -> None:
    expected = _record(_model("llama"), MLP_SOURCES)
    module = tiny_model("llama", seed=1)
    for block in module.model.layers:
        block.mlp = _InTurn(block.mlp)
    found = _record(wrap_model(module, model_config()), MLP_SOURCES)
    for source in MLP_SOURCES:
        torch.testing.assert_close(found[source], expected[source], atol=1e-5, rtol=1e-5)


class _NormedNeurons(nn.Module):
    """A norm between the neurons and the down projection."""

    def __init__(self, mlp: nn.Module) -> None:
        super().__init__()
        self.mlp, self.norm = mlp, nn.LayerNorm(24)

    def forward(self, x: Tensor) -> Tensor:
        mlp: Any = self.mlp
        return mlp.down_proj(self.norm(mlp.act_fn(mlp.gate_proj(x)) * mlp.up_proj(x)))


def test_projections_that_do_not_make_the_neurons_are_refused() -> None:
    module = tiny_model("llama")
    for block in module.model.layers:
        block.mlp = _NormedNeurons(block.mlp)
    model = wrap_model(module, model_config())
    found = available_sources(model)
    assert found["mlp_act"] is None
    assert found["mlp_up"] is not None
    assert "not f(up) or f(gate) * up of linear maps (mlp.mlp.gate_proj, mlp.mlp.up_proj)" in found["mlp_up"]
    with pytest.raises(StrataError, match=r"mlp_gate, mlp_up: the neurons \(input of mlp\.mlp\.down_proj\)"):
        check_sources(model, MLP_SOURCES, [0])


@pytest.mark.parametrize("family", sorted(MIXTURES))
def test_mixtures_of_experts_refuse_neurons_and_give_the_rest(family: str) -> None:
    model, ordinary = _model(family), MIXTURES[family]
    rest = [layer for layer in range(N_LAYERS) if layer not in ordinary]
    with pytest.raises(StrataError, match=r"mlp_gate, mlp_up, mlp_act: .*as in a mixture of experts") as error:
        check_sources(model, SOURCES, rest)
    assert "Leave these sources, or these layers, out" in str(error.value)
    recorded = _record(model, ["resid_pre", "attn_out", "mlp_out", "resid_post"])
    whole = recorded["resid_pre"] + recorded["attn_out"] + recorded["mlp_out"]
    torch.testing.assert_close(whole, recorded["resid_post"], atol=1e-5, rtol=1e-5)
    if ordinary:
        assert set(_record(model, MLP_SOURCES, ordinary)) == set(MLP_SOURCES)


def test_what_is_available() -> None:
    everything = dict.fromkeys(SOURCES)
    assert available_sources(_model("llama")) == everything
    assert available_sources(_model("gpt2")) == everything | {"mlp_gate": "the MLP has no gate"}
    chained = available_sources(_model(CHAINED))
    assert chained["attention"] is None
    assert all("more than one linear map (then self_attn.q_b_proj" in str(chained[role]) for role in QKV_SOURCES)
    decoder = available_sources(wrap_model(tiny_model("t5"), model_config(stack="decoder")))
    assert {source for source, reason in decoder.items() if reason is None} == {"resid_pre", "resid_post"}


@pytest.mark.parametrize(("sources", "layers", "message"), [
    (["resid"], [0], "unknown sources resid: choose from resid_pre, "),
    (["q"], [1, 3], r"layer 3: the model has layers 0\.\.2"),
    (["q"], [-1], "layer -1: the model has layers"),
    (["mlp_gate", "q"], [0], r"GPT2LMHeadModel \(tiny\) does not offer .*\n  mlp_gate: the MLP has no gate\nLeave"),
])  # fmt: skip
def test_what_is_missing_is_said_at_once(sources: list[str], layers: list[int], message: str) -> None:
    with pytest.raises(StrataError, match=message), ActivationRecorder(_model("gpt2"), sources, layers):
        pytest.fail("nothing should run")


def test_layers_of_different_widths_are_not_recorded_together() -> None:
    module = tiny_model("llama")
    module.model.layers[1].mlp = type(module.model.layers[1].mlp)(
        module.config.__class__(**module.config.to_dict() | {"intermediate_size": 40})
    )
    model = wrap_model(module, model_config())
    with pytest.raises(StrataError, match="must be alike: 24 columns at layers 0, 2; 40 columns at layer 1"):
        check_sources(model, ["mlp_act"], range(3))
    check_sources(model, ["mlp_act"], [0, 2])


def test_shape_of_the_attention() -> None:
    assert attention_shape(_model("llama")) == AttentionShape(n_heads=4, n_kv_heads=2, d_head=4)
    assert attention_shape(_model("falcon")) == (4, 1, 4)
    assert attention_shape(_model("falcon_new")) == (4, 2, 4)
    assert attention_shape(_model("qwen3_next"), [1, 2]) == (4, 2, 4)
    wide = wrap_model(tiny_model("gemma2", head_dim=8), model_config())
    assert attention_shape(wide) == (4, 2, 8)  # not d_model / n_heads
    with pytest.raises(StrataError, match="q, k, v, attention: layer 0"):
        attention_shape(_model("qwen3_next"))


def test_a_config_that_says_otherwise_is_found_out() -> None:
    model = wrap_model(tiny_model("llama"), model_config())
    model.module.config.head_dim = 8
    with pytest.raises(StrataError, match=r"says head_dim=8, but its attention has 4 \(4 heads; queries of 16"):
        attention_shape(model)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("family", ["llama", "qwen3", "gpt_neox", "falcon_new", "phi3", "gemma2", "opt"])
def test_half_precision_finds_the_same_places(family: str, dtype: torch.dtype) -> None:
    single, half = _model(family), wrap_model(tiny_model(family, seed=1).to(dtype), model_config())
    assert available_sources(half) == available_sources(single)
    sources = [source for source, reason in available_sources(single).items() if reason is None]
    expected, found = _record(single, sources), _record(half, sources)
    for source in sources:
        assert found[source].dtype == dtype
        assert float((found[source].float() - expected[source]).norm()) < 0.2 * float(expected[source].norm())


def test_saturated_attention_does_not_hide_its_projections() -> None:
    """Weights so large that on plain tokens no attention weight would answer to a query."""
    module = tiny_model("gpt_neox")
    with torch.no_grad():
        for block in module.gpt_neox.layers:
            block.attention.query_key_value.weight.mul_(1e4)
    places = wrap_model(module, model_config()).internals.attention
    assert all(not isinstance(found, str) for found in places)
    assert all(found.sites["q"].width == 16 for found in places)  # pyright: ignore
