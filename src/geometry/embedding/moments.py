"""Sums over all rows from which means, spectra and exact cosines follow: two passes, nothing of size rows x rows."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor

from src.activations.products import arithmetic_device, exact_products
from src.geometry.directions import unit_rows
from src.geometry.embedding.rows import Rows

Vector = Float64[Tensor, "d_model"]
Square = Float64[Tensor, "d_model d_model"]
PerToken = Float64[Tensor, "token"]


@dataclass(frozen=True)
class PairMoments:
    """Mean and standard deviation (population) over all pairs of different rows; NaN for fewer than two rows."""

    n_rows: int
    mean: float
    std: float


@dataclass(frozen=True, eq=False)
class TableMoments:
    """norms, centred_norms: of the rows, and of the rows less their mean, on the CPU.

    covariance: with divisor n, about the mean. cosine, centred_cosine_mean: over all pairs of rows that are not 0.
    """

    n_rows: int
    mean: Vector
    covariance: Square
    norms: PerToken
    centred_norms: PerToken
    cosine: PairMoments
    centred_cosine_mean: float

    @property
    def mean_squared_distance(self) -> float:
        """Over all pairs of different rows: 2 n / (n - 1) (mean |x|^2 - |mean x|^2) (spec A5), with x centred."""
        if self.n_rows < 2:
            return math.nan
        return 2 * self.n_rows / (self.n_rows - 1) * float(self.centred_norms.square().mean())


def table_moments(rows: Rows) -> TableMoments:
    """Read all rows twice: means and norms, then products about the mean and of unit rows, in float64."""
    n, d, device = len(rows), rows.width, arithmetic_device(rows.device)
    norms, centred_norms = torch.zeros(n, dtype=torch.float64), torch.zeros(n, dtype=torch.float64)
    total, unit_total, centred_unit_total = (torch.zeros(d, dtype=torch.float64, device=device) for _ in range(3))
    products, unit_products = (torch.zeros(d, d, dtype=torch.float64, device=device) for _ in range(2))
    for places, block in rows.blocks():
        total += block.sum(0)
        norms[places] = block.norm(dim=1).cpu()
    mean = total / max(n, 1)
    with exact_products():
        for _, block in rows.blocks():
            unit = unit_rows(block)
            unit_total += unit.sum(0)
            unit_products.addmm_(unit.T, unit)
        for places, block in rows.blocks():
            block -= mean
            products.addmm_(block.T, block)
            centred_unit_total += unit_rows(block).sum(0)
            centred_norms[places] = block.norm(dim=1).cpu()
    centred = pair_mean(centred_unit_total, int((centred_norms > 0).sum()))
    return TableMoments(
        n_rows=n,
        mean=mean,
        covariance=products / max(n, 1),
        norms=norms,
        centred_norms=centred_norms,
        cosine=cosine_moments(unit_total, unit_products, int((norms > 0).sum())),
        centred_cosine_mean=centred,
    )


def cosine_moments(unit_sum: Vector, unit_products: Square, n: int) -> PairMoments:
    """From s = sum of n unit rows u and G = sum of u u': spec A3.

    Mean (|s|^2 - n) / (n (n - 1)), second moment (|G|_F^2 - n) / (n (n - 1)).
    """
    if n < 2:
        return PairMoments(n, math.nan, math.nan)
    mean = pair_mean(unit_sum, n)
    second = (float(unit_products.square().sum()) - n) / (n * (n - 1))
    return PairMoments(n, mean, math.sqrt(max(second - mean**2, 0.0)))


def pair_mean(unit_sum: Float64[Tensor, "... d_model"], n: int) -> float:
    """Mean cosine of all pairs of n rows, from the sum of the unit rows (spec A3)."""
    return (float(unit_sum.square().sum()) - n) / (n * (n - 1)) if n > 1 else math.nan
