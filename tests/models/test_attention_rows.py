"""Recorded attention rows are the attention weights that the model has when it runs eagerly."""

import functools
import math

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import DynamicCache, StaticCache
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from src.errors import StrataError
from src.models import LanguageModel, wrap_model
from src.models.attention_rows import QueryRows, attention_rows
from src.models.recording import ActivationRecorder
from tests.fixtures.tiny_models import FAMILIES, MORE_FAMILIES, N_LAYERS, model_config, ragged_batch, tiny_model

# one layer of it has no attention
HYBRID = "qwen3_next"
EVERY = [family for family in (*FAMILIES, *MORE_FAMILIES) if family != HYBRID]
ENCODERS = ("bert", "distilbert", "t5")
CAUSAL = [family for family in EVERY if family not in ENCODERS]
# not through transformers' attention interface, or not with sdpa: these run eagerly while they are recorded
OWN_ATTENTION = {"falcon", "falcon_new", "falcon_sequential", "falcon_alibi", "bloom", "mpt", "gpt_neo", "gptj"}
EAGER = OWN_ATTENTION | {"codegen", "gemma2", "gpt_oss"}
BATCH, POSITION = torch.tensor([2, 0, 1, 0, 2]), torch.tensor([4, 11, 2, 0, 1])
LENGTHS = [12, 3, 7]


_model = functools.cache(lambda family: wrap_model(tiny_model(family), model_config()))  # a search of its own each


def _eager_weights(family: str, ids: Tensor, mask: Tensor) -> Tensor:
    """[layer, batch, head, query, key] as the model itself returns it."""
    module = tiny_model(family, attn_implementation="eager")
    inner = module.get_encoder() if family == "t5" else module.base_model
    with torch.inference_mode():
        found = inner(input_ids=ids, attention_mask=mask, output_attentions=True).attentions
    return torch.stack([layer for layer in found if layer is not None])


def _recorded(model: LanguageModel, ids: Tensor, mask: Tensor, rows: tuple[Tensor, ...] = ()) -> Tensor:
    with ActivationRecorder(model, ["attention"], range(model.n_layers)) as recorder, torch.inference_mode():
        recorder.want(*rows)
        model.inner(ids, mask)
        return recorder.take()["attention"]


@pytest.mark.parametrize("family", EVERY)
def test_rows_are_those_of_eager_attention(family: str) -> None:
    """Padding on the right, rows in any order, and sequences longer than the sliding windows of 4 and 8."""
    model = _model(family)
    ids, mask = ragged_batch(LENGTHS)
    rows = _recorded(model, ids, mask, (BATCH, POSITION))
    whole = _recorded(model, ids, mask)
    truth = _eager_weights(family, ids, mask)
    assert rows.shape == (N_LAYERS, 5, 4, 12)
    torch.testing.assert_close(rows, truth[:, BATCH, :, POSITION].transpose(0, 1), atol=1e-6, rtol=1e-5)
    tokens = mask.bool()
    every = whole.view(N_LAYERS, 3, 12, 4, 12).transpose(2, 3)
    torch.testing.assert_close(every.transpose(2, 3)[:, tokens], truth.transpose(2, 3)[:, tokens], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("family", EVERY)
def test_sdpa_stays_and_the_model_is_left_as_it_was(family: str) -> None:
    model = _model(family)
    before, plain = model.module.config._attn_implementation, ALL_ATTENTION_FUNCTIONS["sdpa"]
    ids, mask = ragged_batch(LENGTHS)
    with torch.inference_mode():
        expected = model.inner(ids, mask)[0]
    with ActivationRecorder(model, ["attention"], [0, 1]) as recorder, torch.inference_mode():
        during = model.module.config._attn_implementation
        recorder.want()
        found = model.inner(ids, mask)[0]
    assert during == ("eager" if family in EAGER else "sdpa")
    if family not in OWN_ATTENTION:
        assert torch.equal(found, expected)  # bit for bit: the same sdpa has run
    assert model.module.config._attn_implementation == before
    assert ALL_ATTENTION_FUNCTIONS["sdpa"] is plain
    with torch.inference_mode():
        assert torch.equal(model.inner(ids, mask)[0], expected)


@pytest.mark.parametrize("family", ["llama", "falcon", "gemma2"])
def test_an_exception_leaves_nothing_behind(family: str) -> None:
    model = _model(family)
    before, plain = model.module.config._attn_implementation, ALL_ATTENTION_FUNCTIONS["sdpa"]
    with pytest.raises(RuntimeError, match="interrupted"), ActivationRecorder(model, ["attention", "q"], [0]):
        raise RuntimeError("interrupted")
    assert model.module.config._attn_implementation == before
    assert ALL_ATTENTION_FUNCTIONS["sdpa"] is plain
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in model.module.modules())


