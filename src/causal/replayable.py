"""What of a model can be left out when it is rerun after an edit: found out by asking it, on a few tokens."""

import torch
from jaxtyping import Int
from torch import Tensor

from src.errors import StrataError
from src.hook_points import HookPoint
from src.models import BlockSkipper, LanguageModel, PrefixRecorder, capture, prefix_cache
from src.models.inner import probe_tokens, rounding_units, states_agree

# The same blocks on the same rows repeat the hidden states bit for bit on most devices, to the last bits on all.
_LIMIT = 8.0
_START = 4  # of the positions of the probe that are rerun
# What a model that was not written for a cache like this may raise, beside what `capture` turns into a StrataError.
_REFUSALS = (StrataError, AttributeError, TypeError, ValueError, KeyError, AssertionError)


class Replayable:
    """From which layers a model can be rerun, and whether from a later position too; each is asked once."""

    def __init__(self, model: LanguageModel, skipper: BlockSkipper) -> None:
        self._model, self._skipper = model, skipper
        self._final = HookPoint("resid_post", model.n_layers - 1)
        self._layers: dict[int, bool] = {0: True}
        self._positions: dict[int, bool] = {model.n_layers: False}  # without a block there is nothing to save

    def from_layer(self, count: int) -> bool:
        """Whether blocks 0..count - 1 need not run: later ones take from them nothing but the hidden state."""
        if count not in self._layers:
            self._layers[count] = self._check_layer(count)
        return self._layers[count]

    def from_position(self, count: int) -> bool:
        """Whether, with these blocks skipped, positions before the first edit need not run either.

        So it is where they change nothing (the model is causal), later ones see of them nothing but keys and values,
        and the model takes these from a cache.
        """
        if count not in self._positions:
            self._positions[count] = self._check_position(count)
        return self._positions[count]

    def refuse_positions(self, count: int) -> None:
        """Remember that a rerun from a later position went wrong."""
        self._positions[count] = False

    def _check_layer(self, count: int) -> bool:
        """Whether a clean replay gives the model's own hidden states, with padding and with several rows per sequence.

        The model sees other tokens in between, lest a block reads what it has kept of the last pass.
        """
        ids, mask = self._probe()
        entry = HookPoint("resid_post", count - 1)
        try:
            clean = capture(self._model, ids, mask, {entry, self._final})
            capture(self._model, ids[:1].flip(1), mask[1:2], {self._final})
            with self._skipper.skipped(count, clean[entry].clone()):
                replayed = capture(self._model, ids, mask, {self._final})[self._final]
        except StrataError:
            return False
        expected, found = clean[self._final][mask.bool()].float(), replayed[mask.bool()].float()
        scale = expected.abs() + expected.abs().mean(-1, keepdim=True)
        return rounding_units(found - expected, scale, self._model.dtype) <= _LIMIT

    def _check_position(self, count: int) -> bool:
        """Whether an edited rerun of the last positions equals one of all, in which the first ones stay as they were.

        The edit: every state that goes in (with no block skipped, every token) is the one before it.
        """
        if self._model.inner.through_decoder or not self._model.inner.accepts("past_key_values"):
            return False
        ids, mask = self._probe()
        n_layers, entry = self._model.n_layers, HookPoint("resid_post", max(count - 1, 0))
        recorder = PrefixRecorder(n_layers, range(count, n_layers), _START)
        try:
            clean = capture(self._model, ids, mask, {entry, self._final}, recorder.cache)
            edited_ids = ids if count else _shifted(ids)
            state = _shifted(clean[entry])
            with self._skipper.skipped(count, state.clone()):
                whole = capture(self._model, edited_ids, mask, {self._final})[self._final]
            prefix = prefix_cache(recorder.recorded, n_layers, torch.arange(len(ids), device=ids.device), _START)
            with self._skipper.skipped(count, state[:, _START:].clone()):
                found = capture(self._model, edited_ids[:, _START:], mask, {self._final}, prefix)[self._final]
        except _REFUSALS:
            return False
        joined = torch.cat([clean[self._final][:, :_START], found], 1)
        return states_agree(joined, whole, mask.bool())

    def _probe(self) -> tuple[Int[Tensor, "sequence pos"], Int[Tensor, "sequence pos"]]:
        ids = probe_tokens(self._model.module)
        ids = torch.cat([ids, ids.flip(1)])
        ids = torch.cat([ids, ids.roll(1, 0)], 1)
        mask = torch.ones_like(ids)
        mask[0, -2:] = 0
        return ids, mask


def _shifted(values: Tensor) -> Tensor:
    """[sequence, pos, ...]: from `_START` on each position holds what the one before it held."""
    return torch.cat([values[:, :_START], values[:, _START - 1 : -1]], 1)
