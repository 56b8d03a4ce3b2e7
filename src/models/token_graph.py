"""Hidden states of single tokens with the autograd graph that leads from the earliest of them to the later ones.

In a causal model the later states of a token depend on its own earlier state along its own column alone: keys and
values of the tokens before it are constants. So they are computed once, without gradients, and the graph is that of one
token per sequence, as in generation with a key-value cache: backward passes cost one token, not the whole sequence.
"""

import warnings
from collections.abc import Collection, Mapping
from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import DynamicCache

from src.errors import StrataError
from src.hook_points import HookPoint
from src.models.capture import StopForward, attach, forward_pass
from src.models.inner import probe_tokens, rounding_epsilon
from src.models.language_model import LanguageModel

# |difference| / |state| in units of rounding: products of one token and of many are rounded otherwise
_LIMIT = 512.0

TokenStates = Mapping[HookPoint, Float[Tensor, "batch d_model"]]


class TokenGraph:
    """Makes such graphs for one model.

    A model without a key-value cache, or one that is not causal, gets graphs of whole sequences: the derivative then
    goes through all tokens. So does a batch in which the cached pass does not repeat the states of the whole one
    (sliding windows that are shorter than the sequences). One warning says so.
    """

    def __init__(self, model: LanguageModel) -> None:
        """Checks on a few tokens that the model can go on from a cache."""
        self.model = model
        self._told = False
        ids = probe_tokens(model.module).flip(1)  # the second differs in its last token: a look ahead would show
        self._caches = model.inner.accepts("past_key_values") and not model.module.config.is_encoder_decoder
        if self._caches:
            ends = [HookPoint("resid_pre", 0), HookPoint("resid_post", model.n_layers - 1)]
            ids = torch.cat([ids, ids])
            at = torch.tensor([3, 3, 4, 1])
            whole = self._run(ids, torch.ones_like(ids), at, ends)
            try:
                self._caches = _agree(self._run_cached(ids, torch.ones_like(ids), at, ends)[0], whole)
            except (StrataError, TypeError, AttributeError, ValueError, KeyError, AssertionError):
                self._caches = False

    def states(
        self,
        input_ids: Int[Tensor, "batch pos"],
        attention_mask: Int[Tensor, "batch pos"],
        at: Int[Tensor, "batch"],
        points: Collection[HookPoint],
    ) -> TokenStates:
        """States of the token at position `at` of each sequence; the point that the model computes first is a leaf.

        `torch.autograd.grad(states[later], states[earlier], ...)` differentiates within a sequence, never across.

        Args:
            input_ids: whole sequences, padded on the right.
            attention_mask: 1 for tokens, 0 for padding.
            at: a position of each sequence, that of a token.
            points: at least two.

        Raises:
            StrataError: a point or token that the model does not have, or a pass that fails.
        """
        self.model.check_hook_points(points)
        self.model.check_token_ids(input_ids)
        with torch.enable_grad():
            if self._caches:
                cut = int(at.max()) + 1
                batch = input_ids[:, :cut], attention_mask[:, :cut], at
                found, whole = self._run_cached(*batch, points)
                if _agree(found, whole):
                    return found
            self._tell()
            return self._run(input_ids, attention_mask, at, points)

    def _run(
        self,
        input_ids: Int[Tensor, "batch pos"],
        attention_mask: Int[Tensor, "batch pos"],
        at: Int[Tensor, "batch"],
        points: Collection[HookPoint],
        **extra: Any,
    ) -> TokenStates:
        """One pass that stops after the last point; with gradients from the first one on, if they are enabled."""
        device = self.model.device
        row, at = torch.arange(len(at), device=device), at.to(device)
        states: dict[HookPoint, Tensor] = {}
        wanted = set(points)

        def visit(point: HookPoint, state: Tensor) -> Tensor:
            whole = state.reshape(*input_ids.shape, self.model.d_model)  # opt's MLP gives [token, d_model]
            token = whole[row, at]
            if not states and torch.is_grad_enabled():
                token = token.detach().requires_grad_()
            states[point] = token
            if len(states) == len(wanted):
                raise StopForward
            return whole.index_put((row, at), token).view(state.shape)

        with ExitStack() as hooks, forward_pass(self.model, input_ids.shape):
            for point in wanted:
                hooks.callback(attach(self.model, point, partial(visit, point)).remove)
            try:
                self.model.inner(input_ids.to(device), attention_mask.to(device), **extra)
            except StopForward:
                return states
        missed = ", ".join(str(point) for point in sorted(wanted - states.keys()))
        raise StrataError(f"{type(self.model.module).__name__} did not run {missed} in this forward pass")

    def _run_cached(
        self,
        input_ids: Int[Tensor, "batch pos"],
        attention_mask: Int[Tensor, "batch pos"],
        at: Int[Tensor, "batch"],
        points: Collection[HookPoint],
    ) -> tuple[TokenStates, TokenStates]:
        """The tokens alone, after a pass that leaves keys and values of all tokens; and what that pass had for them.

        The token comes again at the end of its sequence, under its own position, and sees only what lies before it.
        """
        device = self.model.device
        row = torch.arange(len(at))
        cache = DynamicCache(config=self.model.module.config.get_text_config())
        with torch.no_grad():
            whole = self._run(input_ids, attention_mask, at, points, past_key_values=cache, use_cache=True)
        before = torch.arange(input_ids.shape[1])[None] < at.cpu()[:, None]
        mask = torch.cat([before, torch.ones(len(at), 1, dtype=torch.bool)], 1).to(attention_mask.dtype)
        extra: dict[str, Any] = {"past_key_values": cache, "use_cache": True}
        if self.model.inner.accepts("position_ids"):
            extra["position_ids"] = at[:, None].to(device)
        token = input_ids.cpu()[row, at.cpu()][:, None]
        return self._run(token, mask, torch.zeros_like(at), points, **extra), whole

    def _tell(self) -> None:
        if not self._told:
            self._told = True
            warnings.warn(
                f"{type(self.model.module).__name__} can't go on from a key-value cache for these sequences (it is not "
                "causal, or attends through a window that is shorter): derivatives run through whole sequences, which "
                "takes longer and more memory",
                stacklevel=3,
            )


def _agree(found: TokenStates, expected: TokenStates) -> bool:
    """Whether states are the same but for rounding."""
    for point, state in expected.items():
        limit = _LIMIT * rounding_epsilon(state.dtype)
        difference = (found[point].detach().float() - state.detach().float()).norm(dim=1)
        if not bool((difference <= limit * state.detach().float().norm(dim=1)).all()):
            return False
    return True