@pytest.mark.parametrize("family", CAUSAL)
def test_rows_of_steps_on_a_cache_are_rows_of_the_whole_text(family: str) -> None:
    """A prompt, a chunk of 3, then single tokens; caches of sliding windows have dropped keys by then."""
    model = _model(family)
    ids, _ = ragged_batch([16, 16])
    whole = _recorded(model, ids, torch.ones_like(ids)).view(N_LAYERS, 2, 16, 4, 16)
    cache = DynamicCache(config=model.module.config)
    first = 0
    with ActivationRecorder(model, ["attention"], range(N_LAYERS)) as recorder, torch.inference_mode():
        for last in (10, 13, 14, 15, 16):
            recorder.want(torch.tensor([1, 0]), torch.tensor([last - first - 1] * 2))
            mask = torch.ones(2, last, dtype=torch.long)
            model.inner(ids[:, first:last], mask, past_key_values=cache, use_cache=True)
            rows = recorder.take()["attention"]
            assert rows.shape == (N_LAYERS, 2, 4, last)
            torch.testing.assert_close(rows, whole[:, [1, 0], last - 1, :, :last], atol=2e-6, rtol=1e-4)
            first = last


def test_one_token_on_a_cache_needs_no_rows_to_be_named() -> None:
    model = wrap_model(tiny_model("mistral", sliding_window=4), model_config())
    ids, _ = ragged_batch([7])
    whole = _recorded(model, ids, torch.ones_like(ids))
    cache = DynamicCache(config=model.module.config)
    with ActivationRecorder(model, ["attention"], range(N_LAYERS)) as recorder, torch.inference_mode():
        recorder.want()
        model.inner(ids[:, :6], torch.ones(1, 6, dtype=torch.long), past_key_values=cache, use_cache=True)
        assert recorder.take()["attention"].shape == (N_LAYERS, 6, 4, 6)
        model.inner(ids[:, 6:], torch.ones(1, 7, dtype=torch.long), past_key_values=cache, use_cache=True)
        rows = recorder.take()["attention"]
    assert bool((rows[..., :3] == 0).all())  # behind the window
    torch.testing.assert_close(rows, whole[:, 6:], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("family", ["llama", "gemma2", "falcon"])
def test_a_static_cache_has_room_that_no_row_shows(family: str) -> None:
    model = _model(family)
    ids, _ = ragged_batch([8])
    whole = _recorded(model, ids, torch.ones_like(ids))
    cache = StaticCache(config=model.module.config, max_cache_len=20)
    with ActivationRecorder(model, ["attention"], range(N_LAYERS)) as recorder, torch.inference_mode():
        recorder.want()
        for first, last in ((0, 7), (7, 8)):
            mask = torch.ones(1, last, dtype=torch.long)
            model.inner(ids[:, first:last], mask, past_key_values=cache, use_cache=True)
            rows = recorder.take()["attention"]
            torch.testing.assert_close(rows, whole[:, first:last, :, :last], atol=2e-6, rtol=1e-4)


@pytest.mark.parametrize("family", ["llama", "mistral", "gemma2", "gpt_neox", "falcon", "t5"])
def test_half_precision(family: str) -> None:
    half = tiny_model(family).to(torch.bfloat16)
    ids, mask = ragged_batch(LENGTHS)
    found = _recorded(wrap_model(half, model_config()), ids, mask, (BATCH, POSITION))
    expected = _recorded(_model(family), ids, mask, (BATCH, POSITION))
    assert found.dtype == torch.bfloat16
    assert float((found.float() - expected).abs().mean()) < 0.02
    torch.testing.assert_close(found.float().sum(-1), torch.ones(N_LAYERS, 5, 4), atol=0.02, rtol=0)


def test_layers_without_attention_are_refused_and_the_others_read() -> None:
    model = _model(HYBRID)
    ids, mask = ragged_batch([9, 9])
    with pytest.raises(StrataError, match="attention: layer 0: no module of the block returns attention weights"):
        _recorded(model, ids, mask)
    with ActivationRecorder(model, ["attention"], [1, 2]) as recorder, torch.inference_mode():
        recorder.want()
        model.inner(ids, mask)
        rows = recorder.take()["attention"].view(2, 2, 9, 4, 9).transpose(2, 3)
    torch.testing.assert_close(rows, _eager_weights(HYBRID, ids, mask), atol=1e-6, rtol=1e-5)


def test_two_recorders_on_one_model() -> None:
    model = _model("llama")
    ids, mask = ragged_batch([5])
    plain = ALL_ATTENTION_FUNCTIONS["sdpa"]
    with ActivationRecorder(model, ["attention"], [0]) as one, ActivationRecorder(model, ["attention"], [0, 1]) as two:
        one.want()
        two.want(torch.tensor([0]), torch.tensor([3]))
        with torch.inference_mode():
            model.inner(ids, mask)
        assert torch.equal(one.take()["attention"][0, 3], two.take()["attention"][0, 0])
    assert ALL_ATTENTION_FUNCTIONS["sdpa"] is plain


@pytest.mark.parametrize("family", ["llama", "falcon"])
def test_recorders_may_end_in_any_order(family: str) -> None:
    model = _model(family)
    before, plain = model.module.config._attn_implementation, ALL_ATTENTION_FUNCTIONS["sdpa"]
    ids, mask = ragged_batch([5])
    one, two = (ActivationRecorder(model, ["attention"], [0]) for _ in range(2))
    one.__enter__()
    two.__enter__()
    one.__exit__(None, None, None)
    two.want()
    with torch.inference_mode():
        model.inner(ids, mask)
    assert two.take()["attention"].shape == (1, 5, 4, 5)
    two.__exit__(None, None, None)
    assert model.module.config._attn_implementation == before
    assert ALL_ATTENTION_FUNCTIONS["sdpa"] is plain


@pytest.mark.parametrize("kind", ["none", "causal", "bool", "float", "per_head", "bias"])
@pytest.mark.parametrize("n_kv_heads", [1, 2, 4])
def test_rows_are_the_weights_of_torchs_attention(kind: str, n_kv_heads: int) -> None:
    """With values that are unit vectors, what scaled_dot_product_attention returns are its weights."""
    draws = torch.Generator().manual_seed(0)
    query = torch.randn(3, 4, 6, 8, generator=draws, dtype=torch.float64)
    key = torch.randn(3, n_kv_heads, 6, 8, generator=draws, dtype=torch.float64)
    bias = torch.randn(1, 4, 6, 6, generator=draws, dtype=torch.float64)
    seen = torch.rand(3, 1, 6, 6, generator=draws) < 0.6
    seen |= torch.eye(6, dtype=torch.bool)
    masks = {"bool": seen, "float": bias[:, :1], "per_head": bias.expand(3, -1, -1, -1)}
    mask = masks.get(kind)
    units = torch.eye(6, dtype=torch.float64).expand(3, n_kv_heads, 6, 6)
    truth = scaled_dot_product_attention(
        query, key, units, bias if kind == "bias" else mask, is_causal=kind == "causal", scale=0.3, enable_gqa=True
    )
    given = (query, key, mask, 0.3, kind == "causal", bias if kind == "bias" else None)
    torch.testing.assert_close(attention_rows(QueryRows(), *given), truth.transpose(1, 2).flatten(0, 1))
    batch, position = torch.tensor([2, 0, 2, 2]), torch.tensor([5, 1, 0, 5])
    rows = attention_rows(QueryRows.at(batch, position), *given)
    torch.testing.assert_close(rows, truth[batch, :, position])


def test_the_scale_is_that_of_the_head_by_default() -> None:
    query, key = torch.ones(1, 1, 1, 16), torch.cat([torch.ones(1, 1, 1, 16), torch.zeros(1, 1, 1, 16)], 2)
    rows = attention_rows(QueryRows(), query, key, None, None, True, None)
    assert rows[0, 0, 0].item() == pytest.approx(1 / (1 + math.exp(-16 / 4)))
