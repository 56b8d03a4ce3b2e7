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
    weight = torch.zeros_like(cross) if start is None else start.clone()
    converged = torch.zeros(cross.shape[1], dtype=torch.bool, device=cross.device)
    scale = gram.diagonal()[:, None]
    # an eigenvalue of the scaled matrix is at most its largest absolute row sum
    largest = (gram.abs() / scale.sqrt() / scale.sqrt().T).sum(1).max()
    step = _COLUMNS_CPU if cross.device.type == "cpu" else _COLUMNS_DEVICE
    with exact_products():
        for first in range(0, cross.shape[1], step):
            chosen = slice(first, first + step)
            columns = _Columns.start(
                gram, cross[:, chosen], square[chosen], l1[chosen], l2[chosen], weight[:, chosen], first
            )
            for iteration in range(max_iter + 1):
                if iteration % _STEPS_PER_CHECK == 0 or iteration == max_iter:
                    done = columns.gap() <= tol * columns.square
                    if done.any():
                        weight[:, columns.index[done]] = columns.weight[:, done]
                        converged[columns.index[done]] = True
                        columns = columns.select(~done)
                    if len(columns.index) == 0:
                        break
                if iteration < max_iter:
                    columns.advance(gram, scale, largest)
            weight[:, columns.index] = columns.weight
    return Solution(weight, converged)


@dataclass
class _Columns:
    """The columns that have not converged: data, the last two iterates with their products, and step sizes.

    lipschitz: inverse step size in the metric of the Gram matrix's diagonal. age: FISTA's t.
    """

    index: Int[Tensor, "column"]
    cross: Float[Tensor, "d_in column"]
    square: Float[Tensor, "column"]
    l1: Float[Tensor, "column"]
    l2: Float[Tensor, "column"]
    weight: Float[Tensor, "d_in column"]
    product: Float[Tensor, "d_in column"]
    last_weight: Float[Tensor, "d_in column"]
    last_product: Float[Tensor, "d_in column"]
    lipschitz: Float[Tensor, "column"]
    age: Float[Tensor, "column"]
    momentum: Float[Tensor, "column"]

    @classmethod
    def start(
        cls, gram: Tensor, cross: Tensor, square: Tensor, l1: Tensor, l2: Tensor, weight: Tensor, first: int
    ) -> "_Columns":
        """Columns numbered from first, at the given weight."""
        index = torch.arange(first, first + len(square), device=square.device)
        product = gram @ weight
        ones = torch.ones_like(square)
        weight = weight.clone()
        return cls(index, cross, square, l1, l2, weight, product, weight, product, ones, ones, torch.zeros_like(square))

    def select(self, which: Bool[Tensor, "column"]) -> "_Columns":
        """Some of the columns."""
        return _Columns(*(getattr(self, each.name)[..., which] for each in fields(self)))

    def gap(self) -> Float[Tensor, "column"]:
        """The duality gap: scikit-learn's, of the problem stated by `solve_elastic_nets`.

        The dual point is the residual, shrunk until every input's correlation with it is at most l1.
        """
        correlation = self.cross - self.product - self.l2 * self.weight
        fitted, explained = vecdot(self.weight, self.product, dim=0), vecdot(self.weight, self.cross, dim=0)
        residual = (self.square + fitted - 2 * explained).clamp(min=0)
        shrink = (self.l1 / correlation.abs().amax(0)).clamp(max=1)
        shrink = torch.where(shrink.isnan(), 1, shrink)  # 0 / 0: nothing to shrink
        norm = self.weight.abs().sum(0)
        penalty = self.l2 * vecdot(self.weight, self.weight, dim=0)
        return 0.5 * (1 + shrink.square()) * (residual + penalty) + self.l1 * norm - shrink * (self.square - explained)

    def advance(self, gram: Tensor, scale: Float[Tensor, "d_in 1"], largest: Float[Tensor, ""]) -> None:
        """One step for every column; a column whose step was too long stays, and tries a shorter one next time."""
        point = torch.addcmul(self.weight, self.momentum, self.weight - self.last_weight)
        at_point = torch.addcmul(self.product, self.momentum, self.product - self.last_product)
        length = 1 / (self.lipschitz * scale)
        moved = torch.addcmul(point, length, self.cross - at_point)
        threshold = length * self.l1
        new = moved.sub_(torch.maximum(torch.minimum(moved, threshold), -threshold))
        if self.l2.any():
            new.div_(1 + length * self.l2)
        product = gram @ new
        change = new - point
        scaled = change * scale
        curvature, size = vecdot(change, product - at_point, dim=0), vecdot(change, scaled, dim=0)
        accepted = (curvature <= self.lipschitz * size * (1 + _ROUNDING)) | (self.lipschitz >= largest)
        restart = accepted & (vecdot(scaled, new - self.weight, dim=0) < 0)
        age = (1 + (1 + 4 * self.age.square()).sqrt()) / 2
        momentum = (self.age - 1) / age
        if accepted.all():
            self.last_weight, self.last_product, self.weight, self.product = self.weight, self.product, new, product
        else:
            self.last_weight = torch.where(accepted, self.weight, self.last_weight)
            self.last_product = torch.where(accepted, self.product, self.last_product)
            self.weight = torch.where(accepted, new, self.weight)
            self.product = torch.where(accepted, product, self.product)
        self.age = torch.where(restart, 1, torch.where(accepted, age, self.age))
        self.momentum = torch.where(restart, 0, torch.where(accepted, momentum, self.momentum))
        longer = (self.lipschitz * _LENGTHEN).clamp(min=1)
        shorter = torch.minimum(torch.maximum(self.lipschitz * _BACKTRACK, curvature / size), largest)
        self.lipschitz = torch.where(restart, longer, torch.where(accepted, self.lipschitz, shorter))
