"""Blocks are found by what they do."""

import pytest
from torch import nn
from transformers import AlbertConfig, AlbertModel, BartConfig, BartModel

from src.errors import StrataError
from src.hook_points import HookPoint
from src.models import wrap_model
from tests.fixtures.tiny_models import D_MODEL, FAMILIES, N_LAYERS, model_config, tiny_model

# where the blocks of each family lie, as its modelling code says
BLOCK_PATHS = {
    "gpt2": "transformer.h",
    "gpt_neox": "gpt_neox.layers",
    "gpt_neox_sequential": "gpt_neox.layers",
    "opt": "model.decoder.layers",
    "opt_post_norm": "model.decoder.layers",
    "falcon": "transformer.h",
    "falcon_new": "transformer.h",
    "falcon_sequential": "transformer.h",
    "bert": "encoder.layer",
    "distilbert": "transformer.layer",
    "t5": "encoder.block",
}


@pytest.mark.parametrize("family", FAMILIES)
def test_blocks_are_those_of_the_modelling_code(family: str) -> None:
    module = tiny_model(family)
    model = wrap_model(module, model_config())
    path = BLOCK_PATHS.get(family, "model.layers")
    assert model.block_list.path == path
    assert list(model.blocks) == list(module.get_submodule(path))
    assert (model.n_layers, model.d_model) == (N_LAYERS, D_MODEL)


def test_as_many_layers_as_parts_of_a_block_is_no_ambiguity() -> None:
    """T5's encoder block is a list of two modules that take and return hidden states: nested lists do not count."""
    model = wrap_model(tiny_model("t5", num_layers=2), model_config())
    assert (model.block_list.path, model.n_layers) == ("encoder.block", 2)


def test_one_layer_is_enough() -> None:
    assert wrap_model(tiny_model("llama", num_hidden_layers=1), model_config()).n_layers == 1


def test_decoder_stack_of_an_encoder_decoder() -> None:
    assert wrap_model(tiny_model("t5"), model_config(stack="decoder")).block_list.path == "decoder.block"


def test_stacks_of_unlike_depth() -> None:
    keys = {"d_model": 16, "encoder_layers": 2, "decoder_layers": 3, "encoder_ffn_dim": 24, "decoder_ffn_dim": 24}
    heads = {
        "encoder_attention_heads": 4,
        "decoder_attention_heads": 4,
        "vocab_size": 60,
        "max_position_embeddings": 32,
    }
    bart = BartModel(BartConfig(**keys, **heads))
    assert wrap_model(bart, model_config()).n_layers == 2
    assert wrap_model(bart, model_config(stack="decoder")).n_layers == 3


def test_stack_is_refused_where_there_is_one_only() -> None:
    with pytest.raises(StrataError, match=r"model\.stack=decoder is for encoder-decoders"):
        wrap_model(tiny_model("llama"), model_config(stack="decoder"))


def test_unknown_family_names_what_was_tried() -> None:
    """ALBERT runs one block again and again, so there is no list with a member for each layer."""
    keys = {"vocab_size": 60, "embedding_size": 8, "hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 4}
    albert = AlbertModel(AlbertConfig(**keys))
    with pytest.raises(StrataError) as error:
        wrap_model(albert, model_config())
    message = str(error.value)
    assert "AlbertModel, whose config speaks of 3 layers" in message
    assert "encoder.albert_layer_groups (1 x AlbertLayerGroup): not 3 members" in message
    assert "model.blocks=path.to.list" in message


def test_two_lists_that_fit_are_settled_by_the_override() -> None:
    module = tiny_model("llama")
    module.model.adapters = nn.ModuleList([nn.Linear(D_MODEL, D_MODEL) for _ in range(N_LAYERS)])
    for block, adapter in zip(module.model.layers, module.model.adapters, strict=True):
        block.register_forward_hook(lambda _block, _args, output, adapter=adapter: adapter(output))
    with pytest.raises(StrataError) as error:
        wrap_model(module, model_config())
    for path in ("model.layers (3 x LlamaDecoderLayer)", "model.adapters (3 x Linear)"):
        assert f"{path}: fits, but is not the only one" in str(error.value)
    for path in ("model.layers", "model.adapters"):
        assert wrap_model(module, model_config(blocks=path)).blocks == tuple(module.get_submodule(path))


def test_override_agrees_with_the_search() -> None:
    module = tiny_model("gpt2")
    assert wrap_model(module, model_config(blocks="transformer.h")).blocks == tuple(module.transformer.h)


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("model.nothing", "has no list of modules of that path; it has .*model.layers"),
        ("model.embed_tokens", "has no list of modules of that path"),
    ],
)
def test_override_that_is_no_list(path: str, reason: str) -> None:
    with pytest.raises(StrataError, match=rf"model\.blocks={path}: .*{reason}"):
        wrap_model(tiny_model("llama"), model_config(blocks=path))


def test_override_that_is_no_list_of_blocks() -> None:
    module = tiny_model("llama")
    module.spare = nn.ModuleList([nn.Identity()])
    with pytest.raises(StrataError, match=r"model\.blocks=spare is not the list of blocks.*\n.*not called once each"):
        wrap_model(module, model_config(blocks="spare"))


def test_layer_out_of_range() -> None:
    model = wrap_model(tiny_model("llama"), model_config())
    model.check_hook_points([HookPoint("resid_post", 2), HookPoint("mlp_out", 0)])
    with pytest.raises(StrataError, match=r"resid_post\.3: the model has layers 0\.\.2"):
        model.check_hook_points([HookPoint("resid_post", 3)])


def test_wrapped_models_are_ready_for_inference() -> None:
    module = tiny_model("gpt2").train()
    wrap_model(module, model_config())
    assert not module.training
    assert not any(weight.requires_grad for weight in module.parameters())
    assert all(not item._forward_hooks and not item._forward_pre_hooks for item in module.modules())
