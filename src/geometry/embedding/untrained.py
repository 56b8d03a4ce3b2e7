"""Rows that look as if training never moved them (spec A9; cf. Land and Bartolo 2024, "Fishing for Magikarp")."""

from collections import defaultdict
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
import torch
from jaxtyping import Bool, Float64
from torch import Tensor

from src.activations.products import arithmetic_device
from src.geometry.directions import unit_rows
from src.geometry.embedding.norms import NEAR_ZERO
from src.geometry.embedding.rows import Rows

LIKE_PADDING = 0.99
# of all norms: it flags one token in a hundred whatever they are, so it makes candidates and no findings
LOW_NORM_PERCENT = 1


@dataclass(frozen=True, eq=False)
class UntrainedRows:
    """Marks for each of the rows that were looked at.

    like_padding: cosine to the mean of the padding rows above 0.99; none without padding rows, or if these cancel.
    copy: bit for bit equal to another row of the table, padding included. zero: norm below 1e-6. low_norm: below
    the 1 % quantile of the norms, a candidate only. padding_cosine: mean cosine of padding rows to their mean; NaN
    without them.
    """

    like_padding: Bool[np.ndarray, "token"]
    copy: Bool[np.ndarray, "token"]
    zero: Bool[np.ndarray, "token"]
    low_norm: Bool[np.ndarray, "token"]
    padding_cosine: float

    @property
    def untrained(self) -> Bool[np.ndarray, "token"]:
        """Those with a mark other than a low norm."""
        return self.like_padding | self.copy | self.zero


def untrained_rows(rows: Rows, padding: Bool[np.ndarray, "row"]) -> UntrainedRows:
    """Look at `rows` (all tokens, special ones included) beside the rows of the table that no token has."""
    unused = Rows(rows.table, np.flatnonzero(padding), rows.device)
    reference, padding_cosine = _padding_direction(unused)
    cosines, norms = np.full(len(rows), -np.inf), np.empty(len(rows))
    same: defaultdict[bytes, list[int]] = defaultdict(list)
    for places, block in rows.blocks():
        norms[places] = block.norm(dim=1).cpu().numpy()
        if reference is not None:
            cosines[places] = (unit_rows(block) @ reference).cpu().numpy()
        for place, digest in zip(range(places.start, places.stop), _digests(block), strict=True):
            same[digest].append(place)
    in_padding = {digest for _, block in unused.blocks() for digest in _digests(block)}
    copy = np.zeros(len(rows), bool)
    for digest, places in same.items():
        if len(places) > 1 or digest in in_padding:
            copy[places] = True
    return UntrainedRows(
        like_padding=cosines > LIKE_PADDING,
        copy=copy,
        zero=norms < NEAR_ZERO,
        low_norm=norms < np.percentile(norms, LOW_NORM_PERCENT),
        padding_cosine=padding_cosine,
    )


def _padding_direction(unused: Rows) -> tuple[Float64[Tensor, "d_model"] | None, float]:
    """The unit mean of the padding rows, and their mean cosine to it."""
    if len(unused) == 0:
        return None, float("nan")
    zero = torch.zeros(unused.width, dtype=torch.float64, device=arithmetic_device(unused.device))
    total = sum((block.sum(0) for _, block in unused.blocks()), start=zero)
    mean = torch.as_tensor(total) / len(unused)
    if float(mean.norm()) < NEAR_ZERO:
        return None, float("nan")
    reference = mean / mean.norm()
    cosines = torch.cat([unit_rows(block) @ reference for _, block in unused.blocks()])
    return reference, float(cosines.mean())


def _digests(block: Float64[Tensor, "token d_model"]) -> list[bytes]:
    return [blake2b(row.tobytes(), digest_size=16).digest() for row in block.cpu().numpy()]
