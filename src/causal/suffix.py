"""Edits at one hook point, and the rerun of only the layers after it, for many edits at once.

One clean forward pass per batch keeps the hidden states that matter. The edits are stacked along the batch axis; blocks
up to the edit are skipped, and the clean state is put in their place (src/models/skipping.py).
"""

import warnings
from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from src.errors import StrataError
from src.hook_points import HookPoint
from src.models import BlockSkipper, LanguageModel, attach, capture
from src.models.inner import probe_tokens, rounding_units

# The same blocks on the same rows repeat the hidden states bit for bit on most devices, to the last bits on all.
_LIMIT = 8.0
_CPU_ROWS, _GPU_ROWS = 8, 128


def suitable_rows(device: torch.device) -> int:
    """Sequences times edits in one pass that suit a device: 8 on a CPU, whose caches more of them leave; else 128."""
    return _CPU_ROWS if device.type == "cpu" else _GPU_ROWS


@dataclass(frozen=True, eq=False)
class CleanPass:
    """What one unedited forward pass of a batch left, on the model's device. The mask has 0 for padding (right)."""

    input_ids: Int[Tensor, "batch pos"]
    attention_mask: Int[Tensor, "batch pos"]
    states: Mapping[HookPoint, Float[Tensor, "batch pos d_model"]]


@dataclass(frozen=True, eq=False)
class Write:
    """New activations for some tokens of a batch, in the order of `edited.nonzero()`; padding is never edited."""

    edited: Bool[Tensor, "batch pos"]
    values: Float[Tensor, "edited d_model"]


@dataclass(frozen=True, eq=False)
class Rerun:
    """The output of the last block under each edit, and the proof that the edits happened.

    max_deviation: for each edit, the largest |captured - written| at the edited tokens of the hook point, where written
    is in the model's dtype: 0 if the edit happened.
    """

    final: Float[Tensor, "edit batch pos d_model"]
    max_deviation: Float[Tensor, "edit"]


