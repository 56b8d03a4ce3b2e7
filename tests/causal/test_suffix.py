"""Replays of the layers after an edit, against full forward passes with plain torch hooks."""

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from src.causal.suffix import SuffixReplay, Write
from src.errors import StrataError
from src.hook_points import HookPoint
from src.models import LanguageModel, VocabularyHead, attach, capture, wrap_model
from src.models.inner import hidden_state
from tests.fixtures.tiny_models import D_MODEL, FAMILIES, N_LAYERS, model_config, ragged_batch, tiny_model

NOT_CAUSAL = ("bert", "distilbert", "t5")
DECODERS = [family for family in FAMILIES if family not in NOT_CAUSAL]
LENGTHS = [9, 4, 12, 7]
HOOKS = ("resid_pre", "attn_out", "mlp_out", "resid_post")
VARIANTS: list[tuple[str, dict[str, Any]]] = [
    ("falcon", {"alibi": True}),
    ("falcon_new", {"alibi": True}),
    ("llama", {"attn_implementation": "eager"}),
    ("gemma2", {"attn_implementation": "eager", "final_logit_softcapping": 3.0}),
    ("qwen2", {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1}),
]


def hooked_logits(model: LanguageModel, ids: Tensor, mask: Tensor, target: HookPoint, write: Write) -> Tensor:
    """The whole model, edited by a plain hook of torch."""

    def overwritten(state: Tensor) -> Tensor:
        changed = state.reshape(*ids.shape, D_MODEL).clone()
        changed[write.edited] = write.values
        return changed.view(state.shape)

    def after(_module: nn.Module, _args: Any, output: Any) -> Any:
        return (overwritten(output[0]), *output[1:]) if isinstance(output, tuple) else overwritten(output)

    def before(_module: nn.Module, args: Any, kwargs: dict[str, Any]) -> Any:
        if args:
            return (overwritten(args[0]), *args[1:]), kwargs
        return args, kwargs | {"hidden_states": overwritten(kwargs["hidden_states"])}

    block = model.blocks[target.layer]
    if target.hook == "resid_pre":
        handle = block.register_forward_pre_hook(before, with_kwargs=True)
    elif target.hook == "resid_post":
        handle = block.register_forward_hook(after)
    else:
        paths = model.increments.attn_out if target.hook == "attn_out" else model.increments.mlp_out
        handle = block.get_submodule(paths[target.layer]).register_forward_hook(after)
    with torch.no_grad():
        logits = model.module(input_ids=ids, attention_mask=mask, use_cache=False).logits
    handle.remove()
    return logits


def edits(mask: Tensor) -> list[Write]:
    """Noise at one position, at all, at two, late, and nowhere."""
    draws = torch.Generator().manual_seed(1)
    writes = []
    for positions in ([3], range(mask.shape[1]), [2, 8], [8], []):
        edited = torch.zeros_like(mask, dtype=torch.bool)
        edited[:, list(positions)] = True
        edited &= mask.bool()
        writes.append(Write(edited, torch.randn(int(edited.sum()), D_MODEL, generator=draws)))
    return writes


def check_replay(module: Any) -> None:
    """In float32 at all hook points; in float64, at some, it is the same but for what models compute in float32."""
    # eager attention of gemma2 rounds otherwise in passes of other shapes; full passes are 8e-6 from the truth here
    tolerance = 3e-5 if module.config.model_type == "gemma2" else 1e-5
    check_targets(module, [HookPoint(hook, layer) for hook in HOOKS for layer in range(N_LAYERS)], tolerance)
    with pytest.MonkeyPatch.context() as patch:  # the masks of float64 are infinite in a float32 softmax
        softmax = nn.functional.softmax
        patch.setattr(nn.functional, "softmax", lambda x, dim, dtype=None: softmax(x, dim, dtype=x.dtype))
        check_targets(module.double(), [HookPoint("resid_pre", 0), HookPoint("resid_post", 0)], 1e-6)


