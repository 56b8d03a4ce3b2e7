"""Fill an activation store: sequences go through the model, and a part is written while the next one is computed."""

from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from src.activations.parts import Manifest, PartData, damage, read_manifest, write_part
from src.activations.store import STORAGE_DTYPES, StoreLayout
from src.errors import StrataError
from src.hook_points import HookPoint
from src.models import LanguageModel, run_with_hooks
from src.text import Keep, SequenceTable


@dataclass(frozen=True)
class CollectSettings:
    """How parts are computed.

    batch_size: sequences per forward pass. sink_norm: tokens whose norm exceeds this multiple of the median norm of a
    part's counted tokens, at any hook point, are kept out of statistics. non_finite: what NaN or inf leads to.
    """

    batch_size: int
    sink_norm: float | None
    non_finite: Literal["error", "mask"]


def sequences_per_part(bytes_per_token: int, max_length: int, part_bytes: int, batch_size: int) -> int:
    """How many sequences fill a part of `part_bytes` at most, were all of full length: whole batches, one at least."""
    fitting = part_bytes // (bytes_per_token * max_length)
    return max(1, fitting // batch_size) * batch_size


def missing_parts(store: Path, layout: StoreLayout, seal: str, *, repair: bool) -> list[int]:
    """The parts that are still to be made; with repair, also those whose contents don't match their checksums."""
    missing = []
    for part in range(layout.n_parts):
        manifest = read_manifest(store, part, seal)
        if manifest is None or (repair and damage(store, manifest)):
            missing.append(part)
    return missing


def collect_parts(
    model: LanguageModel,
    table: SequenceTable,
    store: Path,
    layout: StoreLayout,
    settings: CollectSettings,
    parts: Iterable[int],
    seal: str,
    advance: Callable[[int], None],
) -> list[Manifest]:
    """Make parts of a store, in order. A finished part is never lost: killed at any moment, only the one under way is.

    seal: the store's fingerprint. advance: is told the number of tokens done. Memory holds two parts: one is written by
    a thread while the next one is computed.

    Raises:
        StrataError: a value that the storage dtype can't hold, NaN or inf (unless masked), or a full disk.
    """
    manifests: list[Manifest] = []
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="part-writer") as writer:
        pending: Future[Manifest] | None = None
        for part in parts:
            data = compute_part(model, table, layout, settings, part, advance)
            if pending is not None:
                manifests.append(pending.result())
            pending = writer.submit(_finish_part, store, layout, settings, part, data, seal)
        if pending is not None:
            manifests.append(pending.result())
    return manifests


def compute_part(
    model: LanguageModel,
    table: SequenceTable,
    layout: StoreLayout,
    settings: CollectSettings,
    part: int,
    advance: Callable[[int], None],
) -> PartData:
    """Run the sequences of a part through the model; rows come back in the order of the table, without padding.

    Batches hold sequences of like length (the longest come first, so that memory runs out at once if it does), and
    depend on the part alone: whoever makes it, gets the same bits.
    """
    which = layout.sequences_of(part)
    sequences = table.read(which.start, which.stop)
    lengths = np.array([len(sequence.token_ids) for sequence in sequences])
    start = np.concatenate([[0], np.cumsum(lengths)])
    rows = _Rows(layout, settings.non_finite, int(start[-1]), which.start, start)
    by_length = np.argsort(-lengths, kind="stable")
    for first in range(0, len(by_length), settings.batch_size):
        batch = by_length[first : first + settings.batch_size]
        input_ids, attention_mask = right_padded([sequences[index].token_ids for index in batch])
        rows.begin_batch(attention_mask, start[batch], model.device)
        run_with_hooks(
            model, input_ids.to(model.device), attention_mask.to(model.device), layout.hook_points, rows.take
        )
        rows.check_batch()
        advance(int(lengths[batch].sum()))
    keep = np.concatenate([sequence.roles for sequence in sequences]).astype(np.uint8)
    keep[rows.non_finite & (keep == Keep.COUNTED)] = Keep.NON_FINITE
    return PartData(
        token_ids=np.concatenate([sequence.token_ids for sequence in sequences]).astype(np.int32),
        position=np.concatenate([np.arange(length, dtype=np.int32) for length in lengths]),
        keep=keep,
        sequence_start=start.astype(np.int64),
        activations=rows.buffers,
    )


