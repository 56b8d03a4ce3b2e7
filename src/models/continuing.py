"""Go on from where a forward pass has ended: caches of keys and values that grow, fork and branch, and who takes them.

Transformers' own caches forget (sliding windows), can't be cut in all families, and copy all that they hold at every
step. These keep every key and value of one sequence in buffers with room to grow. A model that is not served by that
(state-space models, hybrids, blocks with a memory of their own) is found out by asking it.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer

from src.errors import StrataError
from src.models.inner import PROBE_SHAPE, probe_tokens, states_agree
from src.models.language_model import LanguageModel
from src.models.prefix import KeysAndValues

# what a model that was not written for a cache like this may raise
_REFUSALS = (StrataError, RuntimeError, AttributeError, TypeError, ValueError, KeyError, IndexError, AssertionError)


_WINDOWS = ("sliding_window", "attention_chunk_size", "window_size")


class GrowingCache(Cache):
    """Keys and values of one sequence; a model appends to it when it is given as past_key_values."""

    def __init__(self, n_layers: int, room: int) -> None:
        """room: positions to make room for at first."""
        self._own = [_GrowingLayer(room) for _ in range(n_layers)]
        super().__init__(layers=[*self._own])

    @property
    def n_tokens(self) -> int:
        """Positions that it holds."""
        return max(layer.get_seq_length() for layer in self._own)

    def fork(self, n_tokens: int, room: int) -> "GrowingCache":
        """A cache of its own that begins with the first n_tokens positions of this one."""
        copy = GrowingCache(len(self._own), room)
        for layer, other in zip(copy._own, self._own, strict=True):
            if n_tokens and other.keys is not None and other.values is not None:
                layer.update(other.keys[..., :n_tokens, :], other.values[..., :n_tokens, :])
        return copy

    def behind(self, n_tokens: int) -> Cache:
        """The first n_tokens positions as seen by every row of a pass; nothing is stored in it."""
        return Cache(layers=[_Behind(layer, n_tokens) for layer in self._own])


class _GrowingLayer(DynamicLayer):
    def __init__(self, room: int) -> None:
        super().__init__()
        self._room, self._buffers = room, None

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> KeysAndValues:
        start = self.get_seq_length()
        end = start + key_states.shape[-2]
        if self._buffers is None or end > self._buffers[0].shape[-2]:
            self._room = max(self._room, end + end // 2 if start else end)
            old, self._buffers = self._buffers, tuple(self._empty(states) for states in (key_states, value_states))
            for buffer, before in zip(self._buffers, old or (), strict=False):
                buffer[..., :start, :] = before[..., :start, :]
        for buffer, states in zip(self._buffers, (key_states, value_states), strict=True):
            buffer[..., start:end, :] = states
        self.keys, self.values = (buffer[..., :end, :] for buffer in self._buffers)
        self.is_initialized = True
        return self.keys, self.values

    def _empty(self, states: Tensor) -> Tensor:
        return states.new_empty((*states.shape[:-2], self._room, states.shape[-1]))


class _Behind(DynamicLayer):
    def __init__(self, stored: _GrowingLayer, n_tokens: int) -> None:
        super().__init__()
        if n_tokens and stored.keys is not None and stored.values is not None:
            self.keys, self.values = stored.keys[..., :n_tokens, :], stored.values[..., :n_tokens, :]
            self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> KeysAndValues:
        if self.keys is None or self.values is None:
            return key_states, value_states
        before = (states.expand(len(key_states), -1, -1, -1) for states in (self.keys, self.values))
        keys, values = (torch.cat(pair, -2) for pair in zip(before, (key_states, value_states), strict=True))
        return keys, values


def next_logits(
    model: LanguageModel,
    input_ids: Int[Tensor, "batch pos"],
    positions: Int[Tensor, "kept"] | None = None,
    **arguments: Any,
) -> Float[Tensor, "batch kept d_vocab"]:
    """Logits after some positions of a pass (None: after the last one); `arguments` go to the model.

    Without an attention mask, all that lies before a token is seen by it.
    """
    arguments = {"use_cache": "past_key_values" in arguments} | arguments if model.inner.accepts("use_cache") else {}
    if "logits_to_keep" in model.forward_arguments:
        kept = 1 if positions is None else positions
        return model.module(input_ids=input_ids, logits_to_keep=kept, **arguments).logits
    logits = model.module(input_ids=input_ids, **arguments).logits
    return logits[:, -1:] if positions is None else logits[:, positions]


def hole_mask(
    starts: Sequence[int], lengths: Sequence[int], n_before: int, device: torch.device
) -> tuple[Int[Tensor, "row key"], Int[Tensor, "row pos"]]:
    """Mask and positions of rows that go on from different places of one cached sequence of n_before positions.

    Row i sees the first starts[i] of them, then its own lengths[i] tokens, which are padded on the right.
    """
    start, length = (torch.tensor(values, device=device)[:, None] for values in (starts, lengths))
    own = torch.arange(max(lengths), device=device)
    seen = torch.arange(n_before, device=device) < start
    return torch.cat([seen, own < length], 1).long(), start + own.clamp(max=length - 1)


def packed_mask(
    starts: Sequence[int], lengths: Sequence[int], n_before: int, device: torch.device
) -> tuple[Bool[Tensor, "token key"], Int[Tensor, "1 token"]]:
    """Keys that are seen, and positions, where the rows of `hole_mask` lie one after the other in one sequence."""
    row = torch.arange(len(lengths)).repeat_interleave(torch.tensor(lengths))
    own = torch.cat([torch.arange(length) for length in lengths])
    start = torch.tensor(starts)[row]
    before = torch.arange(n_before) < start[:, None]
    behind = (row[:, None] == row) & (own[:, None] >= own)
    return torch.cat([before, behind], 1).to(device), (start + own)[None].to(device)


def packed_logits(
    model: LanguageModel,
    input_ids: Int[Tensor, "1 token"],
    positions: Int[Tensor, "kept"],
    cache: Cache,
    seen: Bool[Tensor, "token key"],
    position_ids: Int[Tensor, "1 token"],
) -> Float[Tensor, "1 kept d_vocab"]:
    """Logits after some tokens of branches that lie one after the other (see packed_mask)."""
    mask = torch.zeros(seen.shape, dtype=model.dtype, device=seen.device)
    mask.masked_fill_(~seen, torch.finfo(model.dtype).min)
    return next_logits(
        model,
        input_ids,
        positions,
        past_key_values=cache,
        attention_mask=mask[None, None],
        position_ids=position_ids,
    )


class Continuation:
    """Which short cuts leave a model's numbers as they are; asked once with a few tokens, and doubted in longer texts.

    causal: what follows a token does not change its state, so one pass holds the states of all beginnings of its text.
    cached: a pass goes on from a GrowingCache, from its end or from any earlier position.
    stacked: several such branches run as rows of one pass.
    packed: and as parts of one row, which do not see each other; nothing is copied for each of them then.
    window: keys that each token sees, where the config tells of a limit: beyond it, branches are not read together (a
        hole in the keys shifts it, and packed_mask has none).
    padded: texts of different lengths run as rows of one pass, padded on the right.
    checked, checked_padding: length of the longest text in which this was looked at again (windows of attention and
        scaled positions may begin beyond the probe).
    """

    def __init__(self, model: LanguageModel) -> None:
        self.checked = self.checked_padding = 0
        ids = probe_tokens(model.module)
        ids = torch.cat([ids[0], ids[1].flip(0), ids[0] + 1]) % model.module.config.get_text_config().vocab_size
        tell = partial(_tells, model, ids)
        self.causal = tell(_is_causal)
        takes_cache = self.causal and model.inner.accepts("past_key_values") and not model.inner.through_decoder
        self.cached = takes_cache and tell(_goes_on)
        self.stacked = self.cached and "position_ids" in model.forward_arguments and tell(_stacks)
        self.packed = self.cached and "position_ids" in model.forward_arguments and tell(_packs)
        self.padded = tell(_pads)
        config = model.module.config.get_text_config()
        windows = [getattr(config, name, None) for name in _WINDOWS]
        self.window = min((window for window in windows if isinstance(window, int) and window > 0), default=None)


def continuation_of(model: LanguageModel) -> Continuation:
    """What is known of a model; it is asked the first time."""
    if model not in _KNOWN:
        with torch.inference_mode():
            _KNOWN[model] = Continuation(model)
    return _KNOWN[model]


def logits_agree(found: Float[Tensor, "row d_vocab"], expected: Float[Tensor, "row d_vocab"]) -> bool:
    """Whether two passes give the same logits but for rounding; what is not finite in both is passed over."""
    finite = (found.isfinite() | expected.isfinite()).all(-1)
    return states_agree(found[None], expected[None], finite[None])


_KNOWN: "WeakKeyDictionary[LanguageModel, Continuation]" = WeakKeyDictionary()
_CUT = 2 * PROBE_SHAPE[1] - 2  # of the probe, where passes are cut


def _tells(model: LanguageModel, ids: Int[Tensor, "pos"], experiment: Any) -> bool:
    try:
        pairs = experiment(model, ids)
    except _REFUSALS:
        return False
    return all(logits_agree(found, expected) for found, expected in pairs)


def _alone(model: LanguageModel, ids: Int[Tensor, "pos"]) -> Float[Tensor, "1 d_vocab"]:
    return next_logits(model, ids[None])[0]


def _is_causal(model: LanguageModel, ids: Int[Tensor, "pos"]) -> list[tuple[Tensor, Tensor]]:
    ends = torch.tensor([0, _CUT - 1, len(ids) - 1], device=ids.device)
    rows = next_logits(model, ids[None], ends)[0]
    return [(rows[place : place + 1], _alone(model, ids[: end + 1])) for place, end in enumerate(ends.tolist())]


def _goes_on(model: LanguageModel, ids: Int[Tensor, "pos"]) -> list[tuple[Tensor, Tensor]]:
    cache = GrowingCache(model.n_layers, _CUT)
    next_logits(model, ids[None, :_CUT], past_key_values=cache)
    next_logits(model, ids[None, _CUT:-1], past_key_values=cache)
    last = next_logits(model, ids[None, -1:], past_key_values=cache)[0]
    fork = cache.fork(_CUT - 2, len(ids))
    other = next_logits(model, ids[None, -2:], past_key_values=fork)[0]
    behind = next_logits(model, ids[None, -3:], past_key_values=cache.behind(2))[0]
    return [
        (last, _alone(model, ids)),
        (other, _alone(model, torch.cat([ids[: _CUT - 2], ids[-2:]]))),
        (behind, _alone(model, torch.cat([ids[:2], ids[-3:]]))),
    ]


def _stacks(model: LanguageModel, ids: Int[Tensor, "pos"]) -> list[tuple[Tensor, Tensor]]:
    cache = GrowingCache(model.n_layers, len(ids))
    next_logits(model, ids[None], past_key_values=cache)
    mask, positions = hole_mask([2, _CUT], [3, 1], _CUT, ids.device)
    rows = torch.stack([ids[-3:], ids[[1, 0, 0]]])
    found = next_logits(
        model,
        rows,
        torch.arange(3, device=ids.device),
        past_key_values=cache.behind(_CUT),
        attention_mask=mask,
        position_ids=positions,
    )
    return [
        (found[0, 2:], _alone(model, torch.cat([ids[:2], ids[-3:]]))),
        (found[1, :1], _alone(model, torch.cat([ids[:_CUT], ids[1:2]]))),
    ]


def _packs(model: LanguageModel, ids: Int[Tensor, "pos"]) -> list[tuple[Tensor, Tensor]]:
    cache = GrowingCache(model.n_layers, len(ids))
    next_logits(model, ids[None], past_key_values=cache)
    seen, positions = packed_mask([2, _CUT], [3, 2], _CUT, ids.device)
    row = torch.cat([ids[-3:], ids[[1, 0]]])
    kept = torch.tensor([1, 2, 3, 4], device=ids.device)
    found = packed_logits(model, row[None], kept, cache.behind(_CUT), seen, positions)[0]
    texts = [[ids[:2], row[:2]], [ids[:2], row[:3]], [ids[:_CUT], row[3:4]], [ids[:_CUT], row[3:]]]
    return [(found[place : place + 1], _alone(model, torch.cat(text))) for place, text in enumerate(texts)]


def _pads(model: LanguageModel, ids: Int[Tensor, "pos"]) -> list[tuple[Tensor, Tensor]]:
    mask = (torch.arange(len(ids), device=ids.device) < torch.tensor([[3], [len(ids)]], device=ids.device)).long()
    ends = torch.tensor([2, len(ids) - 1], device=ids.device)
    found = next_logits(model, ids.expand(2, -1) * mask, ends, attention_mask=mask)
    return [(found[0, :1], _alone(model, ids[:3])), (found[1, 1:], _alone(model, ids))]
