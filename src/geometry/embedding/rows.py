"""Rows of a table that is larger than what should be in memory at once in float64."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor

from src.activations.products import arithmetic_device

_BLOCK_BYTES = 64 << 20


@dataclass(frozen=True, eq=False)
class Rows:
    """Chosen rows of a table.

    table: in the dtype and on the device in which it is stored. ids: the rows that count, ascending. device: where
    blocks of them are computed with.
    """

    table: Float[Tensor, "row d_model"]
    ids: Int[np.ndarray, "token"]
    device: torch.device

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def width(self) -> int:
        """d_model."""
        return self.table.shape[1]

    def blocks(self) -> Iterator[tuple[slice, Float64[Tensor, "token d_model"]]]:
        """Places (of `ids`) and rows, in float64 where float64 sums are kept, about 64 MiB at a time."""
        size = max(1, _BLOCK_BYTES // (8 * self.width))
        for start in range(0, len(self.ids), size):
            places = slice(start, min(start + size, len(self.ids)))
            yield places, self.take(self.ids[places])

    def take(self, ids: Int[np.ndarray, "token"]) -> Float64[Tensor, "token d_model"]:
        """Rows of the table by id, in float64."""
        chosen = self.table[torch.from_numpy(np.asarray(ids, np.int64)).to(self.table.device)]
        return chosen.to(arithmetic_device(self.device), torch.float64)

    def sample(self, most: int, rng: np.random.Generator) -> Int[np.ndarray, "token"]:
        """Ids of all rows, or of `most` drawn without replacement, ascending."""
        return self.ids if len(self.ids) <= most else np.sort(rng.choice(self.ids, most, replace=False))
