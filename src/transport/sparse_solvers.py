"""Elastic nets from second moments alone: compiled coordinate descent on a CPU, batches of FISTA on other devices."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from src.transport.coordinate_descent import descend
from src.transport.working_sets import solve_on_working_sets


@dataclass(frozen=True)
class Solution:
    """weight [d_in, column]; converged: whether the duality gap of a column fell below tol * square in time."""

    weight: Float[Tensor, "d_in column"]
    converged: Bool[Tensor, "column"]


def solve_elastic_nets(
    gram: Float[Tensor, "d_in d_in"],
    cross: Float[Tensor, "d_in column"],
    square: Float[Tensor, "column"],
    l1: Float[Tensor, "column"],
    l2: Float[Tensor, "column"],
    start: Float[Tensor, "d_in column"] | None,
    max_iter: int,
    tol: float,
) -> Solution:
    """Minimise |y - Xb|^2 / 2 + l1 |b|_1 + l2 |b|^2 / 2 for every column, from X'X, X'y and y'y alone.

    A column has converged when its duality gap on all inputs is at most tol * y'y (scikit-learn's rule for ElasticNet).
    All are float64 and on one device. gram: the diagonal must be positive. start: warm start; None = zeros. max_iter:
    sweeps of coordinate descent, or steps of FISTA on one working set, per column.
    """
    by_column = cross.T.contiguous()
    begin = torch.zeros_like(by_column) if start is None else start.T.contiguous()
    solve = descend if gram.device.type == "cpu" else solve_on_working_sets
    weight, converged = solve(gram, by_column, square, l1, l2, begin, max_iter, tol)
    return Solution(weight.T.contiguous(), converged)
