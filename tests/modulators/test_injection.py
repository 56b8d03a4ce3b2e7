"""Where token ids come from, what passes they belong to, and that nothing is left behind."""

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers.models.llama.modeling_llama import LlamaDecoderLayer

from src.errors import StrataError
from src.hook_points import HookPoint
from src.models import LanguageModel, run_with_hooks
from src.modulators.injection import changed_inputs
from src.modulators.modulator import Modulator
from tests.fixtures.tiny_models import N_VOCAB, ragged_batch
from tests.fixtures.tiny_modulators import STACKS, modulators, n_hooks, residual_modulator, wrapped

# its new name is not in all versions that we support
pytestmark = pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.*:FutureWarning")

IDS = torch.tensor([[5, 6, 7, 8], [9, 10, 11, 12]])


def logits(model: LanguageModel, ids: Tensor, **arguments: Any) -> Tensor:
    return model.module(input_ids=ids, use_cache=False, **arguments).logits


def decoder_ids(model: LanguageModel, ids: Tensor) -> dict[str, Tensor]:
    return {"decoder_input_ids": ids.flip(0)} if model.module.config.is_encoder_decoder else {}


@pytest.mark.parametrize(("family", "stack"), [("llama", "auto"), ("opt", "auto"), *STACKS])
def test_nothing_stays_on_the_model(family: str, stack: str):
    model = wrapped(family, stack)
    extra = decoder_ids(model, IDS)
    model.module.gradient_checkpointing_enable()
    before = n_hooks(model), [dict(vars(module)) for module in model.module.modules()]
    modulator = residual_modulator(model)

    def failing(*_: Any) -> Tensor:
        raise ZeroDivisionError

    with torch.no_grad():
        frozen = logits(model, IDS, **extra)
        with modulator.attached(model):
            assert n_hooks(model) > before[0]
            logits(model, IDS, **extra)
        with pytest.raises(ZeroDivisionError), changed_inputs(model, [0, 1], failing):
            logits(model, IDS, **extra)
        with pytest.raises(KeyError), modulator.attached(model):
            raise KeyError
        with pytest.raises(StrataError, match="the model has layers"), changed_inputs(model, [0, 3], modulator):
            pass
        assert n_hooks(model) == before[0]
        assert [dict(vars(module)) for module in model.module.modules()] == before[1]
        assert torch.equal(logits(model, IDS, **extra), frozen)


@torch.no_grad()
def test_a_pass_after_one_that_failed_or_stopped_early_is_as_any():
    model = wrapped("llama")
    with residual_modulator(model).attached(model):
        expected = logits(model, IDS)
        with pytest.raises(IndexError):
            logits(model, IDS + N_VOCAB)
        stopped: list[Tensor] = []
        point = HookPoint("resid_pre", 1)  # ends the pass there
        run_with_hooks(model, IDS.flip(0), torch.ones_like(IDS), [point], lambda _, state: stopped.append(state))
        with pytest.raises(StrataError, match="input_ids, no embeddings"):
            model.module(inputs_embeds=model.module.get_input_embeddings()(IDS), use_cache=False)
        assert len(stopped) == 1
        assert torch.equal(logits(model, IDS), expected)


@pytest.mark.parametrize(("family", "stack"), [("llama", "auto"), ("gpt2", "auto"), *STACKS])
@torch.no_grad()
def test_embeddings_without_ids_are_refused(family: str, stack: str):
    """Even after a pass of the same shape, whose ids would fit, and where the other stack has ids."""
    model = wrapped(family, stack)
    embeddings = model.module.get_input_embeddings()(IDS)
    name = "decoder_inputs_embeds" if stack == "decoder" else "inputs_embeds"
    other = {"decoder": {"input_ids": IDS}, "encoder": {"decoder_input_ids": IDS}}.get(stack, {})
    with residual_modulator(model).attached(model):
        logits(model, IDS, **decoder_ids(model, IDS))
        with pytest.raises(StrataError, match="input_ids, no embeddings"):
            model.module(**{name: embeddings}, **other)


