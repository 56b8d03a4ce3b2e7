"""One recorder over many passes: the rows that are wanted of each, and nothing left on the model."""

import functools

import pytest
import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, DynamicCache

from src.errors import StrataError
from src.hook_points import HOOKS, RESIDUAL_SOURCES, SOURCES, HookPoint
from src.models import LanguageModel, capture, wrap_model
from src.models.continuing import GrowingCache
from src.models.recording import ActivationRecorder
from src.models.sources import available_sources
from tests.fixtures.tiny_models import FAMILIES, MORE_FAMILIES, N_LAYERS, model_config, ragged_batch, tiny_model

LENGTHS = [6, 2, 9]
CAUSAL = [family for family in (*FAMILIES, *MORE_FAMILIES) if family not in ("bert", "distilbert", "t5", "qwen3_next")]

_model = functools.cache(lambda family: wrap_model(tiny_model(family), model_config()))


def _sources(model: LanguageModel) -> list[str]:
    return [source for source, reason in available_sources(model).items() if reason is None]


@pytest.mark.parametrize("family", FAMILIES)
def test_residual_sources_are_those_of_capture(family: str) -> None:
    """falcon adds to its MLP's output in place; opt's MLP returns [token, width]."""
    model = _model(family)
    ids, mask = ragged_batch(LENGTHS)
    states = capture(model, ids, mask, [HookPoint(hook, layer) for hook in HOOKS for layer in range(N_LAYERS)])
    batch, position = torch.tensor([2, 0, 2, 1, 2]), torch.tensor([8, 5, 0, 1, 8])
    with ActivationRecorder(model, RESIDUAL_SOURCES, range(N_LAYERS)) as recorder, torch.inference_mode():
        recorder.want(batch, position)
        model.inner(ids, mask)
        some = recorder.take()
        recorder.want()
        model.inner(ids, mask)
        every = recorder.take()
    for source in RESIDUAL_SOURCES:
        expected = torch.stack([states[HookPoint(source, layer)] for layer in range(N_LAYERS)])
        assert torch.equal(some[source], expected[:, batch, position])
        assert torch.equal(every[source], expected.flatten(1, 2))


@pytest.mark.parametrize("family", CAUSAL)
def test_steps_on_a_cache_give_the_states_of_the_whole_text(family: str) -> None:
    """All sources, hooks put on once: a prompt, then token by token."""
    model = _model(family)
    sources = _sources(model)
    ids, _ = ragged_batch([12])
    cache, first = DynamicCache(config=model.module.config), 0
    with ActivationRecorder(model, sources, range(N_LAYERS)) as recorder, torch.inference_mode():
        recorder.want()
        model.inner(ids, torch.ones_like(ids))
        whole = recorder.take()
        for last in (9, 10, 11, 12):
            recorder.want(torch.tensor([0]), torch.tensor([last - first - 1]))
            mask = torch.ones(1, last, dtype=torch.long)
            model.inner(ids[:, first:last], mask, past_key_values=cache, use_cache=True)
            step = recorder.take()
            assert list(step) == sources
            for source in sources:
                expected = whole[source][:, last - 1 : last]
                expected = expected[..., :last] if source == "attention" else expected
                torch.testing.assert_close(step[source], expected, atol=2e-5, rtol=1e-4)
            first = last


@pytest.mark.parametrize("family", ["llama", "falcon", "gpt_neox"])
def test_one_wish_serves_many_passes_and_each_take_is_its_own(family: str) -> None:
    model = _model(family)
    ids, mask = ragged_batch([4, 4])
    with ActivationRecorder(model, _sources(model), [0, 2]) as recorder, torch.inference_mode():
        recorder.want()
        model.inner(ids, mask)
        one = recorder.take()
        kept = {source: states.clone() for source, states in one.items()}
        model.inner(ids.flip(1), mask)
        other = recorder.take()
    assert all(torch.equal(one[source], kept[source]) for source in kept)
    assert not any(torch.equal(one[source], other[source]) for source in kept)
    assert all(states.is_contiguous() for states in one.values())


@pytest.mark.parametrize("family", CAUSAL)
def test_steps_that_are_followed_come_together(family: str) -> None:
    """Under a cache that keeps keys in place, and one that copies them at every step."""
    model = _model(family)
    sources = _sources(model)
    ids, _ = ragged_batch([12])
    for cache in (GrowingCache(model.n_layers, 10), DynamicCache(config=model.module.config)):
        with ActivationRecorder(model, sources, range(N_LAYERS)) as recorder, torch.inference_mode():
            recorder.want()
            model.inner(ids, torch.ones_like(ids))
            whole = recorder.take()
            recorder.want()
            model.inner(ids[:, :6], torch.ones(1, 6), past_key_values=cache, use_cache=True)
            recorder.follow()
            first = 6
            for taken in (10, 12):
                for last in range(first + 1, taken + 1):
                    mask = torch.ones(1, last, dtype=torch.long)
                    model.inner(ids[:, last - 1 : last], mask, past_key_values=cache, use_cache=True)
                steps = recorder.take()
                assert list(steps) == sources
                for source in sources:
                    expected = whole[source][:, first:taken]
                    expected = expected[..., :taken] if source == "attention" else expected
                    torch.testing.assert_close(steps[source], expected, atol=2e-5, rtol=1e-4)
                first = taken


