"""Euclidean distances of pairs of rows (spec A5)."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from src.activations.products import exact_products
from src.geometry.percentiles import PERCENTILES


@dataclass(frozen=True)
class DistanceSummary:
    """Over all pairs of the rows that were read.

    *_error: jackknife standard errors over rows, for a sample; 0 where all rows were read.
    """

    n_rows: int
    mean: float
    std: float
    cv: float
    minimum: float
    median: float
    maximum: float
    percentiles: dict[int, float]
    mean_error: float
    std_error: float
    cv_error: float


def summarise_distances(rows: Float64[Tensor, "token d_model"], is_sample: bool) -> DistanceSummary:
    """All pairs among some thousands of rows: memory is 8 n^2 bytes. Raises ValueError for fewer than two rows."""
    n = len(rows)
    if n < 2:
        raise ValueError(f"{n} rows have no distance")
    centred = rows - rows.mean(0)
    with exact_products():
        squares = centred.square().sum(1)
        squared = (squares[:, None] + squares - 2 * centred @ centred.T).clamp_min_(0)
    squared.fill_diagonal_(0)
    distances = squared.sqrt()
    values = distances[torch.ones_like(distances, dtype=torch.bool).triu(1)].cpu().numpy()
    mean, std = float(values.mean()), float(values.std())
    errors = _jackknife(distances.sum(1).cpu().numpy(), squared.sum(1).cpu().numpy()) if is_sample else (0.0, 0.0, 0.0)
    return DistanceSummary(
        n_rows=n,
        mean=mean,
        std=std,
        cv=std / mean if mean > 0 else math.nan,
        minimum=float(values.min()),
        median=float(np.median(values)),
        maximum=float(values.max()),
        percentiles=dict(zip(PERCENTILES, np.percentile(values, PERCENTILES).tolist(), strict=True)),
        mean_error=errors[0],
        std_error=errors[1],
        cv_error=errors[2],
    )


def _jackknife(sums: Float64[np.ndarray, "token"], squares: Float64[np.ndarray, "token"]) -> tuple[float, float, float]:
    """Standard errors of mean, std and cv of pairs, a row left out at a time; from sums over each row's pairs."""
    n = len(sums)
    pairs = (n - 1) * (n - 2) / 2
    if pairs == 0:
        return math.nan, math.nan, math.nan
    mean = (sums.sum() / 2 - sums) / pairs
    std = np.sqrt(np.maximum((squares.sum() / 2 - squares) / pairs - mean**2, 0))
    cv = np.divide(std, mean, out=np.full(n, np.nan), where=mean > 0)
    mean_error, std_error, cv_error = (math.sqrt((n - 1) * float(np.var(each))) for each in (mean, std, cv))
    return mean_error, std_error, cv_error
