"""Read hidden states in one forward pass that stops as soon as nothing more is wanted."""

import re
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils.hooks import RemovableHandle
from transformers.cache_utils import Cache

from src.errors import StrataError
from src.hook_points import HookPoint
from src.models.inner import hidden_state, residual_input, rounding_units, with_hidden_state, with_residual_input
from src.models.language_model import LanguageModel

Receiver = Callable[[HookPoint, Float[Tensor, "batch pos d_model"]], None]

# a second forward pass of the same batch repeats the first bit for bit on most devices, and to the last bits on all
_LIMIT = 8.0


# the CPU and MPS have no exception type of their own for it
_OUT_OF_MEMORY = re.compile(r"out of memory|can't allocate memory", re.IGNORECASE)


class StopForward(Exception):
    """Raised inside a forward pass, by a visitor of a hook point, when nothing more is wanted of it."""


def run_with_hooks(
    model: LanguageModel,
    input_ids: Int[Tensor, "batch pos"],
    attention_mask: Int[Tensor, "batch pos"],
    points: Collection[HookPoint],
    receive: Receiver,
    cache: Cache | None = None,
) -> None:
    """One forward pass of the inner model; `receive(point, tensor)` is called for each point when it is computed.

    The pass stops after the last point: later blocks do not run, logits are never computed. The tensor is the module's
    own output, [batch, pos, d_model] on the model's device, padding rows included. It is valid during the call only (a
    block may overwrite it in place: falcon does), so take rows from it or copy it; it can't take part in autograd.

    Args:
        model: a loaded model.
        input_ids: tokens, padded on the right; moved to the model's device.
        attention_mask: 1 for tokens, 0 for padding; with a cache that holds positions before these, of all of them.
        points: what to read; order and repetition do not matter.
        receive: what to do with each hidden state; what it raises ends the pass and comes out of this function.
        cache: of keys and values, for a model that takes one (src/models/prefix.py).

    Raises:
        StrataError: a point that the model does not have, padding that is not on the right (positions would silently
            be wrong in models with learned positions), tokens that the model does not have, or a pass that fails.
    """
    model.check_hook_points(points)
    check_batch(model, input_ids, attention_mask)
    if not points:
        return
    wanted = set(points)

    def deliver(point: HookPoint, state: Tensor) -> None:
        if point not in wanted:
            return
        wanted.remove(point)
        receive(point, state.reshape(*input_ids.shape, model.d_model))  # opt's MLP gives [token, d_model]
        if not wanted:
            raise StopForward

    with ExitStack() as hooks, forward_pass(model, input_ids.shape), torch.inference_mode():
        for point in set(points):
            hooks.callback(attach(model, point, partial(deliver, point)).remove)
        try:
            extra = {} if cache is None else {"past_key_values": cache, "use_cache": True}
            model.inner(input_ids.to(model.device), attention_mask.to(model.device), **extra)
        except StopForward:
            return
    missed = ", ".join(str(point) for point in sorted(wanted))
    raise StrataError(f"{type(model.module).__name__} did not run {missed} in this forward pass")


def check_batch(
    model: LanguageModel, input_ids: Int[Tensor, "batch pos"], attention_mask: Int[Tensor, "batch pos"]
) -> None:
    """Raise StrataError for tokens that the model does not have, and for padding that is not on the right."""
    model.check_token_ids(input_ids)
    if bool((attention_mask[:, 1:] > attention_mask[:, :-1]).any()):
        raise StrataError("the attention mask has padding before tokens: pad sequences on the right")


@contextmanager
def forward_pass(model: LanguageModel, batch: tuple[int, ...]) -> Iterator[None]:
    """Turn what goes wrong on the device into a StrataError that names the model and the batch [sequences, positions].

    Accelerators report some failures late: wait for one within this context.
    """
    try:
        yield
    except (RuntimeError, IndexError, MemoryError) as error:
        n_sequences, n_positions = batch
        what = f"{n_sequences} sequences of up to {n_positions} tokens"
        reason = " ".join(str(error).split()) or type(error).__name__
        if isinstance(error, torch.OutOfMemoryError | MemoryError) or _OUT_OF_MEMORY.search(reason):
            raise StrataError(
                f"a batch of {what} is too much for the memory of {model.device}: try a smaller batch_size or "
                f"max_length ({reason})"
            ) from error
        raise StrataError(
            f"{type(model.module).__name__} ({model.config.name}) failed on {model.device} in a batch of {what}: "
            f"{type(error).__name__}: {reason}"
        ) from error


