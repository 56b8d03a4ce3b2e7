"""Lengths of rows (spec A2)."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from src.geometry.percentiles import PERCENTILES

# norms below this count as none
NEAR_ZERO = 1e-6


@dataclass(frozen=True)
class NormSummary:
    """cv: standard deviation over mean. log_std: standard deviation of log norms, over norms above 1e-6.

    lowest, highest: places of the shortest and longest row. Standard deviations are those of the population.
    """

    mean: float
    std: float
    minimum: float
    median: float
    maximum: float
    cv: float
    log_std: float
    n_near_zero: int
    percentiles: dict[int, float]
    lowest: int
    highest: int


def summarise_norms(norms: Float64[Tensor, "token"]) -> NormSummary:
    """Of at least one row."""
    values = norms.numpy()
    percentiles: dict[int, float] = dict(zip(PERCENTILES, np.percentile(values, PERCENTILES).tolist(), strict=True))
    positive = values[values >= NEAR_ZERO]
    mean, std = float(values.mean()), float(values.std())
    return NormSummary(
        mean=mean,
        std=std,
        minimum=float(values.min()),
        median=float(np.median(values)),
        maximum=float(values.max()),
        cv=std / mean if mean > 0 else math.nan,
        log_std=float(np.log(positive).std()) if len(positive) else math.nan,
        n_near_zero=len(values) - len(positive),
        percentiles=percentiles,
        lowest=int(values.argmin()),
        highest=int(values.argmax()),
    )


@dataclass(frozen=True)
class ColumnSummary:
    """Mean and standard deviation, over dimensions, of each dimension's mean and standard deviation."""

    mean_of_means: float
    std_of_means: float
    mean_of_stds: float
    std_of_stds: float


def summarise_columns(
    mean: Float64[Tensor, "d_model"], covariance: Float64[Tensor, "d_model d_model"]
) -> ColumnSummary:
    """From the mean row and the covariance."""
    stds = torch.diagonal(covariance).clamp_min(0).sqrt()
    values = (each for column in (mean, stds) for each in (float(column.mean()), float(column.std(correction=0))))
    return ColumnSummary(*values)
