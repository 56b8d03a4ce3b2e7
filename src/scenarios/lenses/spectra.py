"""How many directions a set of states takes up: spectra of their matrix about its mean."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Spectrum:
    """Of the states of some rows at one layer, about their mean: singular values s, largest first.

    effective_rank: exp(-sum p log p), p = s / sum s (Roy & Vetterli 2007); between 1 and rows - 1, which bounds it
    where rows are few. None where all rows are equal. spectral: s_1. nuclear: sum s. All NaN, and no values, where a
    row is not finite.
    """

    values: list[float]
    effective_rank: float | None
    spectral: float
    nuclear: float


def spectrum(rows: Float[Tensor, "row d"]) -> Spectrum:
    """The spectrum of rows about their mean. One row has none: its norms are 0, its rank None."""
    if not bool(rows.isfinite().all()):
        return Spectrum([], math.nan, math.nan, math.nan)
    centred = rows.double() - rows.double().mean(0)
    values = torch.linalg.svdvals(centred)[: max(len(rows) - 1, 0)]
    total = values.sum()
    # what rounding leaves of equal rows is no direction
    if len(values) == 0 or total <= len(rows) * torch.finfo(torch.float32).eps * rows.double().norm():
        return Spectrum([0.0] * len(values), None, 0.0, 0.0)
    shares = values / total
    entropy = -torch.where(shares > 0, shares * shares.log(), 0.0).sum()
    return Spectrum(values.tolist(), float(entropy.exp()), float(values[0]), float(total))