def attach(model: LanguageModel, point: HookPoint, visit: Callable[[Tensor], Tensor | None]) -> RemovableHandle:
    """Call `visit(state)` whenever a hook point is computed; a tensor that it returns takes the place of the state.

    The state comes as the module has it: [batch, pos, d_model], or [token, d_model] from the MLP of opt. Visitors are
    called in the order in which they were attached, each with what the one before has left.
    """
    block = model.blocks[point.layer]

    def before(_module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        changed = visit(residual_input(args, kwargs))
        return None if changed is None else with_residual_input(args, kwargs, changed)

    def after(_module: Any, _args: Any, output: Any) -> Any:
        changed = visit(hidden_state(output))
        return None if changed is None else with_hidden_state(output, changed)

    if point.hook == "resid_pre":
        return block.register_forward_pre_hook(before, with_kwargs=True)
    if point.hook == "resid_post":
        return block.register_forward_hook(after)
    paths = model.increments.attn_out if point.hook == "attn_out" else model.increments.mlp_out
    return block.get_submodule(paths[point.layer]).register_forward_hook(after)


def capture(
    model: LanguageModel,
    input_ids: Int[Tensor, "batch pos"],
    attention_mask: Int[Tensor, "batch pos"],
    points: Collection[HookPoint],
    cache: Cache | None = None,
) -> dict[HookPoint, Float[Tensor, "batch pos d_model"]]:
    """Copies of the hidden states at all points, on the model's device; see `run_with_hooks`."""
    states: dict[HookPoint, Tensor] = {}

    def copy(point: HookPoint, state: Tensor) -> None:
        states[point] = state.clone()

    run_with_hooks(model, input_ids, attention_mask, points, copy, cache)
    return states


@dataclass(frozen=True)
class HiddenStateCheck:
    """How far hooks and `output_hidden_states` lie apart.

    layers_compared: 0 where the model returns no hidden states (or has one layer), and nothing was checked.
    max_difference: the largest absolute difference at any token.
    """

    layers_compared: int
    max_difference: float


def check_hidden_states(
    model: LanguageModel, input_ids: Int[Tensor, "batch pos"], attention_mask: Int[Tensor, "batch pos"]
) -> HiddenStateCheck:
    """Self-test: resid_post.L equals `hidden_states[L + 1]` of transformers' own recording, for every L but the last.

    (The last entry of `hidden_states` is taken after the final norm. Where entry 0 is not the input of block 0, as in
    mamba, resid_post.L is entry L.) The recording is a forward pass of its own, with no hook of ours on the model.
    Padding is not compared.

    Raises:
        StrataError: they differ by more than rounding in the model's dtype.
    """
    input_ids, attention_mask = input_ids.to(model.device), attention_mask.to(model.device)
    with forward_pass(model, input_ids.shape), torch.inference_mode():
        output = model.inner(input_ids, attention_mask, output_hidden_states=True)
    name = "decoder_hidden_states" if model.inner.through_decoder else "hidden_states"
    recorded = getattr(output, name, None)
    if recorded is None or len(recorded) != model.n_layers + 1:
        return HiddenStateCheck(0, 0.0)
    tokens = attention_mask.bool()
    first_input = HookPoint("resid_pre", 0)
    states = capture(model, input_ids, attention_mask, [first_input])
    shift = int(_rounding(states[first_input][tokens], recorded[0][tokens]) <= _LIMIT)
    points = [HookPoint("resid_post", layer) for layer in range(model.n_layers - 1)]
    differences = [0.0]

    def compare(point: HookPoint, state: Float[Tensor, "batch pos d_model"]) -> None:
        found, expected = state[tokens], recorded[point.layer + shift][tokens]
        differences.append(float((found - expected).abs().max()))
        if _rounding(found, expected) > _LIMIT:
            raise StrataError(
                f"{point} of {type(model.module).__name__} differs from hidden_states[{point.layer + shift}] by "
                f"{differences[-1]:.3g} (values up to {float(expected.abs().max()):.3g}): the blocks at "
                f"{model.block_list.path} are not what transformers records. Name the right list with "
                "model.blocks=path.to.list"
            )

    run_with_hooks(model, input_ids, attention_mask, points, compare)
    return HiddenStateCheck(len(points), max(differences))


def _rounding(found: Float[Tensor, "token d_model"], expected: Float[Tensor, "token d_model"]) -> float:
    """Largest difference in rounding units of each value and of its token's mean size."""
    size = expected.float().abs()
    return rounding_units(found.float() - expected.float(), size + size.mean(-1, keepdim=True), found.dtype)
