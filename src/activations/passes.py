"""Passes over an activation store, part by part."""

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
    is_counted: false for rows that are kept out of statistics (BOS, ...). is_first: rows at position 0 that are not
    counted, whatever the reason (BOS, [CLS], a first token as attention sink), unless they hold NaN.
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
) -> Iterator[Rows]:
    """The rows of the sequences in the wanted groups, one part at a time, in the storage dtype, on the CPU.

    groups: the group of every sequence of the store. documents: the document of every sequence, where those that share
    text count as one; None = as the dataset has them. A part without a wanted sequence is not read.
    """
    for part in store:
        is_wanted = np.isin(groups[part.sequence], wanted_groups)
        if is_wanted.any():
            # no name here may hold the rows of one part while the next one is read
            yield _read_rows(part, points, groups, is_wanted, documents)


def _read_rows(
    part: Part,
    points: Sequence[HookPoint],
    groups: Int[np.ndarray, " sequence"],
    is_wanted: Bool[np.ndarray, " token"],
    documents: Int[np.ndarray, " sequence"] | None,
) -> Rows:
    sequence, keep = part.sequence[is_wanted], part.keep[is_wanted]
    document = part.document[sequence - part.first_sequence] if documents is None else documents[sequence]
    return Rows(
        activations={point: _select(part, point, is_wanted) for point in dict.fromkeys(points)},
        document=torch.from_numpy(document),
        group=torch.from_numpy(groups[sequence].astype(np.int64)),
        is_counted=torch.from_numpy(keep == Keep.COUNTED),
        is_first=torch.from_numpy((part.position[is_wanted] == 0) & ~np.isin(keep, (Keep.COUNTED, Keep.NON_FINITE))),
    )


def _select(part: Part, point: HookPoint, tokens: Bool[np.ndarray, " token"]) -> Float[Tensor, "row d_model"]:
    rows = part.activations(point)
    return rows if tokens.all() else rows.index_select(0, torch.from_numpy(np.flatnonzero(tokens)))


def accumulate_moments(
    store: ActivationStore,
    pairs: Sequence[tuple[HookPoint, HookPoint]],
    groups: Int[np.ndarray, " sequence"],
    n_groups: int,
    precision: Precision | None,
    device: torch.device,
    advance: Callable[[int], None],
) -> Moments:
    """One pass over the counted tokens of a store: second moments of the pairs, per group of sequences.

    groups: the group of every sequence; those in a group of n_groups or above are left out.
    Memory: n_groups d^2 float64 numbers per pair, and one part. advance: is told the number of tokens done.

    Raises StrataError if a hook point was not collected, or the moments would not fit into memory.
    """
    pairs = list(dict.fromkeys(pairs))
    points = list(dict.fromkeys(point for pair in pairs for point in pair))
    store.require(points)
    d_model = store.layout.d_model
    _refuse_too_large(len(pairs), d_model, n_groups, device)
    moments = Moments.empty(pairs, {point: d_model for point in points}, n_groups, device=device, precision=precision)
    for part in store:
        group = groups[part.sequence].astype(np.int64)
        is_wanted = (part.keep == Keep.COUNTED) & (group < n_groups)
        if is_wanted.any():
            wanted = {point: _select(part, point, is_wanted).to(moments.device) for point in points}
            moments.update(wanted, torch.from_numpy(group[is_wanted]))
            del wanted  # before the next part is read
        advance(len(group))
    return moments


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
                "fewer pairs (experiment.L, experiment.k; eval.Ls, eval.ks) or fewer folds (cv_folds)"
            )


def store_hashes(store: ActivationStore, seed: int) -> UInt64[np.ndarray, " sequence"]:
    """The hash of each sequence's document (`document_hashes`), from the store's own token ids."""
    sequences = (ids for part in store for ids in np.split(part.token_ids, part.sequence_start[1:-1]))
    document = np.concatenate([part.document for part in store])
    return document_hashes(content_hashes(sequences, seed), document)
