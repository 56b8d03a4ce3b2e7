"""Passes over an activation store, part by part."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt64
from torch import Tensor

from src.activations.moments import Moments, Precision
from src.activations.parts import Part
from src.activations.store import ActivationStore
from src.hook_points import HookPoint
from src.text import Keep, content_hashes


@dataclass(frozen=True)
class Rows:
    """Rows of one part.

    is_counted: false for rows that are kept out of statistics (BOS, ...). is_first: rows at position 0 that are not
    counted, whatever the reason (BOS, [CLS], a first token as attention sink), unless they hold NaN.
    """

    activations: dict[HookPoint, Float[Tensor, "row d_model"]]
    sequence: Int[Tensor, " row"]
    group: Int[Tensor, " row"]
    is_counted: Bool[Tensor, " row"]
    is_first: Bool[Tensor, " row"]


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
        is_wanted = np.isin(groups[part.sequence], wanted_groups)
        if is_wanted.any():
            # no name here may hold the rows of one part while the next one is read
            yield _read_rows(part, points, groups, is_wanted)


def _read_rows(
    part: Part,
    points: Sequence[HookPoint],
    groups: Int[np.ndarray, " sequence"],
    is_wanted: Bool[np.ndarray, " token"],
) -> Rows:
    sequence, keep = part.sequence[is_wanted], part.keep[is_wanted]
    return Rows(
        activations={point: _select(part, point, is_wanted) for point in dict.fromkeys(points)},
        sequence=torch.from_numpy(sequence),
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
    """One pass over all counted tokens of a store: second moments of the pairs, per group of sequences.

    Memory: n_groups d^2 float64 numbers per pair, and one part. advance: is told the number of tokens done.
    """
    points = list(dict.fromkeys(point for pair in pairs for point in pair))
    store.require(points)
    d_model = store.layout.d_model
    moments = Moments.empty(pairs, {point: d_model for point in points}, n_groups, device=device, precision=precision)
    for part in store:
        is_counted = part.keep == Keep.COUNTED
        group = groups[part.sequence[is_counted]].astype(np.int64)
        counted = {point: _select(part, point, is_counted).to(device) for point in points}
        moments.update(counted, torch.from_numpy(group).to(device))
        del counted  # before the next part is read
        advance(len(is_counted))
    return moments


def store_hashes(store: ActivationStore, seed: int) -> UInt64[np.ndarray, " sequence"]:
    """A hash of each sequence's contents (src.text.content_hashes), from the store's own token ids."""
    sequences = (ids for part in store for ids in np.split(part.token_ids, part.sequence_start[1:-1]))
    return content_hashes(sequences, seed)