@torch.no_grad()
def test_modulators_can_be_nested_and_used_again():
    model = wrapped("llama")
    first, second = residual_modulator(model), residual_modulator(model, alpha=0.1)
    frozen = logits(model, IDS)

    def both(residual: Tensor, ids: Tensor, layer: int) -> Tensor:
        return second(first(residual, ids, layer), ids, layer)

    with changed_inputs(model, range(3), both):
        expected = logits(model, IDS)
    for _ in range(2):
        with first.attached(model):
            alone = logits(model, IDS)
            with second.attached(model):
                assert torch.equal(logits(model, IDS), expected)
            assert torch.equal(logits(model, IDS), alone)
        assert torch.equal(logits(model, IDS), frozen)
    assert not torch.equal(alone, expected)
    # the first that is attached may be the first to go
    outer, inner = first.attached(model), second.attached(model)
    outer.__enter__()
    inner.__enter__()
    outer.__exit__(None, None, None)
    with second.attached(model):
        twice = logits(model, IDS)
    inner.__exit__(None, None, None)
    with changed_inputs(model, range(3), lambda r, ids, layer: second(second(r, ids, layer), ids, layer)):
        assert torch.equal(logits(model, IDS), twice)


@torch.no_grad()
def test_a_pass_within_a_pass_has_ids_of_its_own():
    """A hook may run the model on another text, whole or without its head: neither sees the other's ids."""
    model = wrapped("llama")
    modulator = residual_modulator(model)
    other = IDS + 20
    with modulator.attached(model):
        expected, expected_other = logits(model, IDS), logits(model, other)
        found: list[Tensor] = []

        def run_another(*_: Any) -> None:
            if not found:
                found.append(torch.empty(0))  # the pass within meets this hook too
                found[0] = logits(model, other)
                model.inner(other, torch.ones_like(other))

        handle = model.blocks[0].register_forward_hook(run_another)
        assert torch.equal(logits(model, IDS), expected)
        handle.remove()
        assert torch.equal(found[0], expected_other)


def gradients(modulator: Modulator, loss: Tensor) -> dict[str, Tensor]:
    names, parameters = zip(*modulator.named_parameters(), strict=True)
    return dict(zip(names, torch.autograd.grad(loss, parameters), strict=True))


