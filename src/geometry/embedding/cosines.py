"""Percentiles of the cosines of all pairs of rows, from a histogram that is filled block by block (spec A3)."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int, Int64
from torch import Tensor

from src.activations.products import exact_products
from src.geometry.directions import unit_rows
from src.geometry.embedding.rows import Rows
from src.geometry.percentiles import PERCENTILES

BINS = 65_536
_WIDTH = 2 / BINS
# pairs of a block: fewer than 2^24, so that counts in float32 are whole numbers
_BLOCK_ROWS = 2048
_ROUNDING = 2.0**-24  # of float32
_LEVEL = 0.95


@dataclass(frozen=True, eq=False)
class CosineHistogram:
    """How many pairs of rows have a cosine in each of 65,536 bins of [-1, 1].

    error: bound on the difference between `percentile` and the percentile of the exact cosines of these rows.
    rank_error: of a sample of rows, by how many percent the rank may be off in the pairs of all rows, with 95 %
    confidence for all percentiles together; 0 if all rows were read.
    """

    counts: Int64[np.ndarray, "bin"]
    n_rows: int
    n_pairs: int
    error: float
    rank_error: float

    def percentile(self, percent: float) -> float:
        """The least cosine that this percentage of the pairs does not exceed (the centre of its bin)."""
        if self.n_pairs == 0:
            return math.nan
        rank = max(math.ceil(min(max(percent, 0.0), 100.0) / 100 * self.n_pairs), 1)
        return float((np.searchsorted(np.cumsum(self.counts), rank) + 0.5) * _WIDTH - 1)

    def percentiles(self, percents: Sequence[float] = PERCENTILES) -> dict[float, tuple[float, float, float]]:
        """Each percentile with the ends of its interval: what the rank error leaves open."""
        return {
            percent: (
                self.percentile(percent),
                self.percentile(percent - self.rank_error),
                self.percentile(percent + self.rank_error),
            )
            for percent in percents
        }

    def share_within(self, value: float, distance: float) -> float:
        """Share of pairs within a distance of a cosine, by whole bins whose centres lie there."""
        centres = (np.arange(BINS) + 0.5) * _WIDTH - 1
        near = self.counts[np.abs(centres - value) <= distance].sum()
        return float(near / self.n_pairs) if self.n_pairs else math.nan

    def coarse(self, n_bins: int) -> list[tuple[float, float, int]]:
        """Low end, high end and count of a number of wider bins that divides 65,536, without empty ends."""
        counts = self.counts.reshape(n_bins, -1).sum(1)
        filled = np.flatnonzero(counts)
        wide = 2 / n_bins
        places = range(filled[0], filled[-1] + 1) if len(filled) else range(0)
        return [(place * wide - 1, (place + 1) * wide - 1, int(counts[place])) for place in places]


def cosine_histogram(
    rows: Rows,
    ids: Int[np.ndarray, "token"],
    done: Callable[[int], None] = lambda _: None,
) -> CosineHistogram:
    """Count the cosines of all pairs of different rows among `ids`; rows of zeros have none.

    The products are float32 on `rows.device`, so memory is that of two blocks and the unit rows. Error: half a bin,
    and what rounding can do to the product of two unit rows of width d, (d + 6) 2^-24. The rank error of a sample of
    m of all rows is Hoeffding's bound for U-statistics of order 2, sqrt(ln(2 k / 0.05) / (2 floor(m / 2))) for k
    percentiles (Hoeffding 1963, eq. 5.7; it holds for draws without replacement too, section 6).

    done: told the pairs that were counted, block by block.
    """
    unit = _float32_unit_rows(rows, ids)
    counts = torch.zeros(BINS, dtype=torch.int64, device=unit.device)
    blocks = [slice(start, start + _BLOCK_ROWS) for start in range(0, len(unit), _BLOCK_ROWS)]
    with exact_products():
        for place, first in enumerate(blocks):
            for second in blocks[place:]:
                cosines = unit[first] @ unit[second].T
                if first == second:
                    cosines = cosines[torch.ones_like(cosines, dtype=torch.bool).triu(1)]
                found = torch.histc(cosines.clamp_(-1, 1).flatten(), BINS, -1, 1)
                counts += found.to(torch.int64)
                done(cosines.numel())
    n = len(unit)
    missing = len(rows) > len(ids)
    bound = math.sqrt(math.log(2 * len(PERCENTILES) / (1 - _LEVEL)) / (2 * max(n // 2, 1))) if missing else 0.0
    return CosineHistogram(
        counts=counts.cpu().numpy(),
        n_rows=n,
        n_pairs=n * (n - 1) // 2,
        error=_WIDTH / 2 + (rows.width + 6) * _ROUNDING,
        rank_error=min(100 * bound, 100.0),
    )


def _float32_unit_rows(rows: Rows, ids: Int[np.ndarray, "token"]) -> Tensor:
    chosen = Rows(rows.table, ids, rows.device)
    blocks = []
    for _, block in chosen.blocks():
        unit = unit_rows(block)
        blocks.append(unit[unit.any(dim=1)].to(torch.float32).to(rows.device))
    return torch.cat(blocks) if blocks else torch.zeros(0, rows.width, device=rows.device)