def test_what_is_followed_has_one_token() -> None:
    model = _model("llama")
    ids, mask = ragged_batch([4])
    with ActivationRecorder(model, ["q"], [0]) as recorder, torch.inference_mode():
        recorder.follow()
        with pytest.raises(ValueError, match="one token"):
            model.inner(ids, mask)


def test_a_model_with_a_state_instead_of_keys_goes_on_from_its_own_cache() -> None:
    config = AutoConfig.for_model("mamba", vocab_size=97, hidden_size=16, num_hidden_layers=2, state_size=4)
    model = wrap_model(AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval(), model_config())
    ids, _ = ragged_batch([5])
    with ActivationRecorder(model, ["resid_post"], [0, 1]) as recorder, torch.inference_mode():
        recorder.want()
        cache = model.module(ids, use_cache=True)
        assert recorder.take()["resid_post"].shape == (2, 5, 16)
        given = {name: cache[name] for name in ("cache_params", "past_key_values") if cache.get(name) is not None}
        model.module(ids[:, :1], use_cache=True, **given)
        assert recorder.take()["resid_post"].shape == (2, 1, 16)


def test_layers_are_those_asked_for() -> None:
    model = _model("gpt2")
    ids, mask = ragged_batch([4])
    found: dict[tuple[int, ...], dict[str, Tensor]] = {}
    for layers in ((0, 1, 2), (1,)):
        with ActivationRecorder(model, _sources(model), layers) as recorder, torch.inference_mode():
            recorder.want()
            model.inner(ids, mask)
            found[layers] = recorder.take()
    for source, states in found[1,].items():
        assert torch.equal(states[0], found[0, 1, 2][source][1])


@pytest.mark.parametrize("family", ["llama", "falcon"])
def test_nothing_is_left_on_the_model(family: str) -> None:
    model = _model(family)
    ids, mask = ragged_batch([5, 3])
    with torch.inference_mode():
        before = model.inner(ids, mask)[0]
    with ActivationRecorder(model, _sources(model), range(N_LAYERS)) as recorder:
        recorder.want()
        hooks = sum(len(part._forward_hooks) + len(part._forward_pre_hooks) for part in model.module.modules())
        assert hooks > 0
        with torch.inference_mode():
            model.inner(ids, mask)
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in model.module.modules())
    with torch.inference_mode():
        assert torch.equal(model.inner(ids, mask)[0], before)


def test_a_recorder_that_is_refused_leaves_nothing_either() -> None:
    model = _model("gpt2")
    with pytest.raises(StrataError, match="the MLP has no gate"), ActivationRecorder(model, SOURCES, [0]):
        pytest.fail("nothing should run")
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in model.module.modules())


def test_nothing_is_taken_before_it_is_wanted() -> None:
    model = _model("llama")
    ids, mask = ragged_batch([5])
    with ActivationRecorder(model, ["q", "attention"], [0]) as recorder, torch.inference_mode():
        model.inner(ids, mask)
        with pytest.raises(StrataError, match=r"call want\(\) before a forward pass"):
            recorder.take()
        recorder.want()
        with pytest.raises(StrataError, match=r"and take\(\) once after it"):
            recorder.take()
        model.inner(ids, mask)
        assert set(recorder.take()) == {"q", "attention"}
        with pytest.raises(StrataError, match=r"take\(\) once"):
            recorder.take()


def test_only_what_is_overwritten_is_copied() -> None:
    """The search finds falcon's addition to its MLP's output, and olmo's clipping."""
    assert {place[1:] for place in _model("falcon").overwritten} >= {("mlp", "output")}
    clipped = {place[1:] for place in _model("olmo").overwritten}
    assert clipped == {(f"self_attn.{role}_proj", "output") for role in "qkv"}
    assert not _model("llama").overwritten


def test_a_recorder_can_be_put_on_in_inference_mode() -> None:
    """The search differentiates, which inference mode would not let it do."""
    model = wrap_model(tiny_model("falcon_new"), model_config())
    ids, mask = ragged_batch([5])
    with torch.inference_mode(), ActivationRecorder(model, _sources(model), [1]) as recorder:
        recorder.want()
        model.inner(ids, mask)
        found = recorder.take()
    assert found["q"].shape == (1, 5, 16)
    assert found["v"].shape == (1, 5, 8)


def test_internals_are_searched_for_only_when_asked_for() -> None:
    model = wrap_model(tiny_model("llama"), model_config())
    with ActivationRecorder(model, ["resid_pre", "resid_post"], [0]):
        assert not {"increments", "internals"} & set(vars(model))
