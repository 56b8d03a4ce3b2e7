"""Passes over an activation store, part by part.

A *row* is a token i. A hook point with an offset gives, in that row, the activation of token i + offset of the same
sequence. A row counts only if the tokens at all offsets of the pass are there and are counted, so that everything in
one pass, and everything that names the same offsets, is over the same rows.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import psutil
import torch
from jaxtyping import Bool, Float, Int, UInt64
from torch import Tensor

from src.activations.moments import Moments, Precision
from src.activations.parts import Part
from src.activations.products import arithmetic_device
from src.activations.splits import document_hashes
from src.activations.store import ActivationStore
from src.errors import StrataError
from src.hook_points import HookPoint
from src.text import Keep, content_hashes


@dataclass(frozen=True)
class Rows:
    """Rows of one part.

    document: of each row: rows of a document, and of documents that share text, depend on each other.
    is_counted: false for rows with a token that is kept out of statistics (BOS, ...), at any offset. is_first: rows
    that are not counted, and would be if every token at position 0 were, whatever the reason why it is not (BOS, [CLS],
    a first token as attention sink), unless it holds NaN.
    """

    activations: dict[HookPoint, Float[Tensor, "row d_model"]]
    document: Int[Tensor, " row"]
    group: Int[Tensor, " row"]
    is_counted: Bool[Tensor, " row"]
    is_first: Bool[Tensor, " row"]


def rows_by_part(
    store: ActivationStore,
    points: Sequence[HookPoint],
    groups: Int[np.ndarray, " sequence"],
    wanted_groups: Sequence[int],
    documents: Int[np.ndarray, " sequence"] | None = None,
    offsets: Sequence[int] = (),
) -> Iterator[Rows]:
    """The rows of the sequences in the wanted groups, one part at a time, in the storage dtype, on the CPU.

    Rows that some offset leads out of their sequence are left out. groups: the group of every sequence of the store.
    documents: the document of every sequence, where those that share text count as one; None = as the dataset has them.
    offsets: whose tokens a row needs beside those of the points. A part without a wanted row is not read.
    """
    offsets = row_offsets(points, offsets)
    for part in store:
        sequence = part.sequence
        is_wanted = np.isin(groups[sequence], wanted_groups) & holds_at(np.ones(len(sequence), bool), sequence, offsets)
        if is_wanted.any():
            # no name here may hold the rows of one part while the next one is read
            yield _read_rows(part, points, groups, np.flatnonzero(is_wanted), documents, offsets)


def row_offsets(points: Sequence[HookPoint], others: Sequence[int] = ()) -> list[int]:
    """The offsets that decide which rows count: those of the points, others that are named, and 0, the row itself."""
    return sorted({0, *others, *(point.offset for point in points)})


def holds_at(
    flags: Bool[np.ndarray, " token"], sequence: Int[np.ndarray, " token"], offsets: Sequence[int]
) -> Bool[np.ndarray, " token"]:
    """For each token i, whether the flag holds at i + offset for every offset, and all of those are of i's sequence."""
    holds, n_tokens = np.ones(len(flags), bool), len(flags)
    for offset in offsets:
        here = slice(max(-offset, 0), max(n_tokens - max(offset, 0), 0))
        there = slice(max(offset, 0), max(n_tokens + min(offset, 0), 0))
        at_offset = np.zeros(n_tokens, bool)
        at_offset[here] = flags[there] & (sequence[here] == sequence[there])
        holds &= at_offset
    return holds


def _read_rows(
    part: Part,
    points: Sequence[HookPoint],
    groups: Int[np.ndarray, " sequence"],
    tokens: Int[np.ndarray, " row"],
    documents: Int[np.ndarray, " sequence"] | None,
    offsets: Sequence[int],
) -> Rows:
    sequences, keep = part.sequence, part.keep
    sequence = sequences[tokens]
    document = part.document[sequence - part.first_sequence] if documents is None else documents[sequence]
    is_counted = keep == Keep.COUNTED
    is_scored = is_counted | ((part.position == 0) & (keep != Keep.NON_FINITE))
    counted = holds_at(is_counted, sequences, offsets)[tokens]
    return Rows(
        activations=dict(_read_points(part, points, tokens)),
        document=torch.from_numpy(document),
        group=torch.from_numpy(groups[sequence].astype(np.int64)),
        is_counted=torch.from_numpy(counted),
        is_first=torch.from_numpy(holds_at(is_scored, sequences, offsets)[tokens] & ~counted),
    )


