"""How much of a label is left in the states of later turns: regression on the lags at which labels were last said."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy.optimize import curve_fit
from torch import Tensor

# eigenvalues of the normal equations below this share of the largest say that lags can't be told apart
_COLLINEAR = 1e-9
_LONGEST_HALF_LIFE = 1e3


@dataclass(frozen=True, eq=False)
class LagDesign:
    """Which label was last said how long before each turn, for each history of labels (draw).

    A row is a turn j and a label that is in the conversation but is not the turn's own.
    columns: 1 where the label was last said `lag` turns before j, for lags 1 to n; 0 everywhere if it was not said in
        those. Each turn's mean over its labels is subtracted. raw: the same without that.
    """

    columns: Float[Tensor, "draw turn label lag"]
    raw: Float[Tensor, "draw turn label lag"]
    rows: Bool[Tensor, "turn label"]


@dataclass(frozen=True, eq=False)
class NormalEquations:
    """Sums of products: of columns with each other, and with the values."""

    columns: Float[Tensor, "draw lag lag"]
    values: Float[Tensor, "draw layer lag"]

    def __add__(self, other: "NormalEquations") -> "NormalEquations":
        return NormalEquations(self.columns + other.columns, self.values + other.values)

    def without(self, lag: int) -> "NormalEquations":
        """With one column left out; its coefficient is NaN."""
        columns, values = self.columns.clone(), self.values.clone()
        columns[:, lag] = columns[:, :, lag] = values[..., lag] = 0
        return NormalEquations(columns, values)

    def solve(self) -> Float[Tensor, "draw layer lag"]:
        """Least squares coefficients; NaN for a lag that no row has, and for all where lags can't be told apart."""
        present = self.columns.diagonal(dim1=-2, dim2=-1) > 0
        filled = self.columns + torch.diag_embed((~present).to(self.columns))
        eigenvalues = torch.linalg.eigvalsh(filled)
        singular = eigenvalues[:, 0] <= _COLLINEAR * eigenvalues[:, -1]
        filled[singular] = torch.eye(filled.shape[-1]).to(filled)
        found = torch.linalg.solve(filled, self.values.mT).mT
        return found.masked_fill((singular[:, None] | ~present)[:, None], float("nan"))


def excess(projection: Float[Tensor, "layer turn label"], labels: Sequence[int]) -> Float[Tensor, "layer turn label"]:
    """Projection on each label's direction less the mean of those on the conversation's labels but the turn's own.

    Both are read from one state, so what length and place do to all directions alike drops out. NaN where no label is
    left to compare with.
    """
    others = compared_labels(labels, projection.shape[-1]).to(projection)
    return projection - (projection * others).sum(-1, keepdim=True) / others.sum(-1, keepdim=True)


def compared_labels(labels: Sequence[int], n_labels: int) -> Bool[Tensor, "turn label"]:
    """The conversation's labels but the turn's own."""
    own = torch.tensor(labels)[:, None]
    every = torch.arange(n_labels)
    return (own == every).any(0) & (own != every)


def lag_design(
    labels: Sequence[int],
    histories: Int[Tensor, "draw turn"],
    n_labels: int,
    max_lag: int,
    usable: Bool[Tensor, "turn"],
) -> LagDesign:
    """For histories of labels, the first of which may be the true one. usable: turns that may be read.

    A turn is never read on its own true label, whatever the history: its own words show it.
    """
    draws, turns = histories.shape
    every = torch.arange(n_labels)
    rows = compared_labels(labels, n_labels) & usable[:, None]
    since = torch.full((draws, n_labels), max_lag)  # turns since a label was said, less one; max_lag = not within reach
    lags = []
    for turn in range(turns):
        lags.append(since)
        since = torch.where(histories[:, turn, None] == every, 0, (since + 1).clamp(max=max_lag))
    raw = torch.nn.functional.one_hot(torch.stack(lags, 1), max_lag + 1)[..., :max_lag].double() * rows[None, ..., None]
    mean = raw.sum(2, keepdim=True) / rows.sum(-1).clamp(min=1)[:, None, None]
    return LagDesign((raw - mean) * rows[None, ..., None], raw, rows)


def normal_equations(
    design: LagDesign, values: Float[Tensor, "layer turn label"], draws: slice = slice(None)
) -> NormalEquations:
    """For values whose mean over each turn's rows is 0, as `excess` has it."""
    columns = design.columns[draws].to(values).flatten(1, 2)
    read = torch.where(design.rows, values, 0.0).flatten(1)
    return NormalEquations(columns.mT @ columns, torch.einsum("drk,vr->dvk", columns, read))


def half_life(curve: Float[Tensor, "lag"], weight: Float[Tensor, "lag"]) -> float:
    """Turns in which what is carried over halves, from lag 1 on: weighted least squares of A 2^(-(lag - 1) / h).

    curve: at lags 1, 2, ... NaN if it is not positive at lag 1, or has fewer than three lags, or does not fall.
    """
    values, weights = curve.cpu().double().numpy(), weight.cpu().double().numpy()
    known = np.isfinite(values) & (weights > 0)
    lag = np.arange(len(values))[known]
    if len(lag) < 3 or not known[0] or not values[0] > 0:
        return math.nan
    try:
        (_, half), _ = curve_fit(
            lambda lag, size, half: size * 2 ** (-lag / half),
            lag,
            values[known],
            p0=(values[0], 1.0),
            sigma=weights[known] ** -0.5,
            bounds=([0, 1e-2], [np.inf, _LONGEST_HALF_LIFE]),
        )
    except RuntimeError:
        return math.nan
    return float(half) if half < 0.99 * _LONGEST_HALF_LIFE else math.nan
