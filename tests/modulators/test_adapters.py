"""LoRA of as many parameters as a modulator."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from src.errors import NotApplicableError, StrataError
from src.models import wrap_model
from src.modulators.adapter_ranks import AdaptedLayer, nearest_sum, spread_ranks
from src.modulators.adapters import LoraAdapters, linear_layers, lora_of_size
from src.modulators.saving import load_modulator, save_modulator
from tests.fixtures.tiny_models import model_config, ragged_batch, tiny_model


def drawn(adapters, seed=0):
    """With no zero in B, so that they change something."""
    draws = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for up in adapters.up:
            up.copy_(0.3 * torch.randn(up.shape, generator=draws))
    return adapters


def logits(model, ids, mask):
    with torch.no_grad():
        extra = {"decoder_input_ids": ids} if model.module.config.is_encoder_decoder else {}
        return model.module(input_ids=ids, attention_mask=mask, **extra).logits


def n_numbers(module):
    return sum(parameter.numel() for parameter in module.parameters())


@given(
    st.dictionaries(st.integers(1, 12).map(lambda n: 4 * n), st.integers(1, 3), min_size=1, max_size=3),
    st.integers(0, 200),
)
@settings(max_examples=100, deadline=None)
def test_no_other_choice_comes_nearer(available, wanted):
    found = nearest_sum(available, wanted)
    assert all(0 <= found[size] <= count for size, count in available.items())
    sums = [
        sum(size * n for size, n in zip(available, counts, strict=True))
        for counts in itertools.product(*(range(count + 1) for count in available.values()))
    ]
    chosen = sum(size * n for size, n in found.items())
    assert abs(chosen - wanted) == min(abs(each - wanted) for each in sums)


def test_a_remainder_is_met_exactly_where_it_can_be():
    found = [AdaptedLayer(f"a{i}", 10, 14) for i in range(6)] + [AdaptedLayer(f"b{i}", 10, 30) for i in range(6)]
    # 2 ranks of all (6 * 24 + 6 * 40 = 384), and 3 * 24 + 1 * 40 more
    ranks = spread_ranks(found, 2 * 384 + 112)
    assert sum(ranks[it.path] * it.cost for it in found) == 2 * 384 + 112
    assert sorted(ranks[f"a{i}"] for i in range(6)) == [2, 2, 2, 3, 3, 3]
    # one of two, not three neighbours
    assert [ranks[f"a{i}"] for i in range(6)] in ([2, 3, 2, 3, 2, 3], [3, 2, 3, 2, 3, 2])


def test_full_matrices_end_the_ranks():
    found = [AdaptedLayer("a", 4, 6), AdaptedLayer("b", 8, 20)]
    assert spread_ranks(found, 10**6) == {"a": 4, "b": 8}
    assert spread_ranks(found, 3) == {"a": 1, "b": 0}


@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_neox", "falcon_new", "phi3", "opt", "t5_with_head"])
def test_lora_equals_changed_weights_and_leaves_the_model_as_it_was(family):
    module = tiny_model(family)
    model = wrap_model(module, model_config())
    ids, mask = ragged_batch([9, 5])
    before = {name: (id(part), part.training) for name, part in module.named_modules()}
    weights = {name: value.clone() for name, value in module.state_dict().items()}
    frozen = logits(model, ids, mask)
    adapters = lora_of_size(model, [0, 2], 1000, seed=4)
    assert abs(n_numbers(adapters) - 1000) < 40
    state = torch.get_rng_state()
    with adapters.attached(model):
        assert torch.equal(logits(model, ids, mask), frozen)  # B = 0
    drawn(adapters)
    with adapters.attached(model):
        adapted = logits(model, ids, mask)
    assert torch.equal(torch.get_rng_state(), state)
    assert {name: (id(part), part.training) for name, part in module.named_modules()} == before
    assert all(torch.equal(value, weights[name]) for name, value in module.state_dict().items())
    assert torch.equal(logits(model, ids, mask), frozen)
    assert not any(parameter.requires_grad for parameter in module.parameters())
    # W + B A by hand
    with torch.no_grad():
        for it, down, up in zip(adapters.adapted, adapters.down, adapters.up, strict=True):
            weight = module.get_submodule(it.path).weight
            weight += (up @ down).T if weight.shape == (it.d_in, it.d_out) and family == "gpt2" else up @ down
    torch.testing.assert_close(logits(model, ids, mask), adapted, atol=1e-4, rtol=1e-4)
    assert float((adapted - frozen).abs().max()) > 0.1


def test_every_parameter_gets_a_gradient_and_none_of_the_models():
    model = wrap_model(tiny_model("llama"), model_config())
    ids, mask = ragged_batch([9, 5])
    adapters = drawn(lora_of_size(model, [1, 2], 800, seed=0))
    with adapters.attached(model):
        model.module(input_ids=ids, attention_mask=mask).logits.square().sum().backward()
    assert all(parameter.grad is not None and bool(parameter.grad.any()) for parameter in adapters.parameters())
    assert all(parameter.grad is None for parameter in model.module.parameters())


def test_half_precision_models_keep_their_dtype_and_adapters_float32():
    model = wrap_model(tiny_model("llama").bfloat16(), model_config())
    ids, mask = ragged_batch([9, 5])
    adapters = lora_of_size(model, [0, 1, 2], 900, seed=0)
    frozen = logits(model, ids, mask)
    with adapters.attached(model):
        assert torch.equal(logits(model, ids, mask), frozen)
    with drawn(adapters).attached(model):
        assert logits(model, ids, mask).dtype == torch.bfloat16
    assert {parameter.dtype for parameter in adapters.parameters()} == {torch.float32}


def test_the_model_is_back_after_an_exception():
    model = wrap_model(tiny_model("llama"), model_config())
    before = [id(part) for part in model.module.modules()]
    with pytest.raises(ZeroDivisionError), lora_of_size(model, [0], 300, seed=0).attached(model):
        raise ZeroDivisionError
    assert [id(part) for part in model.module.modules()] == before


def test_adapters_are_saved_and_loaded_to_the_bit(tmp_path):
    model = wrap_model(tiny_model("gpt2"), model_config())
    ids, mask = ragged_batch([9, 5])
    adapters = drawn(lora_of_size(model, [0, 2], 700, seed=1))
    save_modulator(tmp_path, adapters)
    loaded = load_modulator(tmp_path)
    assert isinstance(loaded, LoraAdapters)
    with adapters.attached(model):
        expected = logits(model, ids, mask)
    with loaded.attached(model):
        assert torch.equal(logits(model, ids, mask), expected)


def test_adapters_of_another_model_are_refused():
    adapters = lora_of_size(wrap_model(tiny_model("gpt2"), model_config()), [0], 300, seed=0)
    with (
        pytest.raises(StrataError, match="trained on another model"),
        adapters.attached(wrap_model(tiny_model("llama"), model_config())),
    ):
        pass


def test_blocks_without_linear_layers_are_refused():
    model = wrap_model(tiny_model("llama"), model_config())
    with pytest.raises(NotApplicableError, match="no linear layers"):
        lora_of_size(model, [], 300, seed=0)


def test_linear_layers_of_gpt2_have_their_sides_the_right_way_round():
    model = wrap_model(tiny_model("gpt2"), model_config())
    sizes = {it.path.rpartition("h.1.")[2]: (it.d_in, it.d_out) for it in linear_layers(model, [1])}
    assert sizes == {
        "attn.c_attn": (16, 48),
        "attn.c_proj": (16, 16),
        "mlp.c_fc": (16, 64),
        "mlp.c_proj": (64, 16),
    }


def test_a_begins_as_pefts_own_does():
    model = wrap_model(tiny_model("llama"), model_config())
    adapters = lora_of_size(model, [0, 1, 2], 6000, seed=0)
    scaled = []
    for it, down in zip(adapters.adapted, adapters.down, strict=True):
        scaled.append(down.detach().flatten() * math.sqrt(it.d_in))
    values = torch.cat(scaled)
    assert float(values.abs().max()) <= 1
    assert float(values.std()) == pytest.approx(1 / math.sqrt(3), rel=0.05)
