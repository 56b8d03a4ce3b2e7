"""Elastic nets that share one Gram matrix, on the CPU: compiled coordinate descent, columns spread over threads."""

from concurrent.futures import ThreadPoolExecutor
from functools import partial

import torch
from jaxtyping import Bool, Float
from torch import Tensor

# What is handed to a thread at once: no more, so that threads end together and Ctrl-C is heard.
_COLUMNS = 8


def descend(
    gram: Float[Tensor, "d_in d_in"],
    cross: Float[Tensor, "column d_in"],
    square: Float[Tensor, "column"],
    l1: Float[Tensor, "column"],
    l2: Float[Tensor, "column"],
    start: Float[Tensor, "column d_in"],
    max_iter: int,
    tol: float,
) -> tuple[Float[Tensor, "column d_in"], Bool[Tensor, "column"]]:
    """`solve_elastic_nets` for float64 on the CPU, a row for each column: weights, and whether they converged.

    max_iter: sweeps over the working sets of a column. A column's bits depend neither on the other columns nor on the
    number of threads, which is torch's (`torch.get_num_threads`). Each thread takes 16 d_in^2 bytes at most.
    """
    from src.transport.coordinate_kernels import solve_columns  # numba takes a second to import

    n, weight = len(cross), start.contiguous().clone()
    converged = torch.zeros(n, dtype=torch.bool)
    columns = (x.contiguous().numpy() for x in (gram, cross, square, l1, l2))
    solve = partial(solve_columns, *columns, weight.numpy(), converged.numpy())
    blocks = [(first, min(first + _COLUMNS, n), max_iter, tol) for first in range(0, n, _COLUMNS)]
    n_threads = min(torch.get_num_threads(), len(blocks))
    if n_threads <= 1:
        for block in blocks:
            solve(*block)
    else:
        with ThreadPoolExecutor(n_threads) as pool:
            list(pool.map(lambda block: solve(*block), blocks))
    return weight, converged
