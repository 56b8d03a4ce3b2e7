"""Passes over an activation store, part by part."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt64
from torch import Tensor

from src.activations.moments import Moments, Precision
from src.activations.store import ActivationStore
from src.hook_points import HookPoint
from src.text import Keep, content_hashes


@dataclass(frozen=True)
class Rows:
    """Rows of one part. is_counted is false for rows that are kept out of statistics (BOS, ...)."""

    activations: dict[HookPoint, Float[Tensor, "row d_model"]]
    sequence: Int[Tensor, " row"]
    group: Int[Tensor, " row"]
    is_counted: Bool[Tensor, " row"]
    is_bos: Bool[Tensor, " row"]


def rows_by_part(
    store: ActivationStore,
    points: Sequence[HookPoint],
    groups: Int[np.ndarray, " sequence"],
    wanted_groups: Sequence[int],
) -> Iterator[Rows]:
    """The rows of the sequences in the wanted groups, one part at a time, in the storage dtype, on the CPU.

    groups: the group of every sequence of the store. A part without a wanted sequence is not read.
    """
    for part in store:
        sequence = part.sequence
        group = groups[sequence]
        is_wanted = np.isin(group, wanted_groups)
        if not is_wanted.any():
            continue
        keep = part.keep[is_wanted]
        chosen = None if is_wanted.all() else torch.from_numpy(np.flatnonzero(is_wanted))
        activations = {point: part.activations(point) for point in dict.fromkeys(points)}
        yield Rows(
            activations={
                point: rows if chosen is None else rows.index_select(0, chosen) for point, rows in activations.items()
            },
            sequence=torch.from_numpy(sequence[is_wanted]),
            group=torch.from_numpy(group[is_wanted].astype(np.int64)),
            is_counted=torch.from_numpy(keep == Keep.COUNTED),
            is_bos=torch.from_numpy((keep == Keep.BOS) | (keep == Keep.FIRST)),
        )


def accumulate_moments(
    store: ActivationStore,
    pairs: Sequence[tuple[HookPoint, HookPoint]],
    groups: Int[np.ndarray, " sequence"],
    n_groups: int,
    precision: Precision | None,
    device: torch.device,
    advance: Callable[[int], None],
) -> Moments:
    """One pass over all counted tokens of a store: second moments of the pairs, per group of sequences.

    Memory: n_groups d^2 float64 numbers per pair, and one part. advance: is told the number of tokens done.
    """
    points = list(dict.fromkeys(point for pair in pairs for point in pair))
    store.require(points)
    d_model = store.layout.d_model
    moments = Moments.empty(pairs, {point: d_model for point in points}, n_groups, device=device, precision=precision)
    for rows in rows_by_part(store, points, groups, range(n_groups)):
        counted = {point: values[rows.is_counted].to(device) for point, values in rows.activations.items()}
        moments.update(counted, rows.group[rows.is_counted].to(device))
        advance(len(rows.sequence))
    return moments


def store_hashes(store: ActivationStore, seed: int) -> UInt64[np.ndarray, " sequence"]:
    """A hash of each sequence's contents (src.text.content_hashes), from the store's own token ids."""
    sequences = (ids for part in store for ids in np.split(part.token_ids, part.sequence_start[1:-1]))
    return content_hashes(sequences, seed)
