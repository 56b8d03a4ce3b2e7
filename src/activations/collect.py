"""Fill an activation store: sequences go through the model, and a part is written while the next one is computed."""

from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from src.activations.parts import Manifest, PartData, write_part
from src.activations.store import STORAGE_DTYPES, StoreLayout
from src.errors import StrataError
from src.hook_points import HookPoint
from src.models import LanguageModel, forward_pass, run_with_hooks
from src.text import Keep, SequenceTable, TokenSequence


@dataclass(frozen=True)
class CollectSettings:
    """How parts are computed.

    batch_size: sequences per forward pass. sink_norm: tokens whose norm exceeds this multiple of the median norm of a
    part's counted tokens, at any hook point, are kept out of statistics. non_finite: what NaN or inf leads to.
    """

    batch_size: int
    sink_norm: float | None
    non_finite: Literal["error", "mask"]


class Sequences(Protocol):
    """Sequences found by index: a table, or a choice from one."""

    def read(self, start: int, stop: int, /) -> list[TokenSequence]:
        """Sequences [start, stop) in their order."""
        ...


def sequences_per_part(bytes_per_token: int, max_length: int, part_bytes: int, batch_size: int) -> int:
    """How many sequences fill a part of `part_bytes` at most, were all of full length: whole batches, one at least."""
    fitting = part_bytes // (bytes_per_token * max_length)
    return max(1, fitting // batch_size) * batch_size


def collect_parts(
    model: LanguageModel,
    table: SequenceTable,
    store: Path,
    layout: StoreLayout,
    settings: CollectSettings,
    parts: Iterable[int],
    seal: str,
    advance: Callable[[int], None],
) -> None:
    """Make parts of a store, in order. A finished part is never lost: killed at any moment, only the one under way is.

    seal: the store's fingerprint. advance: is told the number of tokens done. Memory holds two parts: one is written by
    a thread while the next one is computed.

    Raises:
        StrataError: a value that the storage dtype can't hold, NaN or inf (unless masked), a full disk, or a forward
            pass that fails (out of memory, tokens of another model, ...).
    """
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="part-writer") as writer:
        pending: Future[Manifest] | None = None
        for part in parts:
            data = compute_part(model, table, layout, settings, part, advance)
            if pending is not None:
                pending.result()
            pending = writer.submit(_finish_part, store, layout, settings, part, data, seal)
        if pending is not None:
            pending.result()


def compute_part(
    model: LanguageModel,
    table: Sequences,
    layout: StoreLayout,
    settings: CollectSettings,
    part: int,
    advance: Callable[[int], None],
) -> PartData:
    """Run the sequences of a part through the model; rows come back in the order of the table, without padding.

    Batches depend on the part alone: whoever makes it, gets the same bits.
    """
    which = layout.sequences_of(part)
    sequences = table.read(which.start, which.stop)
    lengths = np.array([len(sequence.token_ids) for sequence in sequences])
    start = np.concatenate([[0], np.cumsum(lengths)])
    rows = _PartRows(layout, settings.non_finite, start, which.start)
    for batch in batches_of_like_length(lengths, settings.batch_size):
        input_ids, attention_mask = right_padded([sequences[index].token_ids for index in batch])
        rows.begin_batch(batch)
        with forward_pass(model, input_ids.shape):
            run_with_hooks(model, input_ids, attention_mask, layout.hook_points, rows.take)
            rows.end_batch()
        advance(int(lengths[batch].sum()))
    keep = np.concatenate([sequence.roles for sequence in sequences]).astype(np.uint8)
    keep[rows.non_finite] = Keep.NON_FINITE  # whatever else such a token is, nobody can compute with it
    return PartData(
        token_ids=np.concatenate([sequence.token_ids for sequence in sequences]).astype(np.int32),
        position=np.concatenate([np.arange(length, dtype=np.int32) for length in lengths]),
        keep=keep,
        sequence_start=start.astype(np.int64),
        document=np.array([sequence.document for sequence in sequences], np.int64),
        activations=rows.buffers,
    )


def batches_of_like_length(lengths: Int[np.ndarray, " sequence"], batch_size: int) -> list[Int[np.ndarray, " batch"]]:
    """Indices of the sequences of each batch: the longest come first, so that memory runs out at once if it does."""
    by_length = np.argsort(-lengths, kind="stable")
    return [by_length[first : first + batch_size] for first in range(0, len(by_length), batch_size)]


def right_padded(sequences: list[np.ndarray]) -> tuple[Tensor, Tensor]:
    """Token ids [batch, pos] and attention mask [batch, pos]. The padding id is 0: masked, and never stored."""
    longest = max(len(sequence) for sequence in sequences)
    input_ids = torch.zeros(len(sequences), longest, dtype=torch.long)
    attention_mask = torch.zeros(len(sequences), longest, dtype=torch.long)
    for row, sequence in enumerate(sequences):
        input_ids[row, : len(sequence)] = torch.from_numpy(np.ascontiguousarray(sequence))
        attention_mask[row, : len(sequence)] = 1
    return input_ids, attention_mask


