"""Many elastic-net problems that share one Gram matrix, each solved on the few inputs that it may need.

Working sets (Massias, Gramfort and Salmon 2018, "Celer"): a problem is solved on its non-zero inputs and those that
violate the optimality conditions most, then checked on all inputs by one product with the whole Gram matrix; what does
not pass gets a new working set. Problems whose sets have grown large are solved on all inputs, with a shared product.
"""

from collections.abc import Iterator
from dataclasses import replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from src.activations.products import exact_products
from src.transport.fista import Problems, fista

# Problems that are checked together.
_BLOCK = 4096
# Numbers in the arrays of one batch, which fill a device: Gram matrices of each problem's own, and weights.
_GRAMS, _WEIGHTS = 2**26, 2**23
# A working set takes in as many inputs as are used already, and this many at least.
_NEW = 16
# Above this share of the inputs the shared product is faster than those with Gram matrices of each problem's own.
_LARGE = 0.25
_ROUNDS = 8
# A working set is solved until its gap is this part of that on all inputs, but no further than this part of the goal.
_INNER, _FINAL = 0.01, 0.3


def solve_on_working_sets(
    gram: Float[Tensor, "d_in d_in"],
    cross: Float[Tensor, "column d_in"],
    square: Float[Tensor, "column"],
    l1: Float[Tensor, "column"],
    l2: Float[Tensor, "column"],
    start: Float[Tensor, "column d_in"],
    max_iter: int,
    tol: float,
) -> tuple[Float[Tensor, "column d_in"], Bool[Tensor, "column"]]:
    """`solve_elastic_nets` on any device, a row for each column: weights, and whether they converged.

    max_iter: steps per column on one working set.
    """
    length = gram.diagonal().sqrt()
    # inputs of length 1: the diagonal metric becomes the plain one
    gram = gram / length / length[:, None]
    # an eigenvalue is at most the largest absolute row sum; one of a working set's matrix is at most one of the whole
    largest = gram.abs().sum(1).max()
    weight = start.clone()
    converged = torch.zeros(len(cross), dtype=torch.bool, device=cross.device)
    with exact_products():
        for columns in torch.arange(len(cross), device=cross.device).split(_BLOCK):
            problems = Problems(
                gram,
                cross[columns] / length,
                square[columns],
                l1[columns],
                length.expand(len(columns), -1),
                l1[columns, None] / length,
                l2[columns, None] / length.square(),
            )
            found, converged[columns] = _solve(problems, weight[columns] * length, largest, max_iter, tol)
            weight[columns] = found / length
    return weight, converged


def _solve(
    problems: Problems, weight: Float[Tensor, "problem d_in"], largest: Tensor, max_iter: int, tol: float
) -> tuple[Float[Tensor, "problem d_in"], Bool[Tensor, "problem"]]:
    """Rounds of working sets, and all inputs for what they do not solve."""
    converged = torch.zeros(len(weight), dtype=torch.bool, device=weight.device)
    on_all_inputs = torch.zeros_like(converged)
    for _ in range(_ROUNDS):
        index = (~converged & ~on_all_inputs).nonzero()[:, 0]
        if len(index) == 0:
            break
        part, start = problems.select(index), weight[index]
        gap, correlation = part.gap(start, part.product(start))
        converged[index] = gap <= tol * part.square
        used = start != 0
        n_used = used.sum(1)
        excess = (correlation.abs_() / part.threshold).masked_fill_(used, torch.inf)
        n_violating = (excess > 1).sum(1) - n_used
        size = (n_used + torch.minimum(n_violating, n_used.clamp(min=_NEW))).clamp(min=1)
        on_all_inputs[index] = ~converged[index] & (size > _LARGE * weight.shape[1])
        target_gap = torch.maximum(_INNER * gap, _FINAL * tol * part.square)
        stays = (~converged[index] & ~on_all_inputs[index]).nonzero()[:, 0]
        for batch, width in _batches(stays, size, _GRAMS):
            inputs = excess[batch].topk(width).indices
            restricted = _restricted(part.select(batch), inputs)
            found, _ = fista(restricted, start[batch].gather(1, inputs), target_gap[batch], largest, max_iter)
            weight[index[batch]] = start[batch].scatter(1, inputs, found)
    n_together = max(16, _WEIGHTS // weight.shape[1])
    for index in (~converged).nonzero()[:, 0].split(n_together):
        if len(index) == 0:  # nothing is left
            break
        part = problems.select(index)
        weight[index], converged[index] = fista(part, weight[index], tol * part.square, largest, max_iter)
    return weight, converged


def _batches(
    which: Int[Tensor, "some"], size: Int[Tensor, "problem"], numbers: int
) -> Iterator[tuple[Int[Tensor, "batch"], int]]:
    """Problems with working sets of like size, and the largest size of each batch."""
    order = which[size[which].argsort(descending=True)]
    sizes = size[order].tolist()
    start = 0
    while start < len(sizes):
        width = sizes[start]
        stop = start + 1
        while stop < len(sizes) and (stop - start) * width**2 < numbers and 1.5 * sizes[stop] + 8 >= width:
            stop += 1
        yield order[start:stop], width
        start = stop


def _restricted(problems: Problems, inputs: Int[Tensor, "problem chosen"]) -> Problems:
    """The problems with some of the inputs alone, each with a Gram matrix of its own."""
    flat = (inputs[:, :, None] * problems.gram.shape[1] + inputs[:, None]).flatten()
    return replace(
        problems,
        gram=problems.gram.flatten().index_select(0, flat).view(*inputs.shape, -1),
        cross=problems.cross.gather(1, inputs),
        length=problems.length.gather(1, inputs),
        threshold=problems.threshold.gather(1, inputs),
        shrinkage=problems.shrinkage.gather(1, inputs),
    )