def check_targets(module: Any, targets: list[HookPoint], tolerance: float) -> None:
    model = wrap_model(module, model_config())
    ids, mask = ragged_batch(LENGTHS)
    writes = [Write(write.edited, write.values.to(model.dtype)) for write in edits(mask)]
    replay = SuffixReplay(model, rows_per_pass=3)  # cuts edits in two
    head = VocabularyHead(model, replay.skipper)
    clean = replay.clean(ids, mask, targets)
    assert clean.prefix_length == max(LENGTHS) - 1
    for target in targets:
        rerun = replay.rerun(clean, target, writes)
        assert rerun.max_deviation.tolist() == [0] * len(writes)
        for write, final in zip(writes, rerun.final, strict=True):
            expected = hooked_logits(model, ids, mask, target, write)[mask.bool()]
            found = head(final[mask.bool()])
            torch.testing.assert_close(found, expected, atol=tolerance * max(1, float(expected.abs().max())), rtol=0)
            if write.edited.any():
                assert (expected - head(clean.states[replay.final][mask.bool()])).abs().max() > 1e-2


@pytest.fixture(autouse=True)
def _no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        yield


@pytest.mark.parametrize("family", DECODERS)
def test_replay_equals_a_hooked_full_forward(family: str) -> None:
    check_replay(tiny_model(family))


@pytest.mark.parametrize(("family", "keys"), VARIANTS)
def test_replay_of_alibi_soft_caps_windows_and_eager_attention(family: str, keys: dict[str, Any]) -> None:
    check_replay(tiny_model(family, **keys))


@pytest.mark.parametrize("family", DECODERS)
def test_replay_in_bfloat16(family: str) -> None:
    """Within the rounding of a few products: the norm of each token's state."""
    model = wrap_model(tiny_model(family).to(torch.bfloat16), model_config())
    ids, mask = ragged_batch(LENGTHS)
    writes = [Write(write.edited, write.values.bfloat16()) for write in edits(mask)]
    target = HookPoint("resid_post", 0)
    replay = SuffixReplay(model, rows_per_pass=7)
    clean = replay.clean(ids, mask, [target])
    assert clean.prefix_length
    rerun = replay.rerun(clean, target, writes)
    assert rerun.max_deviation.tolist() == [0] * len(writes)
    for write, final in zip(writes, rerun.final, strict=True):
        handle = attach(model, target, partial(overwritten, write))
        expected = capture(model, ids, mask, [replay.final])[replay.final][mask.bool()].float()
        handle.remove()
        error = (final[mask.bool()].float() - expected).norm(dim=-1) / expected.norm(dim=-1)
        assert error.max() < 4 * torch.finfo(torch.bfloat16).eps


def overwritten(write: Write, state: Tensor) -> Tensor:
    changed = state.reshape(*write.edited.shape, D_MODEL).clone()
    changed[write.edited] = write.values
    return changed.view(state.shape)


@pytest.mark.parametrize("family", ["llama", "gemma3", "gpt2", "falcon"])
def test_only_the_positions_from_the_first_edit_on_run(family: str) -> None:
    model = wrap_model(tiny_model(family), model_config())
    ids, mask = ragged_batch(LENGTHS)
    target = HookPoint("resid_post", 1)
    replay = SuffixReplay(model, 4)
    runs: list[tuple[int, ...]] = []
    model.blocks[2].register_forward_hook(
        lambda _module, _args, output: runs.append(tuple(hidden_state(output).shape[:2]))
    )
    clean = replay.clean(ids, mask, [target])
    replay.rerun(clean, target, edits(mask))
    runs.clear()
    replay.rerun(clean, target, edits(mask))
    # all: 4 sequences; [2, 8] and [3]: 4 each; [8]: the 2 sequences that reach it
    assert runs == [(4, 12), (4, 10), (4, 9), (2, 4)]
    late = replay.clean(ids, mask, [target], latest_first_edit=3)
    assert {keys.shape[2] for keys, _ in late.prefix.values()} == {3}
    assert late.prefix.keys() == {2}
    runs.clear()
    rerun = replay.rerun(late, target, edits(mask))
    assert runs == [(4, 12), (4, 10), (4, 9), (2, 9)]
    expected = replay.rerun(clean, target, edits(mask)).final
    torch.testing.assert_close(rerun.final[:, mask.bool()], expected[:, mask.bool()], atol=1e-4, rtol=1e-5)
    assert not replay.clean(ids, mask, [target], latest_first_edit=0).prefix