def _read_points(
    part: Part, points: Sequence[HookPoint], tokens: Int[np.ndarray, " row"]
) -> Iterator[tuple[HookPoint, Float[Tensor, "row d_model"]]]:
    """The rows of each point; an array is read once for all its offsets."""
    offsets: dict[HookPoint, dict[int, None]] = {}
    for point in points:
        offsets.setdefault(point.at(0), {})[point.offset] = None
    index = torch.from_numpy(tokens)
    for place, of_place in offsets.items():
        array = part.activations(place)
        for offset in of_place:
            is_whole = offset == 0 and len(index) == len(array)
            yield place.at(offset), array if is_whole else array.index_select(0, index + offset)
        del array  # before the next one is read


def accumulate_moments(
    store: ActivationStore,
    pairs: Sequence[tuple[HookPoint, HookPoint]],
    groups: Int[np.ndarray, " sequence"],
    n_groups: int,
    precision: Precision | None,
    device: torch.device,
    advance: Callable[[int], None],
    offsets: Sequence[int] = (),
) -> Moments:
    """One pass over the counted rows of a store: second moments of the pairs, per group of sequences.

    groups: the group of every sequence; those in a group of n_groups or above are left out. offsets: whose tokens a row
    needs beside those of the points.
    Memory: n_groups d^2 float64 numbers per pair, and one part. advance: is told the number of tokens done.

    Raises StrataError if a hook point was not collected, or the moments would not fit into memory.
    """
    pairs = list(dict.fromkeys(pairs))
    points = list(dict.fromkeys(point for pair in pairs for point in pair))
    store.require(points)
    d_model = store.layout.d_model
    _refuse_too_large(len(pairs), d_model, n_groups, device)
    offsets = row_offsets(points, offsets)
    moments = Moments.empty(pairs, {point: d_model for point in points}, n_groups, device=device, precision=precision)
    for part in store:
        sequence = part.sequence
        group = groups[sequence].astype(np.int64)
        tokens = np.flatnonzero(holds_at(part.keep == Keep.COUNTED, sequence, offsets) & (group < n_groups))
        if len(tokens):
            wanted = {point: rows.to(moments.device) for point, rows in _read_points(part, points, tokens)}
            moments.update(wanted, torch.from_numpy(group[tokens]))
            del wanted  # before the next part is read
        advance(len(group))
    return moments


def count_rows(
    store: ActivationStore, groups: Int[np.ndarray, " sequence"], n_groups: int, offsets: Sequence[int]
) -> Int[np.ndarray, " group"]:
    """The number of counted rows in each group, without a look at any activation."""
    count = np.zeros(n_groups, np.int64)
    for part in store:
        sequence = part.sequence
        group = groups[sequence].astype(np.int64)
        is_wanted = holds_at(part.keep == Keep.COUNTED, sequence, row_offsets((), offsets)) & (group < n_groups)
        count += np.bincount(group[is_wanted], minlength=n_groups)
    return count


def _refuse_too_large(n_pairs: int, d_model: int, n_groups: int, device: torch.device) -> None:
    """StrataError if the products of all pairs do not fit into the device's memory, or can't be saved from the host."""
    device = arithmetic_device(device)
    size = 8 * n_groups * n_pairs * d_model**2
    # saving takes a copy on the host
    places = [("memory", 2 * size, psutil.virtual_memory().available)]
    if device.type == "cuda":
        places.append((f"memory of {device}", size, torch.cuda.mem_get_info(device)[0]))
    for place, needed, free in places:
        if needed > free:
            raise StrataError(
                f"the second moments of {n_pairs} pairs of hook points (width {d_model}, {n_groups} groups of "
                f"sequences) need {needed / 2**30:,.1f} GiB of {place}, and {free / 2**30:,.1f} GiB are free: choose "
                "fewer pairs (experiment.L, experiment.k) or fewer folds (cv_folds; of a scaling study, blocks and "
                "test_blocks)"
            )


def store_hashes(store: ActivationStore, seed: int) -> UInt64[np.ndarray, " sequence"]:
    """The hash of each sequence's document (`document_hashes`), from the store's own token ids."""
    sequences = (ids for part in store for ids in np.split(part.token_ids, part.sequence_start[1:-1]))
    document = np.concatenate([part.document for part in store])
    return document_hashes(content_hashes(sequences, seed), document)
