"""How rows of a table lie: lengths, cosines between all pairs, and how many dimensions they take."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

import torch
from jaxtyping import Float
from torch import Tensor

from src.geometry.directions import unit_rows
from src.geometry.participation import participation_ratio, unbiased_participation_ratio


@dataclass(frozen=True)
class RowHealth:
    """Of so many rows; NaN for what they are too few for.

    cosine_mean, cosine_sd: over all pairs of rows, exactly (spec A3). length_mean, length_sd: of rows. participation:
    participation ratio of their covariance, without the bias of their number for Gaussian rows, at most width;
    participation_seen: with it. width: numbers of a row. zeros: rows of length 0, whose cosines count as 0.
    """

    n: int
    width: int
    zeros: int
    cosine_mean: float
    cosine_sd: float
    length_mean: float
    length_sd: float
    participation: float
    participation_seen: float

    @classmethod
    def of(cls, blocks: Iterable[Float[Tensor, "row d"]], width: int) -> Self:
        """All rows in blocks; memory holds two width x width matrices beside one block."""
        n = zeros = 0
        length = square = 0.0
        total, unit_total = torch.zeros(2, width, dtype=torch.float64)
        products, unit_products = torch.zeros(2, width, width, dtype=torch.float64)
        for block in blocks:
            rows = block.detach().to("cpu", torch.float64)
            lengths, units = rows.norm(dim=1), unit_rows(rows)
            n += len(rows)
            zeros += int((lengths == 0).sum())
            length, square = length + float(lengths.sum()), square + float(lengths.square().sum())
            total += rows.sum(0)
            unit_total += units.sum(0)
            products += rows.T @ rows
            unit_products += units.T @ units
        if n < 2:
            return cls(n, width, zeros, *[float("nan")] * 6)
        pairs, own = n * (n - 1), n - zeros
        cosine = (float(unit_total.square().sum()) - own) / pairs
        cosine_square = (float(unit_products.square().sum()) - own) / pairs
        covariance = (products - torch.outer(total, total) / n) / (n - 1)
        trace, squares = float(covariance.trace()), float(covariance.square().sum())
        return cls(
            n,
            width,
            zeros,
            cosine,
            max(cosine_square - cosine**2, 0.0) ** 0.5,
            length / n,
            max(square / n - (length / n) ** 2, 0.0) ** 0.5,
            min(unbiased_participation_ratio(trace, squares, n), float(width)),
            participation_ratio(trace, squares),
        )