class _PartRows:
    """The rows of one part: takes what the hooks see, drops padding, casts to the storage dtype, and checks values.

    start: the first row of each sequence of the part, and one more. first_sequence: the index of the first one.
    """

    def __init__(
        self, layout: StoreLayout, non_finite: str, start: Int[np.ndarray, " sequence+1"], first_sequence: int
    ) -> None:
        self._dtype = STORAGE_DTYPES[layout.storage_dtype]
        self._limit = torch.finfo(self._dtype).max
        shape = int(start[-1]), layout.d_model
        self.buffers = {point: torch.empty(shape, dtype=self._dtype) for point in layout.hook_points}
        self.non_finite = np.zeros(shape[0], dtype=bool)
        self._mask_non_finite = non_finite == "mask"
        self._first_sequence = first_sequence
        self._start = start

    def begin_batch(self, batch: Int[np.ndarray, " batch"]) -> None:
        """The next tensors are of these sequences of the part."""
        self._batch = batch
        self._places = [slice(self._start[index], self._start[index + 1]) for index in batch.tolist()]
        self._largest: dict[HookPoint, Tensor] = {}
        self._in_flight: dict[HookPoint, Tensor] = {}

    def take(self, point: HookPoint, activations: Float[Tensor, "batch pos d_model"]) -> None:
        """Store the rows of one hook point."""
        if activations.device.type == "cpu":
            self._place(point, activations)
            # One cheap pass: no value exceeds the norm of all, and NaN and inf fail the comparison. (A maximum of
            # absolute values takes several times as long on a CPU.)
            if float(torch.linalg.vector_norm(activations, dtype=torch.float32)) <= self._limit:
                return
        else:
            # cast on the device, and copied while it goes on with the next block
            host = torch.empty(activations.shape, dtype=self._dtype, pin_memory=activations.is_cuda)
            self._in_flight[point] = host.copy_(activations.to(self._dtype), non_blocking=True)
        # NaN stays NaN in a maximum: it tells overflow and non-finite values alike
        self._largest[point] = activations.abs().amax(-1)

    def end_batch(self) -> None:
        """Wait for the device. Raise (or mask) if a value is not finite, or too large for the storage dtype."""
        if self._in_flight:
            torch.accelerator.synchronize()
        for point, activations in self._in_flight.items():
            self._place(point, activations)
        for point, largest in self._largest.items():
            self._check(point, largest.float().cpu())

    def _place(self, point: HookPoint, activations: Float[Tensor, "batch pos d_model"]) -> None:
        buffer = self.buffers[point]
        for place, sequence in zip(self._places, activations, strict=True):
            # unpads, casts and copies at once
            buffer[place].copy_(sequence[: place.stop - place.start])

    def _check(self, point: HookPoint, largest: Float[Tensor, "batch pos"]) -> None:
        lengths = torch.tensor([place.stop - place.start for place in self._places])
        bad = ~(largest <= self._limit) & (torch.arange(largest.shape[1]) < lengths[:, None])
        too_large = bad & largest.isfinite()
        if too_large.any():
            raise StrataError(
                f"{point} reaches {float(largest[too_large].max()):.4g}, which {self._dtype_name} can't hold (at most "
                f"{self._limit:.4g}): use storage_dtype=bfloat16 or float32 ({self._where(too_large)})"
            )
        if bad.any() and not self._mask_non_finite:
            raise StrataError(
                f"{point} is NaN or infinite ({self._where(bad)}): run the model in a wider dtype "
                "(model.dtype=float32 or bfloat16), or keep such tokens out of statistics with non_finite=mask"
            )
        for row, position in bad.nonzero().tolist():
            self.non_finite[self._places[row].start + position] = True

    def _where(self, tokens: Bool[Tensor, "batch pos"]) -> str:
        row, position = tokens.nonzero()[0].tolist()
        sequence = self._first_sequence + int(self._batch[row])
        return f"{int(tokens.sum())} tokens of its batch, the first at sequence {sequence}, position {position}"

    @property
    def _dtype_name(self) -> str:
        return str(self._dtype).removeprefix("torch.")


def _finish_part(
    store: Path, layout: StoreLayout, settings: CollectSettings, part: int, data: PartData, seal: str
) -> Manifest:
    if settings.sink_norm is not None:
        mark_sinks(data, settings.sink_norm)
    counts = np.bincount(data.keep, minlength=len(Keep))
    keep = {reason.name.lower(): int(counts[reason]) for reason in Keep}
    return write_part(store, part, layout.sequences_of(part).start, data, keep, seal)


def mark_sinks(data: PartData, sink_norm: float) -> None:
    """Mark counted tokens as sinks where a hook point's norm exceeds `sink_norm` times the median of counted tokens."""
    counted = torch.from_numpy(data.keep == Keep.COUNTED)
    sinks = torch.zeros(len(counted), dtype=torch.bool)
    for rows in data.activations.values():
        norms = torch.linalg.vector_norm(rows, dim=1, dtype=torch.float32)
        if counted.any():
            sinks |= norms > sink_norm * norms[counted].median()
    data.keep[(sinks & counted).numpy()] = Keep.SINK