class SuffixReplay:
    """Reruns the layers after an edit.

    A model whose blocks take more from earlier blocks than the hidden state (found out by a replay of a few tokens for
    each layer) gets full forward passes with the same edits; one warning says so.
    """

    def __init__(self, model: LanguageModel, rows_per_pass: int) -> None:
        """rows_per_pass: sequences times edits in one forward pass; bounds the memory."""
        if rows_per_pass < 1:
            raise StrataError("rows_per_pass must be at least 1")
        self.model, self.rows_per_pass = model, rows_per_pass
        self.final = HookPoint("resid_post", model.n_layers - 1)
        self.skipper = BlockSkipper(model)
        self._fits: dict[int, bool] = {}

    def clean(
        self,
        input_ids: Int[Tensor, "batch pos"],
        attention_mask: Int[Tensor, "batch pos"],
        targets: Collection[HookPoint],
        sources: Collection[HookPoint] = (),
    ) -> CleanPass:
        """The clean pass of a batch that edits at `targets` need; `sources` are captured too.

        Raises:
            StrataError: as `src.models.run_with_hooks` does.
        """
        entries = {HookPoint("resid_post", count - 1) for count in map(self._skips, targets) if count}
        input_ids, attention_mask = input_ids.to(self.model.device), attention_mask.to(self.model.device)
        points = {self.final, *targets, *sources, *entries}
        return CleanPass(input_ids, attention_mask, capture(self.model, input_ids, attention_mask, points))

    def rerun(self, clean: CleanPass, target: HookPoint, writes: Sequence[Write]) -> Rerun:
        """The final hidden states under each edit, in passes of at most `rows_per_pass` rows.

        clean: from `clean`, with this target among its targets.

        Raises:
            StrataError: values that the model's dtype can't hold, a batch that is too much for the memory, or another
                failure of the model.
        """
        n_sequences, n_positions = clean.input_ids.shape
        values = torch.cat([write.values.to(self.model.dtype) for write in writes])
        joined = Write(torch.cat([write.edited for write in writes]), values)
        sequence = torch.arange(n_sequences, device=joined.edited.device).repeat(len(writes))
        final, deviation = self.rerun_rows(clean, target, sequence, joined)
        return Rerun(
            final=final.view(len(writes), n_sequences, n_positions, -1),
            max_deviation=deviation.view(len(writes), n_sequences).amax(1),
        )

    def rerun_rows(
        self, clean: CleanPass, target: HookPoint, sequence: Int[Tensor, "row"], write: Write
    ) -> tuple[Float[Tensor, "row pos d_model"], Float[Tensor, "row"]]:
        """As `rerun`, of rows each of which is an edited copy of a sequence: final hidden states, and max_deviation.

        sequence: which one each row is a copy of. write: of rows, not of the batch.
        """
        edited, values = write.edited, write.values.to(self.model.dtype)
        if not values.isfinite().all():
            raise StrataError(
                f"an intervention writes NaN, inf or more than {str(self.model.dtype).removeprefix('torch.')} can hold "
                f"at {target}: check the operator, or run the model in a wider dtype (model.dtype=float32)"
            )
        first = [0, *edited.sum(1).cumsum(0).tolist()]
        final = clean.states[self.final].new_empty(len(edited), edited.shape[1], self.model.d_model)
        deviation = torch.zeros(len(edited), device=edited.device)
        for start in range(0, len(edited), self.rows_per_pass):
            stop = min(start + self.rows_per_pass, len(edited))
            part = Write(edited[start:stop], values[first[start] : first[stop]])
            states = self._edited_pass(clean, sequence[start:stop], target, part)
            final[start:stop] = states[self.final]
            difference = (states[target][part.edited].float() - part.values.float()).abs().amax(1)
            deviation[start:stop].scatter_reduce_(0, part.edited.nonzero()[:, 0], difference, "amax")
        return final, deviation

    def _edited_pass(
        self, clean: CleanPass, sequence: Int[Tensor, "row"], target: HookPoint, write: Write
    ) -> dict[HookPoint, Float[Tensor, "row pos d_model"]]:
        """States at the target and after the last block of some rows, of which each is an edited copy of a sequence."""

        def overwrite(state: Tensor) -> Tensor:
            changed = state.reshape(*write.edited.shape, self.model.d_model).clone()
            changed[write.edited] = write.values
            return changed.view(state.shape)

        count = self._skips(target)
        input_ids, attention_mask = clean.input_ids[sequence], clean.attention_mask[sequence]
        with ExitStack() as stack:
            if count:
                entry = clean.states[HookPoint("resid_post", count - 1)][sequence]
                stack.enter_context(self.skipper.skipped(count, entry))
            stack.callback(attach(self.model, target, overwrite).remove)
            return capture(self.model, input_ids, attention_mask, {target, self.final})

    def _skips(self, target: HookPoint) -> int:
        """How many blocks need not run before an edit: all up to it, but 0 in a model that can't be replayed."""
        count = target.layer + 1 if target.hook == "resid_post" else target.layer
        if count not in self._fits:
            self._fits[count] = count == 0 or self._check(count)
            if not self._fits[count] and list(self._fits.values()).count(False) == 1:
                warnings.warn(
                    f"{type(self.model.module).__name__} can't be replayed from layer {count}: its later blocks need "
                    "more of the earlier ones than the hidden state. Full forward passes are run for every edit: the "
                    "same numbers, slower",
                    stacklevel=2,
                )
        return count if self._fits[count] else 0

    def _check(self, count: int) -> bool:
        """Whether a clean replay gives the model's own hidden states, with padding and with several rows per sequence.

        The model sees other tokens in between, lest a block reads what it has kept of the last pass.
        """
        ids = probe_tokens(self.model.module)
        ids = torch.cat([ids, ids.flip(1)])
        mask = torch.ones_like(ids)
        mask[0, -2:] = 0
        entry = HookPoint("resid_post", count - 1)
        try:
            clean = capture(self.model, ids, mask, {entry, self.final})
            capture(self.model, ids[:1].flip(1), mask[1:2], {self.final})
            with self.skipper.skipped(count, clean[entry].clone()):
                replayed = capture(self.model, ids, mask, {self.final})[self.final]
        except StrataError:
            return False
        expected, found = clean[self.final][mask.bool()].float(), replayed[mask.bool()].float()
        scale = expected.abs() + expected.abs().mean(-1, keepdim=True)
        return rounding_units(found - expected, scale, self.model.dtype) <= _LIMIT
