"""Many elastic-net problems that share one Gram matrix, solved together by accelerated proximal gradient steps.

FISTA (Beck and Teboulle 2009) with a diagonal metric, a step size per column found by backtracking, and the gradient
restart of O'Donoghue and Candes (2015). A step costs one product with the Gram matrix, which also gives the duality
gap; columns whose gap is small enough leave.
"""

from dataclasses import dataclass, fields

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.linalg import vecdot

from src.activations.products import exact_products

# Columns that are solved together: on a CPU as many as its caches hold, elsewhere what fills the device.
_COLUMNS_CPU, _COLUMNS_DEVICE = 256, 4096
_STEPS_PER_CHECK = 5
# A step that is too long grows shorter by this factor at least; one that may have become too short is tried longer.
_BACKTRACK, _LENGTHEN = 1.5, 0.7
_ROUNDING = 1e-9


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

    A column has converged when its duality gap is at most tol * y'y (scikit-learn's criterion for ElasticNet).
    gram: the diagonal must be positive. start: warm start; None = zeros. max_iter: products with gram per column.
    """
    scale = gram.diagonal().sqrt()[:, None]
    # inputs of length 1: the diagonal metric becomes the plain one
    gram = gram / scale / scale.T
    # an eigenvalue is at most the largest absolute row sum
    largest = gram.abs().sum(1).max()
    weight = torch.zeros_like(cross) if start is None else start.clone()
    converged = torch.zeros(cross.shape[1], dtype=torch.bool, device=cross.device)
    step = _COLUMNS_CPU if cross.device.type == "cpu" else _COLUMNS_DEVICE
    with exact_products():
        for index in torch.arange(cross.shape[1], device=cross.device).split(step):
            columns = _Columns.start(
                index, gram, cross[:, index], square[index], l1[index], l2[index], weight[:, index], scale
            )
            for iteration in range(max_iter + 1):
                if iteration % _STEPS_PER_CHECK == 0 or iteration == max_iter:
                    done = columns.gap(scale) <= tol * columns.square
                    if done.any():
                        weight[:, columns.index[done]] = columns.weight[:, done] / scale
                        converged[columns.index[done]] = True
                        columns = columns.select(~done)
                    if len(columns.index) == 0:
                        break
                if iteration < max_iter:
                    columns.advance(gram, largest)
            weight[:, columns.index] = columns.weight / scale
    return Solution(weight, converged)


@dataclass
class _Columns:
    """The columns that have not converged, in units in which every input has length 1.

    threshold, shrinkage: l1 and l2 of each input and column in these units. product: gram @ weight. step, product_step:
    what the last accepted step added to weight and product. lipschitz: inverse step size. age: FISTA's t.
    """

    index: Int[Tensor, "column"]
    cross: Float[Tensor, "d_in column"]
    square: Float[Tensor, "column"]
    l1: Float[Tensor, "column"]
    threshold: Float[Tensor, "d_in column"]
    shrinkage: Float[Tensor, "d_in column"]
    weight: Float[Tensor, "d_in column"]
    product: Float[Tensor, "d_in column"]
    step: Float[Tensor, "d_in column"]
    product_step: Float[Tensor, "d_in column"]
    lipschitz: Float[Tensor, "column"]
    age: Float[Tensor, "column"]
    momentum: Float[Tensor, "column"]

    @classmethod
    def start(
        cls,
        index: Tensor,
        gram: Tensor,
        cross: Tensor,
        square: Tensor,
        l1: Tensor,
        l2: Tensor,
        weight: Tensor,
        scale: Tensor,
    ) -> "_Columns":
        """Columns at the given weight; gram is in the new units already."""
        weight = weight * scale
        zeros, none = torch.zeros_like(weight), torch.zeros_like(square)
        ones = torch.ones_like(square)
        data = (index, cross / scale, square, l1, l1 / scale, l2 / scale.square())
        return cls(*data, weight, gram @ weight, zeros, zeros, ones, ones, none)

    def select(self, which: Bool[Tensor, "column"]) -> "_Columns":
        """Some of the columns."""
        return _Columns(*(getattr(self, each.name)[..., which] for each in fields(self)))

    def gap(self, scale: Float[Tensor, "d_in 1"]) -> Float[Tensor, "column"]:
        """The duality gap: scikit-learn's, of the problem stated by `solve_elastic_nets`.

        The dual point is the residual, shrunk until every input's correlation with it is at most l1.
        """
        shrunk = self.shrinkage * self.weight
        correlation = (self.cross - self.product - shrunk) * scale
        fitted, explained = vecdot(self.weight, self.product, dim=0), vecdot(self.weight, self.cross, dim=0)
        residual = (self.square + fitted - 2 * explained).clamp(min=0)
        shrink = (self.l1 / correlation.abs().amax(0)).clamp(max=1)
        shrink = torch.where(shrink.isnan(), 1, shrink)  # 0 / 0: nothing to shrink
        l1_penalty, l2_penalty = vecdot(self.weight.abs(), self.threshold, dim=0), vecdot(self.weight, shrunk, dim=0)
        primal = 0.5 * (residual + l2_penalty) + l1_penalty
        return primal + 0.5 * shrink.square() * (residual + l2_penalty) - shrink * (self.square - explained)

    def advance(self, gram: Tensor, largest: Float[Tensor, ""]) -> None:
        """One step for every column; a column whose step was too long stays, and tries a shorter one next time."""
        point = torch.addcmul(self.weight, self.momentum, self.step)
        at_point = torch.addcmul(self.product, self.momentum, self.product_step)
        length = 1 / self.lipschitz
        moved = torch.addcmul(point, length, self.cross - at_point)
        threshold = length * self.threshold
        new = moved.sub_(moved.clamp(-threshold, threshold))
        new.div_(1 + length * self.shrinkage)
        product = gram @ new
        change, step, product_step = new - point, new - self.weight, product - self.product
        curvature, size = vecdot(change, product - at_point, dim=0), vecdot(change, change, dim=0)
        accepted = (curvature <= self.lipschitz * size * (1 + _ROUNDING)) | (self.lipschitz >= largest)
        restart = accepted & (vecdot(change, step, dim=0) < 0)
        age = (1 + (1 + 4 * self.age.square()).sqrt()) / 2
        momentum = (self.age - 1) / age
        if accepted.all():
            self.weight, self.product, self.step, self.product_step = new, product, step, product_step
        else:
            self.weight = torch.where(accepted, new, self.weight)
            self.product = torch.where(accepted, product, self.product)
            self.step = torch.where(accepted, step, self.step)
            self.product_step = torch.where(accepted, product_step, self.product_step)
        self.age = torch.where(restart, 1, torch.where(accepted, age, self.age))
        self.momentum = torch.where(restart, 0, torch.where(accepted, momentum, self.momentum))
        longer = (self.lipschitz * _LENGTHEN).clamp(min=1)
        shorter = torch.minimum(torch.maximum(self.lipschitz * _BACKTRACK, curvature / size), largest)
        self.lipschitz = torch.where(restart, longer, torch.where(accepted, self.lipschitz, shorter))
