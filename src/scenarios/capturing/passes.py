"""Forward passes of a scenario: wanted tokens of each are recorded, and later ones go on from earlier ones."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Self

import torch
from jaxtyping import Float, Int
from torch import Tensor

from src.models import LanguageModel, forward_pass
from src.models.continuing import (
    GrowingCache,
    continuation_of,
    hole_mask,
    logits_agree,
    next_logits,
    packed_logits,
    packed_mask,
)
from src.scenarios.capturing.arrays import Arrays, joined
from src.scenarios.capturing.offered import Recording
from src.scenarios.capturing.places import Branch
from src.scenarios.scenario import CaptureSettings
from src.scenarios.states import ATTENTION, LOGITS

# tokens that rows of one pass may look at together: bounds the keys and values that are put side by side
_STACKED_KEYS = 2**15
# tokens of short branches that are put one after the other
_PACKED_TOKENS = 2**8


class Reader:
    """A model with hooks on it, for many passes: a context manager.

    All passes return arrays of their wanted rows, on the model's device, with their logits; the sources are those of
    the capture settings that the architecture offers (`notes` tells what it does not).
    """

    def __init__(self, model: LanguageModel, capture: CaptureSettings) -> None:
        """Raises StrataError for layers that the model does not have, and for a model without a vocabulary head."""
        self.model, self.known = model, continuation_of(model)
        self._recording = Recording(model, capture)
        self.layers, self.notes = self._recording.layers, self._recording.notes

    def __enter__(self) -> Self:
        self._recording.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._recording.__exit__(None, None, None)

    def cache(self, room: int) -> GrowingCache:
        """An empty cache."""
        return GrowingCache(self.model.n_layers, room)

    def read(
        self,
        ids: Sequence[int],
        wanted: Sequence[int],
        cache: GrowingCache | None = None,
        speaking: Sequence[int] | None = None,
    ) -> Arrays:
        """One sequence, behind what the cache holds, which grows by it.

        wanted, speaking: indices into ids, whose states and whose logits are returned (None: the same).
        """
        device, extra = self.model.device, {} if cache is None else {"past_key_values": cache}
        tokens, rows = torch.tensor([ids], device=device), torch.tensor(wanted, dtype=torch.long, device=device)
        kept = rows if speaking is None else torch.tensor(speaking, dtype=torch.long, device=device)
        with self._pass(tokens.shape):
            self._recording.want(torch.zeros_like(rows), rows)
            logits = next_logits(self.model, tokens, kept, **extra)
            return {**self._recording.take(), LOGITS: logits}

    def follow(self) -> None:
        """Steps come next: passes of one token each."""
        self._recording.follow()

    def step(self, token: Int[Tensor, "1 1"], cache: GrowingCache) -> Float[Tensor, "1 d_vocab"]:
        """Logits after a token that is on the device already; its states wait until they are taken."""
        with self._pass(token.shape):
            return next_logits(self.model, token, None, past_key_values=cache)[:, 0]

    def take_steps(self) -> Arrays:
        """A row for each step since `follow`, or since the last call; without logits."""
        with torch.inference_mode():
            return self._recording.take()

    def branches(
        self, cache: GrowingCache | None, branches: Sequence[Branch], wanted: Sequence[Sequence[int]]
    ) -> Arrays:
        """Rows wanted[i] of each branch of what the cache holds, in turn; the cache stays as it is."""
        apart = cache is None or len(branches) == 1 or self._beyond_window(branches)
        if cache is not None and not apart and self.known.packed and any(branch.start for branch in branches):
            groups = _groups([len(branch.ids) for branch in branches])
            read = self._packed
        elif cache is not None and not apart and self.known.stacked:
            room = max(1, _STACKED_KEYS // max(branch.start + len(branch.ids) for branch in branches))
            groups = [range(first, min(first + room, len(branches))) for first in range(0, len(branches), room)]
            read = self._stacked
        else:
            return joined([self._branch(cache, branch, rows) for branch, rows in zip(branches, wanted, strict=True)])
        parts = []
        for group in groups:
            some, rows = [branches[i] for i in group], [wanted[i] for i in group]
            parts.append(read(cache, some, rows) if len(group) > 1 else self._branch(cache, some[0], rows[0]))
        return joined(parts)

    def _beyond_window(self, branches: Sequence[Branch]) -> bool:
        longest = max(branch.start for branch in branches) + max(len(branch.ids) for branch in branches)
        return self.known.window is not None and longest > self.known.window

    def padded(self, texts: Sequence[Sequence[int]], wanted: Sequence[Sequence[int]]) -> Arrays:
        """Rows wanted[i] of each text, in turn, in one pass."""
        lengths = [len(ids) for ids in texts]
        mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
        tokens = torch.zeros(mask.shape, dtype=torch.long)
        tokens[mask] = torch.tensor([token for ids in texts for token in ids])
        batch, rows = _flat(wanted)
        with self._pass(tokens.shape):
            tokens, batch, rows = (values.to(self.model.device) for values in (tokens, batch, rows))
            self._recording.want(batch, rows)
            kept, place = rows.unique(return_inverse=True)
            logits = next_logits(self.model, tokens, kept, attention_mask=mask.long().to(self.model.device))
            return {**self._recording.take(), LOGITS: logits[batch, place][None]}

    def _branch(self, cache: GrowingCache | None, branch: Branch, wanted: Sequence[int]) -> Arrays:
        if cache is None or not branch.start:
            return self.read(branch.ids, wanted)
        tokens = torch.tensor([branch.ids], device=self.model.device)
        rows = torch.tensor(wanted, device=self.model.device)
        with self._pass(tokens.shape):
            self._recording.want(torch.zeros_like(rows), rows)
            logits = next_logits(self.model, tokens, rows, past_key_values=cache.behind(branch.start))
            return {**self._recording.take(), LOGITS: logits}

    def _stacked(self, cache: GrowingCache, branches: Sequence[Branch], wanted: Sequence[Sequence[int]]) -> Arrays:
        starts, lengths = [branch.start for branch in branches], [len(branch.ids) for branch in branches]
        before, device = max(starts), self.model.device
        if not before:
            return self.padded([branch.ids for branch in branches], wanted)
        tokens = torch.zeros(len(branches), max(lengths), dtype=torch.long)
        for row, branch in enumerate(branches):
            tokens[row, : len(branch.ids)] = torch.tensor(branch.ids)
        batch, rows = (values.to(device) for values in _flat(wanted))
        mask, positions = hole_mask(starts, lengths, before, device)
        with self._pass(tokens.shape):
            self._recording.want(batch, rows)
            kept, place = rows.unique(return_inverse=True)
            logits = next_logits(
                self.model,
                tokens.to(device),
                kept,
                past_key_values=cache.behind(before),
                attention_mask=mask,
                position_ids=positions,
            )
            taken = {**self._recording.take(), LOGITS: logits[batch, place][None]}
        if ATTENTION in taken:
            taken[ATTENTION] = _closed(taken[ATTENTION], mask[batch].bool())
        return taken

    def _packed(self, cache: GrowingCache, branches: Sequence[Branch], wanted: Sequence[Sequence[int]]) -> Arrays:
        starts, lengths = [branch.start for branch in branches], [len(branch.ids) for branch in branches]
        before, device = max(starts), self.model.device
        tokens = torch.tensor([[token for branch in branches for token in branch.ids]], device=device)
        firsts = [sum(lengths[:number]) for number in range(len(lengths))]
        rows = torch.tensor([first + token for first, some in zip(firsts, wanted, strict=True) for token in some])
        rows = rows.to(device)
        seen, positions = packed_mask(starts, lengths, before, device)
        with self._pass(tokens.shape):
            self._recording.want(torch.zeros_like(rows), rows)
            logits = packed_logits(self.model, tokens, rows, cache.behind(before), seen, positions)
            taken = {**self._recording.take(), LOGITS: logits}
        if ATTENTION in taken:
            taken[ATTENTION] = _closed(taken[ATTENTION], seen[rows])
        return taken

    @contextmanager
    def _pass(self, shape: Sequence[int]) -> Iterator[None]:
        with forward_pass(self.model, tuple(shape)), torch.inference_mode():
            yield

    def bytes_per_token(self, n_tokens: int) -> int:
        """About what the recorded states of one token of a long text take on the device."""
        return self._recording.values_per_token(n_tokens) * self.model.dtype.itemsize

    def doubt(
        self,
        ids: Sequence[int],
        tokens: Sequence[int],
        logits: Float[Tensor, "row d_vocab"],
        cache: GrowingCache | None,
    ) -> None:
        """Look again whether the short cuts hold, in a text longer than any before: `known` is mended if not.

        The probe was short, and windows of attention and scaled positions may begin beyond it. logits: after these
        tokens (ascending, the first and the last among them) of a pass over all ids. cache: what it left.
        """
        if len(ids) <= self.known.checked or not self.known.causal or len(tokens) < 2:
            return
        self.known.checked = len(ids)
        early, last = next((row for row in range(1, len(tokens)) if tokens[row] >= len(ids) // 4), 1), len(ids) - 1
        alone = self.read(ids[: tokens[early] + 1], [tokens[early]])[LOGITS][0]
        if not logits_agree(alone, logits[early : early + 1]):
            self._give_up(causal=False)
        elif cache is not None:
            starts = [max(1, last - 2), max(1, tokens[early] - 1)]
            branches = [
                Branch(starts[0], list(ids[starts[0] :])),
                Branch(starts[1], list(ids[starts[1] : tokens[early] + 1])),
            ]
            rows = [[len(branch.ids) - 1] for branch in branches]
            expected = logits[[-1, early]]
            apart = joined([self._branch(cache, branch, row) for branch, row in zip(branches, rows, strict=True)])
            if not logits_agree(apart[LOGITS][0], expected):
                self._give_up(causal=True)
                return
            for way, read in (("packed", self._packed), ("stacked", self._stacked)):
                if getattr(self.known, way) and not logits_agree(read(cache, branches, rows)[LOGITS][0], expected):
                    setattr(self.known, way, False)

    def _give_up(self, causal: bool) -> None:
        self.known.causal, self.known.cached, self.known.stacked, self.known.packed = causal, False, False, False
        warnings.warn(
            f"{type(self.model.module).__name__} gives other numbers for a text of {self.known.checked} tokens where "
            "it goes on from an earlier pass: beginnings of conversations, and steps, are read by passes of their own, "
            "slower",
            stacklevel=4,
        )


def _groups(lengths: Sequence[int]) -> list[list[int]]:
    """Branches that are read together, since all of their tokens meet all keys: in order, up to so many tokens."""
    groups: list[list[int]] = []
    n_tokens = _PACKED_TOKENS
    for number, length in enumerate(lengths):
        n_tokens += length
        if n_tokens > _PACKED_TOKENS:
            groups.append([])
            n_tokens = length
        groups[-1].append(number)
    return groups


def _flat(wanted: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    batch = [row for row, tokens in enumerate(wanted) for _ in tokens]
    return torch.tensor(batch), torch.tensor([token for tokens in wanted for token in tokens])


def _closed(attention: Tensor, seen: Tensor) -> Tensor:
    """Attention without the keys that a row does not see (`seen` [row, key]): what it sees moves together."""
    order = (~seen).int().argsort(dim=1, stable=True)
    moved = attention.gather(-1, order[None, :, None, :].expand_as(attention))
    return moved[..., : int(seen.sum(1).max())]
