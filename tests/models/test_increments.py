"""attn_out and mlp_out are what blocks add to the residual stream."""

import pytest
import torch
from torch import Tensor, nn
from transformers import MambaConfig, MambaForCausalLM

from src.errors import StrataError
from src.hook_points import HOOKS, HookPoint
from src.models import LanguageModel, capture, wrap_model
from tests.fixtures.tiny_models import FAMILIES, N_LAYERS, model_config, ragged_batch, tiny_model

# families that normalise after adding: the norms of attention and MLP inside a block
POST_NORM = {
    "bert": ("attention.output.LayerNorm", "output.LayerNorm"),
    "distilbert": ("sa_layer_norm", "output_layer_norm"),
    "opt_post_norm": ("self_attn_layer_norm", "final_layer_norm"),
}
# as the modelling code has it: the module whose output is added, attention first
ADDED = {
    "llama": ("self_attn", "mlp"),
    "qwen2": ("self_attn", "mlp"),
    "qwen3": ("self_attn", "mlp"),
    "mistral": ("self_attn", "mlp"),
    "phi3": ("self_attn", "mlp"),
    "gemma2": ("post_attention_layernorm", "post_feedforward_layernorm"),
    "gemma3": ("post_attention_layernorm", "post_feedforward_layernorm"),
    "olmo2": ("post_attention_layernorm", "post_feedforward_layernorm"),
    "gpt2": ("attn", "mlp"),
    "gpt_neox": ("attention", "mlp"),
    "gpt_neox_sequential": ("attention", "mlp"),
    "falcon": ("self_attention", "mlp"),
    "falcon_new": ("self_attention", "mlp"),
    "falcon_sequential": ("self_attention", "mlp"),
    "opt": ("self_attn", "fc2"),
    "opt_post_norm": ("self_attn", "fc2"),
    "bert": ("attention.output.dense", "output.dense"),
    "distilbert": ("attention", "ffn"),
    "t5": ("layer.0.SelfAttention", "layer.1.DenseReluDense"),
}
LENGTHS = [7, 3, 5]


def _everything(model: LanguageModel) -> tuple[dict[HookPoint, Tensor], Tensor]:
    ids, mask = ragged_batch(LENGTHS)
    points = [HookPoint(hook, layer) for hook in HOOKS for layer in range(model.n_layers)]
    return capture(model, ids, mask, points), mask.bool()


@pytest.mark.parametrize("family", FAMILIES)
def test_modules_are_those_of_the_modelling_code(family: str) -> None:
    increments = wrap_model(tiny_model(family), model_config()).increments
    attention, mlp = ADDED[family]
    assert increments.attn_out == (attention,) * N_LAYERS
    assert increments.mlp_out == (mlp,) * N_LAYERS
    assert increments.post_norm == (family in POST_NORM)


@pytest.mark.parametrize("family", sorted(set(FAMILIES) - set(POST_NORM)))
def test_increments_make_up_the_block(family: str) -> None:
    """On other tokens than the probe's; falcon adds in place to what its MLP returned, so this fails on late copies."""
    states, tokens = _everything(wrap_model(tiny_model(family, seed=1), model_config()))
    for layer in range(N_LAYERS):
        before, attention, mlp, after = (states[HookPoint(hook, layer)][tokens] for hook in HOOKS)
        torch.testing.assert_close(before + attention + mlp, after, atol=1e-5, rtol=1e-5)
        assert min(attention.abs().max(), mlp.abs().max()) > 1e-3


@pytest.mark.parametrize("family", sorted(POST_NORM))
def test_increments_of_post_norm_blocks_are_added_before_the_norms(family: str) -> None:
    model = wrap_model(tiny_model(family, seed=1), model_config())
    states, tokens = _everything(model)
    for layer in range(N_LAYERS):
        before, attention, mlp, after = (states[HookPoint(hook, layer)][tokens] for hook in HOOKS)
        norm1, norm2 = (model.blocks[layer].get_submodule(path) for path in POST_NORM[family])
        with torch.no_grad():
            torch.testing.assert_close(norm2(norm1(before + attention) + mlp), after, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt_neox", "falcon", "opt", "bert", "t5"])
def test_half_precision_finds_the_same_modules(family: str, dtype: torch.dtype) -> None:
    increments = wrap_model(tiny_model(family).to(dtype), model_config()).increments
    assert (increments.attn_out[0], increments.mlp_out[0]) == ADDED[family]
    assert len(set(increments.attn_out)) == len(set(increments.mlp_out)) == 1


def test_half_precision_with_one_huge_dimension() -> None:
    """Residual streams have dimensions a thousand times the rest, in which half precision rounds increments away."""
    module = tiny_model("llama")
    with torch.no_grad():
        module.model.embed_tokens.weight[:, 3] = 2000.0
    increments = wrap_model(module.to(torch.bfloat16), model_config()).increments
    assert (increments.attn_out[0], increments.mlp_out[0]) == ADDED["llama"]


class _MlpFirst(nn.Module):
    """A parallel block that runs its MLP before its attention."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.attention, self.mlp, self.norm = block.self_attn, block.mlp, block.input_layernorm

    def forward(self, hidden_states: Tensor, **keywords: object) -> Tensor:
        normed = self.norm(hidden_states)
        mlp = self.mlp(normed)
        return hidden_states + mlp + self.attention(hidden_states=normed, **keywords)[0]


def test_attention_is_what_mixes_positions_even_if_it_runs_last() -> None:
    module = tiny_model("llama")
    for layer, block in enumerate(module.model.layers):
        module.model.layers[layer] = _MlpFirst(block)
    increments = wrap_model(module, model_config()).increments
    assert increments.attn_out == ("attention",) * N_LAYERS
    assert increments.mlp_out == ("mlp",) * N_LAYERS


def test_a_model_without_two_increments_still_gives_residuals() -> None:
    config = MambaConfig(vocab_size=60, hidden_size=16, num_hidden_layers=2, state_size=4)
    model = wrap_model(MambaForCausalLM(config), model_config())
    ids, mask = ragged_batch([4, 4])
    ids = ids % 60
    assert set(capture(model, ids, mask, [HookPoint("resid_post", 1)])) == {HookPoint("resid_post", 1)}
    with pytest.raises(StrataError, match=r"backbone\.layers\.0 .*Tried all pairs of norm, .*mixer.*Use resid_pre"):
        model.check_hook_points([HookPoint("mlp_out", 1)])


def test_a_decoder_with_cross_attention_refuses_increments() -> None:
    model = wrap_model(tiny_model("t5"), model_config(stack="decoder"))
    with pytest.raises(StrataError, match="also add a cross-attention"):
        capture(model, *ragged_batch([4, 2]), [HookPoint("attn_out", 0)])


def test_increments_are_searched_for_only_when_asked_for() -> None:
    model = wrap_model(tiny_model("llama"), model_config())
    capture(model, *ragged_batch([4, 2]), [HookPoint("resid_post", 0)])
    assert "increments" not in vars(model)
    model.check_hook_points([HookPoint("attn_out", 0)])
    assert "increments" in vars(model)