def test_a_model_that_goes_wrong_beyond_the_probe_is_rerun_at_all_positions() -> None:
    module = tiny_model("llama")

    def misplaced(_module: nn.Module, args: Any, kwargs: dict[str, Any]) -> Any:
        positions = kwargs["position_ids"]
        return args, kwargs | {"position_ids": positions - positions.min() * (positions.min() > 6)}

    module.model.rotary_emb.register_forward_pre_hook(misplaced, with_kwargs=True)
    model = wrap_model(module, model_config())
    ids, mask = ragged_batch(LENGTHS)
    target = HookPoint("resid_post", 0)
    replay = SuffixReplay(model, 7)
    clean = replay.clean(ids, mask, [target])
    assert clean.prefix_length
    write = edits(mask)[3]
    with pytest.warns(UserWarning, match="LlamaForCausalLM gives other numbers when only the positions after an edit"):
        final = replay.rerun(clean, target, [write]).final[0]
    expected = hooked_logits(model, ids, mask, target, write)[mask.bool()]
    found = VocabularyHead(model, replay.skipper)(final[mask.bool()])
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
    assert not replay.clean(ids, mask, [target]).prefix


def test_a_state_space_model_is_rerun_at_all_positions() -> None:
    from transformers import MambaConfig, MambaForCausalLM

    torch.manual_seed(0)
    config = MambaConfig(vocab_size=97, hidden_size=D_MODEL, num_hidden_layers=N_LAYERS, state_size=4)
    model = wrap_model(MambaForCausalLM(config).eval(), model_config())
    ids, mask = ragged_batch(LENGTHS)
    target = HookPoint("resid_post", 0)
    replay = SuffixReplay(model, 7)
    clean = replay.clean(ids, mask, [target])
    assert not clean.prefix
    rerun = replay.rerun(clean, target, edits(mask))
    head = VocabularyHead(model, replay.skipper)
    for write, final in zip(edits(mask), rerun.final, strict=True):
        expected = hooked_logits(model, ids, mask, target, write)[mask.bool()]
        torch.testing.assert_close(head(final[mask.bool()]), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("family", ["llama", "gemma3", "gpt2", "falcon"])
def test_only_the_layers_after_the_edit_run(family: str) -> None:
    model = wrap_model(tiny_model(family), model_config())
    ids, mask = ragged_batch(LENGTHS)
    replay = SuffixReplay(model, 64)
    runs: set[int] = set()
    for layer, block in enumerate(model.blocks):
        next(block.children()).register_forward_hook(lambda *_args, layer=layer: runs.add(layer))
    targets = [HookPoint("resid_post", 0), HookPoint("resid_post", 2), HookPoint("mlp_out", 1)]
    clean = replay.clean(ids, mask, targets)
    runs.clear()
    expected = {targets[0]: {1, 2}, targets[1]: set(), targets[2]: {1, 2}}
    for target in targets:
        replay.rerun(clean, target, edits(mask))
        assert runs == expected[target]
        runs.clear()


def test_positions_before_the_edit_do_not_change_at_all() -> None:
    model = wrap_model(tiny_model("llama"), model_config())
    ids, mask = ragged_batch([12, 12, 9])
    target = HookPoint("resid_post", 0)
    replay = SuffixReplay(model, 64)
    clean = replay.clean(ids, mask, [target])
    kept = Write(torch.zeros_like(mask, dtype=torch.bool), torch.zeros(0, D_MODEL))
    edited = kept.edited.clone()
    edited[:, 5] = True
    noise = Write(edited, torch.randn(3, D_MODEL))
    copied = Write(edited, clean.states[target][edited])
    final = replay.rerun(clean, target, [kept, noise, copied]).final
    torch.testing.assert_close(final[1, :, :5], final[0, :, :5], atol=0, rtol=0)
    assert (final[1, :, 5:] - final[0, :, 5:]).abs().amax(-1)[mask[:, 5:].bool()].min() > 1e-3
    torch.testing.assert_close(final[2][mask.bool()], final[0][mask.bool()], atol=1e-5, rtol=0)
    torch.testing.assert_close(final[0], clean.states[replay.final], atol=0, rtol=0)


@pytest.mark.parametrize("rows", [1, 3, 8, 100])
def test_the_size_of_passes_changes_nothing_but_the_passes(rows: int) -> None:
    model = wrap_model(tiny_model("gemma3"), model_config())
    ids, mask = ragged_batch(LENGTHS)
    target = HookPoint("attn_out", 1)
    whole = SuffixReplay(model, 1000)
    expected = whole.rerun(whole.clean(ids, mask, [target]), target, edits(mask)).final
    replay = SuffixReplay(model, rows)
    clean = replay.clean(ids, mask, [target])
    seen: list[int] = []
    model.blocks[2].register_forward_hook(lambda _module, _args, output: seen.append(len(output)))
    final = replay.rerun(clean, target, edits(mask)).final
    assert max(seen) <= rows
    # three edits of all sequences, one of the two that reach it, and a row that is rerun at all positions to compare
    assert sum(seen) == 3 * len(LENGTHS) + 2 + 1
    tokens = mask.bool().expand(5, -1, -1)
    torch.testing.assert_close(final[tokens], expected[tokens], atol=1e-4, rtol=1e-5)


class _Borrower(nn.Module):
    """A block that adds what the first block has returned: not in the hidden state that it is given."""

    def __init__(self, block: nn.Module, lender: nn.Module, *, stale: bool) -> None:
        super().__init__()
        self.block = block
        self.lent: list[Tensor] = []
        self.stale = stale
        lender.post_attention_layernorm.register_forward_hook(lambda _module, _args, output: self.lent.append(output))

    def forward(self, hidden_states: Tensor, **keywords: Any) -> Tensor:
        lent = self.lent[-1] if self.stale else self.lent.pop()
        return self.block(hidden_states, **keywords) + lent[: len(hidden_states)]


@pytest.mark.parametrize("stale", [False, True])
def test_a_model_that_can_not_be_replayed_gets_full_forwards_and_one_warning(stale: bool) -> None:
    module = tiny_model("llama")
    module.model.layers[2] = _Borrower(module.model.layers[2], module.model.layers[0], stale=stale)
    model = wrap_model(module, model_config())
    ids, mask = ragged_batch(LENGTHS)
    targets = [HookPoint("resid_post", layer) for layer in range(N_LAYERS)]
    replay = SuffixReplay(model, 7)
    head = VocabularyHead(model, replay.skipper)
    with pytest.warns(UserWarning, match="LlamaForCausalLM can't be replayed from layer .: .* Full forward") as caught:
        clean = replay.clean(ids, mask, targets)
    assert len(caught) == 1
    for target in targets:
        rerun = replay.rerun(clean, target, edits(mask))
        assert rerun.max_deviation.tolist() == [0] * 5
        for write, final in zip(edits(mask), rerun.final, strict=True):
            expected = hooked_logits(model, ids, mask, target, write)[mask.bool()]
            torch.testing.assert_close(head(final[mask.bool()]), expected, atol=1e-4, rtol=0)


def test_the_model_is_left_as_it_was() -> None:
    module = tiny_model("gpt2")
    model = wrap_model(module, model_config())
    model.blocks[0].__dict__["forward"] = own = model.blocks[0].forward  # as accelerate does
    ids, mask = ragged_batch(LENGTHS)
    before = module(input_ids=ids, attention_mask=mask).logits
    target = HookPoint("resid_post", 1)
    replay = SuffixReplay(model, 64)
    clean = replay.clean(ids, mask, [target])
    bad = Write(mask.bool(), torch.full((int(mask.sum()), D_MODEL), torch.inf))
    with pytest.raises(StrataError, match=r"writes NaN, inf or more than float32 can hold at resid_post\.1"):
        replay.rerun(clean, target, [bad])
    module.transformer.h[2].register_forward_hook(_raise_once())
    with pytest.raises(StrataError, match="no such kernel"):
        replay.rerun(clean, target, edits(mask))
    torch.testing.assert_close(module(input_ids=ids, attention_mask=mask).logits, before, atol=0, rtol=0)
    assert model.blocks[0].__dict__["forward"] is own
    assert "forward" not in model.blocks[1].__dict__
    assert all(not item._forward_pre_hooks for item in module.modules())


def _raise_once() -> Callable[..., None]:
    failures = iter([RuntimeError("no such kernel")])

    def hook(*_args: Any) -> None:
        error = next(failures, None)
        if error is not None:
            raise error

    return hook


def test_values_that_half_precision_can_not_hold_are_refused() -> None:
    model = wrap_model(tiny_model("llama").to(torch.float16), model_config())
    ids, mask = ragged_batch([5, 5])
    target = HookPoint("resid_post", 1)
    replay = SuffixReplay(model, 64)
    clean = replay.clean(ids, mask, [target])
    with pytest.raises(StrataError, match="more than float16 can hold"):
        replay.rerun(clean, target, [Write(mask.bool(), torch.full((10, D_MODEL), 1e5))])


@pytest.mark.parametrize("family", ["bert", "t5"])
def test_models_without_a_vocabulary_head_are_refused(family: str) -> None:
    model = wrap_model(tiny_model(family), model_config())
    with pytest.raises(StrataError, match="has no vocabulary head"):
        VocabularyHead(model, SuffixReplay(model, 64).skipper)


def test_models_that_see_later_tokens_are_refused() -> None:
    from transformers import BertConfig, BertLMHeadModel, T5Config, T5ForConditionalGeneration

    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 24}
    bert = BertLMHeadModel(BertConfig(vocab_size=97, is_decoder=False, **sizes))
    t5 = T5ForConditionalGeneration(
        T5Config(vocab_size=97, d_model=16, d_kv=4, d_ff=24, num_layers=2, num_heads=4, decoder_start_token_id=0)
    )
    for module, stack in ((bert, "auto"), (t5, "decoder")):
        for weight in module.parameters():
            weight.data.normal_(0, 0.3, generator=torch.Generator().manual_seed(0))
        model = wrap_model(module, model_config(stack=stack))
        with pytest.raises(StrataError, match="is not causal: a later token changes the hidden states of earlier ones"):
            VocabularyHead(model, SuffixReplay(model, 64).skipper)


@pytest.mark.parametrize("family", NOT_CAUSAL)
def test_encoders_are_replayed_too(family: str) -> None:
    """Hidden states need no vocabulary head; t5 hands its position bias on beside them, and so runs in full."""
    model = wrap_model(tiny_model(family), model_config())
    ids, mask = ragged_batch(LENGTHS)
    target = HookPoint("resid_post", 0)
    replay = SuffixReplay(model, 64)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        clean = replay.clean(ids, mask, [target])
    assert len(caught) == (family == "t5")
    write = edits(mask)[0]
    final = replay.rerun(clean, target, [write]).final[0]

    def after(_module: nn.Module, _args: Any, output: Any) -> Any:
        changed = (output[0] if isinstance(output, tuple) else output).clone()
        changed[write.edited] = write.values
        return (changed, *output[1:]) if isinstance(output, tuple) else changed

    handle = model.blocks[0].register_forward_hook(after)
    expected = capture(model, ids, mask, [replay.final])[replay.final]
    handle.remove()
    torch.testing.assert_close(final[mask.bool()], expected[mask.bool()], atol=1e-5, rtol=0)