def right_padded(sequences: list[np.ndarray]) -> tuple[Tensor, Tensor]:
    """Token ids [batch, pos] and attention mask [batch, pos]. The padding id is 0: masked, and never stored."""
    longest = max(len(sequence) for sequence in sequences)
    input_ids = torch.zeros(len(sequences), longest, dtype=torch.long)
    attention_mask = torch.zeros(len(sequences), longest, dtype=torch.long)
    for row, sequence in enumerate(sequences):
        input_ids[row, : len(sequence)] = torch.from_numpy(np.ascontiguousarray(sequence))
        attention_mask[row, : len(sequence)] = 1
    return input_ids, attention_mask


class _Rows:
    """The rows of one part: takes what the hooks see, drops padding, casts to the storage dtype, and checks values."""

    def __init__(
        self, layout: StoreLayout, non_finite: str, n_tokens: int, first_sequence: int, start: np.ndarray
    ) -> None:
        dtype = STORAGE_DTYPES[layout.storage_dtype]
        self.buffers = {point: torch.empty(n_tokens, layout.d_model, dtype=dtype) for point in layout.hook_points}
        self.non_finite = np.zeros(n_tokens, dtype=bool)
        self._mask_non_finite = non_finite == "mask"
        self._dtype = dtype
        self._first_sequence = first_sequence
        self._start = start

    def begin_batch(self, attention_mask: Tensor, offsets: np.ndarray, device: torch.device) -> None:
        """Work out where the rows of a batch belong: `offsets` [batch] are the first rows of its sequences."""
        is_token = attention_mask.bool()
        place = torch.from_numpy(offsets)[:, None] + torch.arange(is_token.shape[1])
        self._place = place[is_token]
        # a batch without padding needs no gathering of rows
        self._select = None if bool(is_token.all()) else is_token.flatten().nonzero().squeeze(1).to(device)
        self._largest: dict[HookPoint, Tensor] = {}

    def take(self, point: HookPoint, activations: Float[Tensor, "batch pos d_model"]) -> None:
        """Store the rows of one hook point."""
        rows = activations.flatten(0, 1)
        if self._select is not None:
            rows = rows.index_select(0, self._select)
        # NaN stays NaN in a maximum: one number tells overflow and non-finite values alike
        self._largest[point] = rows.abs().amax()
        self.buffers[point].index_copy_(0, self._place, rows.to(self._dtype).cpu())

    def check_batch(self) -> None:
        """Raise (or mask) if a value of the batch is not finite or too large for the storage dtype."""
        limit = torch.finfo(self._dtype).max
        # one wait for the device per batch, not one per hook point
        largest = torch.stack([value.float().cpu() for value in self._largest.values()])
        if bool((largest <= limit).all()):
            return
        for point, value in zip(self._largest, largest.tolist(), strict=True):
            if value <= limit:
                continue
            stored = self.buffers[point].index_select(0, self._place)
            bad_rows = self._place[~stored.isfinite().all(1)]
            if np.isfinite(value):
                raise StrataError(
                    f"{point} reaches {value:.4g}, which {self._name(self._dtype)} can't hold (at most {limit:.4g}): "
                    f"use storage_dtype=bfloat16 or float32 ({self._where(bad_rows)})"
                )
            if not self._mask_non_finite:
                raise StrataError(
                    f"{point} is NaN or infinite ({self._where(bad_rows)}): run the model in a wider dtype "
                    "(model.dtype=float32 or bfloat16), or keep such tokens out of statistics with non_finite=mask"
                )
            self.non_finite[bad_rows.numpy()] = True

    def _where(self, rows: Tensor) -> str:
        if len(rows) == 0:
            return "no row of it was stored"
        row = int(rows[0])
        sequence = int(np.searchsorted(self._start, row, side="right")) - 1
        place = f"first at sequence {self._first_sequence + sequence}, position {row - self._start[sequence]}"
        return f"{len(rows)} tokens of its batch, {place}"

    @staticmethod
    def _name(dtype: torch.dtype) -> str:
        return str(dtype).removeprefix("torch.")


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
