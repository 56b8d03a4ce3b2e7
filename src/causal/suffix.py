"""Edits at one hook point, and the rerun of only what comes after it, for many edits at once.

One clean forward pass per batch keeps the hidden states that matter. The edits are stacked along the batch axis; blocks
up to the edit are skipped, and the clean state is put in their place (src/models/skipping.py). In a causal model
positions before the first edit stay as they are: later ones see them through the clean keys and values
(src/models/prefix.py), and edits that begin at like positions are rerun together.
"""

import math
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from src.causal.replayable import Replayable
from src.errors import StrataError
from src.hook_points import HookPoint
from src.models import BlockSkipper, KeysAndValues, LanguageModel, PrefixRecorder, attach, capture, prefix_cache
from src.models.inner import states_agree

# Of the positions: to leave out fewer is not worth a mask of its own, nor a pass of its own for those that could.
_WORTHWHILE = 1 / 16
_CPU_ROWS, _GPU_ROWS = 8, 128


def suitable_rows(device: torch.device) -> int:
    """Sequences times edits in one pass that suit a device: 8 on a CPU, whose caches more of them leave; else 128."""
    return _CPU_ROWS if device.type == "cpu" else _GPU_ROWS


@dataclass(frozen=True, eq=False)
class CleanPass:
    """What one unedited forward pass of a batch left, on the model's device. The mask has 0 for padding (right).

    prefix: keys and values of the first `prefix_length` positions, of layers that are rerun from a later position.
    """

    input_ids: Int[Tensor, "batch pos"]
    attention_mask: Int[Tensor, "batch pos"]
    states: Mapping[HookPoint, Float[Tensor, "batch pos d_model"]]
    prefix: Mapping[int, KeysAndValues] = field(default_factory=dict)
    prefix_length: int = 0


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
    """Reruns the layers after an edit, and of them the positions from the first edit on.

    A model whose blocks take more from earlier blocks than the hidden state (found out by a replay of a few tokens for
    each layer) gets full forward passes with the same edits; one warning says so. One whose later positions take more
    from earlier ones than keys and values, or that has no use for a cache, is rerun at all positions.
    """

    def __init__(self, model: LanguageModel, rows_per_pass: int) -> None:
        """rows_per_pass: sequences times edits in one forward pass; bounds the memory."""
        if rows_per_pass < 1:
            raise StrataError("rows_per_pass must be at least 1")
        self.model, self.rows_per_pass = model, rows_per_pass
        self.final = HookPoint("resid_post", model.n_layers - 1)
        self.skipper = BlockSkipper(model)
        self._replayable = Replayable(model, self.skipper)
        self._warned = False
        self._longest_compared: dict[int, int] = {}

    def clean(
        self,
        input_ids: Int[Tensor, "batch pos"],
        attention_mask: Int[Tensor, "batch pos"],
        targets: Collection[HookPoint],
        sources: Collection[HookPoint] = (),
        latest_first_edit: int | None = None,
    ) -> CleanPass:
        """The clean pass of a batch that edits at `targets` need; `sources` are captured too.

        latest_first_edit: the latest position at which some sequence's first edit will be; None: it may be any. So many
        positions of keys and values are kept, of each layer that is rerun.

        Raises:
            StrataError: as `src.models.run_with_hooks` does.
        """
        counts = set(map(self._skips, targets))
        entries = {HookPoint("resid_post", count - 1) for count in counts if count}
        input_ids, attention_mask = input_ids.to(self.model.device), attention_mask.to(self.model.device)
        points, n_positions = {self.final, *targets, *sources, *entries}, input_ids.shape[1]
        length = n_positions - 1 if latest_first_edit is None else min(latest_first_edit, n_positions - 1)
        if length >= _worthwhile(n_positions):
            starts = [count for count in counts if self._replayable.from_position(count)]
            if starts:
                recorder = PrefixRecorder(self.model.n_layers, range(min(starts), self.model.n_layers), length)
                states = capture(self.model, input_ids, attention_mask, points, recorder.cache)
                return CleanPass(input_ids, attention_mask, states, recorder.recorded, length)
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
        sequence = torch.arange(n_sequences, device=values.device).repeat(len(writes))
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
        edited, values, n_positions = write.edited, write.values.to(self.model.dtype), write.edited.shape[1]
        if not values.isfinite().all():
            raise StrataError(
                f"an intervention writes NaN, inf or more than {str(self.model.dtype).removeprefix('torch.')} can hold "
                f"at {target}: check the operator, or run the model in a wider dtype (model.dtype=float32)"
            )
        final = clean.states[self.final][sequence]  # where nothing is edited before, it stays
        deviation = torch.zeros(len(edited), device=edited.device)
        place = torch.full(edited.shape, -1, device=edited.device)  # of each edited token in `values`
        place[edited] = torch.arange(len(values), device=edited.device)

        def part_of(rows: Int[Tensor, "row"], start: int) -> Write:
            chosen = edited[rows, start:]
            return Write(chosen, values[place[rows, start:][chosen]])

        for rows, start in self._passes(clean, self._skips(target), edited):
            part = part_of(rows, start)
            states = self._edited_pass(clean, sequence[rows], target, part, start)
            if start and n_positions > self._longest_compared.get(self._skips(target), 0):
                whole = self._edited_pass(clean, sequence[rows[:1]], target, part_of(rows[:1], 0), 0)[self.final]
                if not self._same(clean, int(sequence[rows[0]]), target, states[self.final][:1], whole):
                    return self.rerun_rows(clean, target, sequence, write)
            final[rows, start:] = states[self.final]
            difference = (states[target][part.edited].float() - part.values.float()).abs().amax(1)
            deviation.scatter_reduce_(0, rows[part.edited.nonzero()[:, 0]], difference, "amax")
        return final, deviation

    def _passes(
        self, clean: CleanPass, count: int, edited: Bool[Tensor, "row pos"]
    ) -> Iterator[tuple[Int[Tensor, "row"], int]]:
        """Rows of one pass each, and the position from which they are rerun: none that is edited lies before it.

        Rows without an edit are in none. Where the model allows it, rows whose edits begin at like positions stand
        together.
        """
        any_edit = edited.any(1)
        rows, first = any_edit.nonzero()[:, 0], edited[any_edit].int().argmax(1)
        if not self._from_position(clean, count):
            yield from ((part, 0) for part in rows.split(self.rows_per_pass) if len(part))
            return
        first, order = first.sort(stable=True)
        rows, firsts, least = rows[order], first.tolist(), _worthwhile(edited.shape[1])
        begin = 0
        for end in range(1, len(firsts) + 1):
            if end == len(firsts) or end - begin == self.rows_per_pass or firsts[end] - firsts[begin] >= least:
                start = min(firsts[begin], clean.prefix_length)
                yield rows[begin:end], start if start >= least else 0
                begin = end

    def _from_position(self, clean: CleanPass, count: int) -> bool:
        """Whether these edits are rerun from their first positions on."""
        recorded = all(layer in clean.prefix for layer in range(count, self.model.n_layers))
        return clean.prefix_length > 0 and recorded and self._replayable.from_position(count)

    def _edited_pass(
        self, clean: CleanPass, sequence: Int[Tensor, "row"], target: HookPoint, write: Write, start: int
    ) -> dict[HookPoint, Float[Tensor, "row pos d_model"]]:
        """States at the target and after the last block, from `start` on, of rows that are edited copies of sequences.

        write: of these rows, from `start` on.
        """

        def overwrite(state: Tensor) -> Tensor:
            changed = state.reshape(*write.edited.shape, self.model.d_model).clone()
            changed[write.edited] = write.values
            return changed.view(state.shape)

        count, n_layers = self._skips(target), self.model.n_layers
        input_ids, attention_mask = clean.input_ids[sequence, start:], clean.attention_mask[sequence]
        cache = prefix_cache(clean.prefix, n_layers, sequence, start) if start else None
        with ExitStack() as stack:
            if count:
                entry = clean.states[HookPoint("resid_post", count - 1)][sequence, start:]
                stack.enter_context(self.skipper.skipped(count, entry))
            stack.callback(attach(self.model, target, overwrite).remove)
            return capture(self.model, input_ids, attention_mask, {target, self.final}, cache)

    def _same(
        self,
        clean: CleanPass,
        sequence: int,
        target: HookPoint,
        found: Float[Tensor, "1 last d_model"],
        whole: Float[Tensor, "1 pos d_model"],
    ) -> bool:
        """Whether a row came out as in a rerun of all positions, the first ones clean: asked of the longest batches.

        The probe is short, and windows of attention and scaled positions may begin beyond it.
        """
        count = self._skips(target)
        self._longest_compared[count] = whole.shape[1]
        before = clean.states[self.final][sequence : sequence + 1, : whole.shape[1] - found.shape[1]]
        tokens = clean.attention_mask[sequence : sequence + 1].bool()
        if states_agree(torch.cat([before, found], 1), whole, tokens):
            return True
        self._replayable.refuse_positions(count)
        warnings.warn(
            f"{type(self.model.module).__name__} gives other numbers when only the positions after an edit of {target} "
            "are rerun: all positions are rerun for every edit from here on, slower",
            stacklevel=3,
        )
        return False

    def _skips(self, target: HookPoint) -> int:
        """How many blocks need not run before an edit: all up to it, but 0 in a model that can't be replayed."""
        count = target.layer + 1 if target.hook == "resid_post" else target.layer
        if self._replayable.from_layer(count):
            return count
        if not self._warned:
            self._warned = True
            warnings.warn(
                f"{type(self.model.module).__name__} can't be replayed from layer {count}: its later blocks need "
                "more of the earlier ones than the hidden state. Full forward passes are run for every edit: the "
                "same numbers, slower",
                stacklevel=2,
            )
        return 0


def _worthwhile(n_positions: int) -> int:
    """The fewest positions that are left out of a rerun."""
    return max(1, math.ceil(_WORTHWHILE * n_positions))