@pytest.mark.parametrize(("family", "stack"), [("llama", "auto"), ("gpt2", "auto"), ("falcon", "auto"), *STACKS])
def test_gradients_reach_every_parameter_and_none_of_the_model(family: str, stack: str):
    model = wrapped(family, stack)
    ids, mask = ragged_batch([7, 4])
    for modulator in modulators(model).values():
        with modulator.attached(model):
            loss = logits(model, ids, attention_mask=mask, **decoder_ids(model, ids)).square().mean()
            loss.backward()
        for name, parameter in modulator.named_parameters():
            assert parameter.grad is not None, name
            assert bool(parameter.grad.isfinite().all()), name
            assert float(parameter.grad.abs().max()) > 0, name
        assert all(parameter.grad is None for parameter in model.module.parameters())
    # a token that is not in the text has no part in it
    rows = residual_modulator(model)
    with rows.attached(model):
        table = gradients(rows, logits(model, ids, **decoder_ids(model, ids)).square().mean())["table"]
    assert table.abs().sum(1).nonzero()[:, 0].tolist() == ids.unique().tolist()


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("hooks_inside", [False, True])
def test_recomputed_blocks_see_the_ids_of_their_own_pass(
    monkeypatch: pytest.MonkeyPatch, hooks_inside: bool, reentrant: bool
):
    """Two passes, then one backward pass: with and without versions of transformers that recompute hooks on blocks."""
    model = wrapped("llama")
    modulator = residual_modulator(model)
    passes = 0

    def change(residual: Tensor, ids: Tensor, layer: int) -> Tensor:
        nonlocal passes
        passes += 1
        return modulator(residual, ids, layer)

    def loss() -> Tensor:
        # the square makes the gradient of each pass depend on its own states
        return logits(model, IDS).square().mean() + logits(model, IDS + 30).square().mean()

    with changed_inputs(model, range(3), change):
        expected = gradients(modulator, loss())
    assert passes == 6
    if hooks_inside:

        def call(self: Any, *args: Any, **kwargs: Any) -> Any:
            whole = partial(nn.Module.__call__, self, **kwargs)
            return self._gradient_checkpointing_func(whole, *args) if self.training else whole(*args)

        monkeypatch.setattr(LlamaDecoderLayer, "__call__", call)
        monkeypatch.setattr(LlamaDecoderLayer, "forward", LlamaDecoderLayer.forward.__wrapped__)  # pyright: ignore
    model.module.gradient_checkpointing_enable({"use_reentrant": reentrant})
    model.module.train()
    model.module.get_input_embeddings().register_forward_hook(lambda _m, _a, output: output.requires_grad_())
    passes = 0
    with changed_inputs(model, range(3), change):
        if reentrant:  # supports backward alone
            loss().backward()
            found = {name: parameter.grad for name, parameter in modulator.named_parameters()}
        else:
            found = gradients(modulator, loss())
    assert passes == (12 if hooks_inside else 6)
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, msg=lambda text, name=name: f"{name}: {text}")


def test_checkpointing_that_is_enabled_too_late_is_refused_rather_than_wrong(monkeypatch: pytest.MonkeyPatch):
    model = wrapped("llama")
    modulator = residual_modulator(model)

    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        return self._gradient_checkpointing_func(partial(nn.Module.__call__, self, **kwargs), *args)

    monkeypatch.setattr(LlamaDecoderLayer, "forward", LlamaDecoderLayer.forward.__wrapped__)  # pyright: ignore
    model.module.train()
    with modulator.attached(model):
        model.module.gradient_checkpointing_enable()
        monkeypatch.setattr(LlamaDecoderLayer, "__call__", call)
        loss = logits(model, IDS).square().mean()
        with pytest.raises(StrataError, match="enable gradient checkpointing before"):
            loss.backward()
    assert model.module.is_gradient_checkpointing


@torch.no_grad()
def test_a_model_compiled_within_is_modulated():
    model = wrapped("llama")
    modulator = residual_modulator(model)
    with modulator.attached(model):
        compiled = torch.compile(model.module, backend="eager")
        for ids in (IDS, IDS + 1):  # other ids of the same shape: nothing is baked in
            torch.testing.assert_close(compiled(input_ids=ids, use_cache=False).logits, logits(model, ids))
    torch.compiler.reset()


@pytest.mark.parametrize("sizes", [{"vocab_size": N_VOCAB + 1}, {"hidden_size": 32}, {"num_hidden_layers": 2}])
def test_a_model_of_other_sizes_is_refused_before_it_runs(sizes: dict[str, int]):
    model = wrapped("llama")
    for name, modulator in modulators(model).items():
        other = wrapped("llama", "auto", **sizes)
        if name == "field" and "vocab_size" in sizes:
            continue  # it never looks at tokens
        with pytest.raises(StrataError, match="choose the model that it was trained on"), modulator.attached(other):
            pass
        assert n_hooks(other) == 0


@torch.no_grad()
def test_a_block_that_runs_outside_of_a_pass_is_refused():
    """Strata's own short cuts run blocks alone: ids of an earlier pass must not be taken for theirs."""
    model = wrapped("gpt2")
    with residual_modulator(model).attached(model):
        logits(model, IDS)
        with pytest.raises(StrataError, match="token ids"):
            model.blocks[0](torch.zeros(*IDS.shape, model.d_model))
