"""Captured hidden states against plain torch hooks, whatever the batch."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import MambaConfig, MambaForCausalLM, PreTrainedModel

from src.errors import StrataError
from src.hook_points import HookPoint
from src.models import capture, check_hidden_states, run_with_hooks, wrap_model
from tests.fixtures.tiny_models import D_MODEL, FAMILIES, N_LAYERS, N_VOCAB, model_config, ragged_batch, tiny_model
from tests.models.test_blocks import BLOCK_PATHS

LENGTHS = [9, 4, 1, 7, 9, 2, 5, 8]
RESIDUALS = [HookPoint(hook, layer) for hook in ("resid_pre", "resid_post") for layer in range(N_LAYERS)]


def _true_residuals(module: PreTrainedModel, path: str, ids: Tensor, mask: Tensor) -> dict[HookPoint, Tensor]:
    """Inputs and outputs of the blocks at `path`, by plain hooks in a full forward pass of the whole model."""
    seen: dict[HookPoint, Tensor] = {}

    def remember(layer: int) -> Any:
        def hook(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            before = args[0] if args else kwargs["hidden_states"]
            seen[HookPoint("resid_pre", layer)] = before.clone()
            seen[HookPoint("resid_post", layer)] = (output[0] if isinstance(output, tuple) else output).clone()

        return hook

    handles = [
        block.register_forward_hook(remember(layer), with_kwargs=True)
        for layer, block in enumerate(module.get_submodule(path).children())
    ]
    decoder = {"decoder_input_ids": ids, "decoder_attention_mask": mask} if module.config.is_encoder_decoder else {}
    with torch.no_grad():
        module(input_ids=ids, attention_mask=mask, **decoder)
    for handle in handles:
        handle.remove()
    return seen


@pytest.mark.parametrize("batch", [1, 8])
@pytest.mark.parametrize(("family", "stack"), [*((family, "auto") for family in FAMILIES), ("t5", "decoder")])
def test_residuals_equal_the_blocks_own(family: str, stack: str, batch: int) -> None:
    """Bit for bit in the same batch, and to rounding (2e-6 of the largest value) in each sequence alone."""
    module = tiny_model(family)
    model = wrap_model(module, model_config(stack=stack))
    path = "decoder.block" if stack == "decoder" else BLOCK_PATHS.get(family, "model.layers")
    all_ids, all_masks = ragged_batch(LENGTHS)
    for start in range(0, len(LENGTHS), batch):
        lengths = LENGTHS[start : start + batch]
        ids, mask = all_ids[start : start + batch, : max(lengths)], all_masks[start : start + batch, : max(lengths)]
        states = capture(model, ids, mask, RESIDUALS)
        assert {point: state.shape for point, state in states.items()} == {
            point: (batch, max(lengths), D_MODEL) for point in RESIDUALS
        }
        for point, state in _true_residuals(module, path, ids, mask).items():
            torch.testing.assert_close(states[point], state, atol=0, rtol=0)
        for row, length in enumerate(lengths):
            alone = ids[row : row + 1, :length]
            for point, state in _true_residuals(module, path, alone, torch.ones_like(alone)).items():
                tolerance = 2e-6 * float(state.abs().max())
                torch.testing.assert_close(states[point][row, :length], state[0], atol=tolerance, rtol=0)


@pytest.mark.parametrize("family", FAMILIES)
def test_hidden_states_of_transformers_agree(family: str) -> None:
    model = wrap_model(tiny_model(family), model_config())
    check = check_hidden_states(model, *ragged_batch([9, 4, 6]))
    assert check.layers_compared == N_LAYERS - 1
    assert check.max_difference <= 1e-6


def test_hidden_states_that_begin_after_the_first_block() -> None:
    config = MambaConfig(vocab_size=60, hidden_size=16, num_hidden_layers=3, state_size=4)
    ids, mask = ragged_batch([6, 6])
    check = check_hidden_states(wrap_model(MambaForCausalLM(config), model_config()), ids % 60, mask)
    assert check.layers_compared == 2


def test_self_test_finds_blocks_that_are_not_the_recorded_ones() -> None:
    module = tiny_model("llama")
    model = wrap_model(module, model_config())
    ids, mask = ragged_batch([5, 5])
    check_hidden_states(model, ids, mask)  # transformers hangs its recorders on the true blocks here
    for layer, block in enumerate(module.model.layers):
        module.model.layers[layer] = _Doubled(block)
    with pytest.raises(StrataError, match=r"resid_post\.0 of LlamaForCausalLM differs from hidden_states\[1\] by"):
        check_hidden_states(wrap_model(module, model_config()), ids, mask)


class _Doubled(nn.Module):
    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block

    def forward(self, hidden_states: Tensor, **keywords: Any) -> Tensor:
        return 2 * self.block(hidden_states, **keywords)


@pytest.mark.parametrize("family", ["llama", "gpt2", "falcon", "bert", "t5"])
def test_later_blocks_do_not_run_and_the_model_stays_as_it_was(family: str) -> None:
    module = tiny_model(family)
    model = wrap_model(module, model_config())
    ids, mask = ragged_batch([6, 3])
    before = model.inner(ids, mask, output_hidden_states=True)
    hooks_before = [(len(item._forward_hooks), len(item._forward_pre_hooks)) for item in module.modules()]
    runs: list[int] = []
    handles = [
        block.register_forward_pre_hook(lambda *_args, layer=layer: runs.append(layer))
        for layer, block in enumerate(model.blocks)
    ]
    capture(model, ids, mask, [HookPoint("resid_post", 1), HookPoint("resid_post", 0)])
    assert runs == [0, 1]
    for handle in handles:
        handle.remove()
    after = model.inner(ids, mask, output_hidden_states=True)
    torch.testing.assert_close(after.last_hidden_state, before.last_hidden_state, atol=0, rtol=0)
    assert len(after.hidden_states) == N_LAYERS + 1
    for one, other in zip(before.hidden_states, after.hidden_states, strict=True):
        torch.testing.assert_close(one, other, atol=0, rtol=0)
    assert [(len(item._forward_hooks), len(item._forward_pre_hooks)) for item in module.modules()] == hooks_before


def test_the_pass_stops_inside_a_block_too() -> None:
    model = wrap_model(tiny_model("llama"), model_config())
    model.check_hook_points([HookPoint("attn_out", 1)])
    for name, layer in (("mlp", 1), ("self_attn", 2)):
        model.blocks[layer].get_submodule(name).register_forward_pre_hook(lambda *_args: pytest.fail("ran too far"))
    capture(model, *ragged_batch([5, 2]), [HookPoint("attn_out", 1)])
    capture(model, *ragged_batch([5, 2]), [HookPoint("resid_pre", 1)])


def test_the_vocabulary_is_never_scored_and_no_cache_is_kept() -> None:
    module = tiny_model("gpt2")
    model = wrap_model(module, model_config())
    scored: list[int] = []
    module.lm_head.register_forward_pre_hook(lambda *_args: scored.append(1))
    caches: list[Any] = []
    model.blocks[0].attn.register_forward_pre_hook(
        lambda _module, args, kwargs: caches.append(kwargs.get("past_key_values", args[1:2])), with_kwargs=True
    )
    capture(model, *ragged_batch([6, 3]), RESIDUALS)
    assert scored == []
    assert caches
    assert all(cache in (None, (), (None,)) for cache in caches)


def test_points_come_in_the_order_of_the_forward_pass() -> None:
    model = wrap_model(tiny_model("llama"), model_config())
    order: list[str] = []
    points = [HookPoint(hook, layer) for layer in (1, 0) for hook in ("resid_post", "mlp_out", "attn_out", "resid_pre")]
    run_with_hooks(model, *ragged_batch([5, 2]), points, lambda point, _state: order.append(str(point)))
    hooks = ("resid_pre", "attn_out", "mlp_out", "resid_post")
    assert order == [f"{hook}.{layer}" for layer in (0, 1) for hook in hooks]


def test_an_error_of_the_receiver_comes_out_and_leaves_no_hooks() -> None:
    module = tiny_model("gpt2")
    model = wrap_model(module, model_config())

    def refuse(point: HookPoint, _state: Tensor) -> None:
        raise StrataError(f"{point} overflows")

    with pytest.raises(StrataError, match=r"resid_pre\.0 overflows"):
        run_with_hooks(model, *ragged_batch([5, 2]), RESIDUALS, refuse)
    assert all(not item._forward_hooks and not item._forward_pre_hooks for item in module.modules())


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate 2 GiB."), "too much for the memory of cpu"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), "too much for the memory of cpu"),
        (RuntimeError("MPS backend out of memory"), "too much for the memory of cpu"),
        (MemoryError(), r"too much for the memory of cpu: .* \(MemoryError\)"),
        (RuntimeError("mat1 and mat2\nmust have the same dtype"), r"failed on cpu .* RuntimeError: mat1 and mat2 must"),
        (NotImplementedError("no such kernel"), "failed on cpu .* NotImplementedError: no such kernel"),
    ],
)
def test_what_goes_wrong_inside_the_model_is_one_line(error: Exception, message: str) -> None:
    module = tiny_model("llama")
    model = wrap_model(module, model_config())

    def fail(*_args: Any) -> None:
        raise error

    module.model.layers[1].mlp.register_forward_hook(fail)
    batch = ragged_batch([5, 2])
    for run in (lambda: capture(model, *batch, RESIDUALS), lambda: check_hidden_states(model, *batch)):
        with pytest.raises(StrataError, match=message) as caught:
            run()
        assert "a batch of 2 sequences of up to 5 tokens" in str(caught.value)
        assert ("try a smaller batch_size" in str(caught.value)) == ("too much" in message)
        assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("family", ["llama", "bert", "t5"])
def test_tokens_of_another_model_are_refused(family: str) -> None:
    model = wrap_model(tiny_model(family), model_config())
    ids, mask = ragged_batch([5, 2])
    ids[0, 3] = N_VOCAB - 1
    capture(model, ids, mask, RESIDUALS)
    ids[0, 3] = N_VOCAB
    with pytest.raises(
        StrataError, match=r"token 97 is beyond the vocabulary of tiny, which has 97 tokens: .*tokenizer"
    ):
        capture(model, ids, mask, RESIDUALS)


def test_left_padding_is_refused() -> None:
    ids, mask = ragged_batch([5, 2])
    with pytest.raises(StrataError, match="pad sequences on the right"):
        capture(wrap_model(tiny_model("gpt2"), model_config()), ids.flip(1), mask.flip(1), RESIDUALS)


def test_nothing_wanted_runs_nothing() -> None:
    module = tiny_model("gpt2")
    model = wrap_model(module, model_config())
    module.transformer.wte.register_forward_pre_hook(lambda *_args: pytest.fail("the model ran"))
    assert capture(model, *ragged_batch([5, 2]), []) == {}


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt_neox", "bert"])
def test_bfloat16(family: str) -> None:
    single, half = tiny_model(family), tiny_model(family).to(torch.bfloat16)
    ids, mask = ragged_batch([6, 3])
    points = [HookPoint(hook, layer) for hook in ("resid_post", "attn_out") for layer in range(N_LAYERS)]
    model = wrap_model(half, model_config())
    assert check_hidden_states(model, ids, mask).layers_compared == N_LAYERS - 1
    states = capture(model, ids, mask, points)
    reference = capture(wrap_model(single, model_config()), ids, mask, points)
    for point in points:
        assert states[point].dtype == torch.bfloat16
        found, expected = states[point][mask.bool()].float(), reference[point][mask.bool()]
        # half precision is a perturbation of the float32 run, not another quantity
        assert (found - expected).norm() < 0.1 * expected.norm()
