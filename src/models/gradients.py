"""How the next-token loss depends on hidden states: many hook points from one forward and one backward pass."""

from collections.abc import Collection, Mapping
from contextlib import ExitStack, suppress
from functools import partial
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from src.errors import StrataError
from src.hook_points import HookPoint
from src.models.capture import StopForward, attach, check_batch, forward_pass
from src.models.head import VocabularyHead, next_token_nll
from src.models.language_model import LanguageModel

# the loss is so many times as large in a backward pass of float16, lest small gradients become zero
_FLOAT16_SCALE = 2.0**7


class GradientPass(NamedTuple):
    """What one forward and one backward pass of a batch gave, on the model's device.

    states: in the model's dtype. gradients: of the sum of `nll` with respect to each point's state, the total
    derivative through all later layers and positions; in float32 at least, 0 at padding. nll: -log P of the token at
    p + 1, in nats, at position p; 0 where there is none.
    """

    states: dict[HookPoint, Float[Tensor, "batch pos d_model"]]
    gradients: dict[HookPoint, Float[Tensor, "batch pos d_model"]]
    nll: Float[Tensor, "batch pos-1"]


def states_and_gradients(
    model: LanguageModel,
    input_ids: Int[Tensor, "batch pos"],
    attention_mask: Int[Tensor, "batch pos"],
    points: Collection[HookPoint],
    head: VocabularyHead | None = None,
    chunk_bytes: int | None = None,
    written: Mapping[HookPoint, Float[Tensor, "batch pos d_model"]] | None = None,
) -> GradientPass:
    """States at some hook points, and gradients there of the sum of the next-token NLL over all tokens predicted.

    Weights take no gradients. The graph begins at the earliest point; logits are made chunk by chunk, and each chunk
    goes backward to the last block's output at once.

    Args:
        model: a causal LM.
        input_ids: tokens, padded on the right; moved to the model's device.
        attention_mask: 1 for tokens, 0 for padding.
        points: where; several layers at once cost no further pass.
        head: of this model, where many batches follow each other; None = made, and so checked, for this batch.
        chunk_bytes: of the log-probabilities held at a time, about four times as much at the peak; None: what suits
            the device.
        written: activations that take the place of the model's own at some of the points: the gradients are those of
            the model so edited.

    Raises:
        StrataError: a model without a vocabulary head, or one that is not causal; a point or token that the model does
            not have, padding that is not on the right, a batch that outgrows the memory, gradients that are not finite.
    """
    head = VocabularyHead(model) if head is None else head
    model.check_hook_points(points)
    check_batch(model, input_ids, attention_mask)
    input_ids, mask = input_ids.to(model.device), attention_mask.to(model.device)
    with torch.inference_mode(mode=False), torch.enable_grad(), forward_pass(model, input_ids.shape):
        states, leaves, final = _forward(model, input_ids, set(points), written or {})
        nll, of_final = _loss(head, final.detach(), input_ids, mask, chunk_bytes)
        # what is read in the last block alone goes the same way: its graph is one addition
        found = torch.autograd.grad(final, list(leaves.values()), of_final) if leaves else ()
    gradients = {
        point: (gradient.to(_wide(model.dtype)) / _scale(model.dtype)).reshape(states[point].shape)
        for point, gradient in zip(leaves, found, strict=True)
    }
    if broken := [str(point) for point, gradient in gradients.items() if not gradient.isfinite().all()]:
        raise StrataError(
            f"the gradients at {', '.join(sorted(broken))} hold NaN or inf: run the model in a wider dtype "
            "(model.dtype=float32 or bfloat16)"
        )
    return GradientPass(states, gradients, nll)


def _forward(
    model: LanguageModel,
    input_ids: Int[Tensor, "batch pos"],
    points: set[HookPoint],
    written: Mapping[HookPoint, Float[Tensor, "batch pos d_model"]],
) -> tuple[dict[HookPoint, Tensor], dict[HookPoint, Tensor], Float[Tensor, "batch pos d_model"]]:
    """Copies of the states, leaves whose gradients are those of the states, and the last block's output.

    A leaf is a zero that is added to the state: unlike the state itself it stays what it is where a later point's
    graph goes through it, and where a block goes on writing in place.
    """
    states: dict[HookPoint, Tensor] = {}
    leaves: dict[HookPoint, Tensor] = {}
    final: list[Tensor] = []

    def visit(point: HookPoint, state: Tensor) -> Tensor:
        # opt's MLP gives [token, d_model]
        state = written[point].to(state.dtype).view(state.shape) if point in written else state
        states[point] = state.detach().reshape(*input_ids.shape, model.d_model).clone()
        leaves[point] = torch.zeros_like(state, requires_grad=True)
        return state + leaves[point]

    def stop(state: Tensor) -> None:
        final.append(state)
        raise StopForward

    with ExitStack() as hooks:
        for point in points:
            hooks.callback(attach(model, point, partial(visit, point)).remove)
        hooks.callback(attach(model, HookPoint("resid_post", model.n_layers - 1), stop).remove)
        hooks.enter_context(suppress(StopForward))
        # Tokens do not see the padding after them. Masked, padding beyond a sliding window would see nothing at all:
        # NaN in some dtypes, and 0 * NaN is NaN in a backward pass
        model.inner(input_ids, torch.ones_like(input_ids))
    if missed := points - states.keys():
        names = ", ".join(str(point) for point in sorted(missed))
        raise StrataError(f"{type(model.module).__name__} did not run {names} in this forward pass")
    return states, leaves, final[0]


def _loss(
    head: VocabularyHead,
    final: Float[Tensor, "batch pos d_model"],
    input_ids: Int[Tensor, "batch pos"],
    mask: Int[Tensor, "batch pos"],
    chunk_bytes: int | None,
) -> tuple[Float[Tensor, "batch pos-1"], Float[Tensor, "batch pos d_model"]]:
    """NLL of each prediction, and the (scaled) gradient of their sum with respect to the last block's output."""
    row, position = mask[:, 1:].nonzero(as_tuple=True)
    next_ids = input_ids[row, position + 1]
    gradient = torch.zeros_like(final)
    nll = torch.zeros(mask[:, 1:].shape, dtype=_wide(final.dtype), device=final.device)
    size = head.tokens_at_once(chunk_bytes)
    for r, p, ids in zip(row.split(size), position.split(size), next_ids.split(size), strict=True):
        rows = final[r, p].requires_grad_()
        of_rows = next_token_nll(head.logits(rows), ids)
        (gradient[r, p],) = torch.autograd.grad(of_rows.sum() * _scale(final.dtype), rows)
        nll[r, p] = of_rows.detach().to(nll.dtype)
    return nll, gradient


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)


def _scale(dtype: torch.dtype) -> float:
    return _FLOAT16_SCALE if dtype == torch.float16 else 1.0
