"""Batches of elastic-net problems, solved by accelerated proximal gradient steps until their duality gaps are small.

FISTA (Beck and Teboulle 2009) with a diagonal metric, a step size per problem found by backtracking, and the gradient
restart of O'Donoghue and Candes (2015). A step costs one product with the Gram matrix, which also gives the gap.
"""

from dataclasses import dataclass, fields

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.linalg import vecdot

_STEPS_PER_CHECK = 5
# Problems that have converged are taken out when they are this share of the batch: copying the rest costs steps.
_LEAVE = 0.25
# A step that is too long grows shorter by this factor at least; one that may have become too short is tried longer.
_BACKTRACK, _LENGTHEN = 1.5, 0.7
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Problems:
    """Minimise |y - Xb|^2 / 2 + l1 |b|_1 + l2 |b|^2 / 2 for a batch of y, in units in which every input has length 1.

    gram: X'X, shared or of each problem's own inputs; its diagonal is 1. cross: X'y. square: y'y. length: what the
    inputs were divided by. threshold, shrinkage: l1 / length and l2 / length^2, which is what they are in these units.
    """

    gram: Float[Tensor, "*problem d_in d_in"]
    cross: Float[Tensor, "problem d_in"]
    square: Float[Tensor, "problem"]
    l1: Float[Tensor, "problem"]
    length: Float[Tensor, "problem d_in"]
    threshold: Float[Tensor, "problem d_in"]
    shrinkage: Float[Tensor, "problem d_in"]

    def select(self, which: Tensor) -> "Problems":
        """Some of the problems, by mask or index."""
        gram = self.gram if self.gram.ndim == 2 else self.gram[which]
        return Problems(gram, *(getattr(self, each.name)[which] for each in fields(self) if each.name != "gram"))

    def product(self, weight: Float[Tensor, "problem d_in"]) -> Float[Tensor, "problem d_in"]:
        """The (symmetric) Gram matrix times the weights."""
        return weight @ self.gram if self.gram.ndim == 2 else (weight[:, None] @ self.gram)[:, 0]

    def gap(
        self, weight: Float[Tensor, "problem d_in"], product: Float[Tensor, "problem d_in"]
    ) -> tuple[Float[Tensor, "problem"], Float[Tensor, "problem d_in"]]:
        """The duality gap, scikit-learn's for ElasticNet, and the inputs' correlations with the residual.

        The dual point is the residual, shrunk until every input's correlation with it is at most l1.
        """
        shrunk = self.shrinkage * weight
        correlation = (self.cross - product).sub_(shrunk)
        fitted, explained = vecdot(weight, product), vecdot(weight, self.cross)
        residual = (self.square + fitted - 2 * explained).clamp(min=0)
        shrink = (self.l1 / (correlation * self.length).abs_().amax(-1)).clamp(max=1)
        shrink = torch.where(shrink.isnan(), 1, shrink)  # 0 / 0: nothing to shrink
        l1_penalty, l2_penalty = vecdot(weight.abs(), self.threshold), vecdot(weight, shrunk)
        primal = 0.5 * (residual + l2_penalty) + l1_penalty
        gap = primal + 0.5 * shrink.square() * (residual + l2_penalty) - shrink * (self.square - explained)
        return gap, correlation


def fista(
    problems: Problems,
    start: Float[Tensor, "problem d_in"],
    target_gap: Float[Tensor, "problem"],
    largest: Float[Tensor, ""],
    max_iter: int,
) -> tuple[Float[Tensor, "problem d_in"], Bool[Tensor, "problem"]]:
    """Weights whose duality gap is at most target_gap, and which of the problems got there within max_iter steps.

    largest: no Gram matrix has an eigenvalue above it.
    """
    weight = torch.empty_like(start)
    converged = torch.zeros(len(start), dtype=torch.bool, device=start.device)
    place = torch.arange(len(start), device=start.device)
    state = _State.start(start, problems.product(start))
    for iteration in range(max_iter + 1):
        if iteration % _STEPS_PER_CHECK == 0 or iteration == max_iter:
            done = problems.gap(state.weight, state.product)[0] <= target_gap
            share = float(done.double().mean())
            if share == 1 or iteration == max_iter:
                weight[place], converged[place] = state.weight, done
                break
            if share >= _LEAVE:
                weight[place[done]], converged[place[done]] = state.weight[done], True
                left = ~done
                problems, state, target_gap, place = (
                    problems.select(left),
                    state.select(left),
                    target_gap[left],
                    place[left],
                )
        state.advance(problems, largest)
    return weight, converged


@dataclass
class _State:
    """Where FISTA stands.

    product: Gram matrix times weight. step, product_step: what the last accepted step added to weight and product.
    lipschitz: inverse step size. age: FISTA's t.
    """

    weight: Float[Tensor, "problem d_in"]
    product: Float[Tensor, "problem d_in"]
    step: Float[Tensor, "problem d_in"]
    product_step: Float[Tensor, "problem d_in"]
    lipschitz: Float[Tensor, "problem 1"]
    age: Float[Tensor, "problem 1"]
    momentum: Float[Tensor, "problem 1"]

    @classmethod
    def start(cls, weight: Tensor, product: Tensor) -> "_State":
        """At rest."""
        zeros, ones = torch.zeros_like(weight), weight.new_ones(len(weight), 1)
        return cls(weight, product, zeros, zeros, ones, ones, torch.zeros_like(ones))

    def select(self, which: Bool[Tensor, "problem"]) -> "_State":
        """That of some problems."""
        return _State(*(getattr(self, each.name)[which] for each in fields(self)))

    def advance(self, problems: Problems, largest: Float[Tensor, ""]) -> None:
        """One step for every problem; one whose step was too long stays, and tries a shorter one next time."""
        point = torch.addcmul(self.weight, self.momentum, self.step)
        at_point = torch.addcmul(self.product, self.momentum, self.product_step)
        length = 1 / self.lipschitz
        moved = torch.addcmul(point, length, problems.cross - at_point)
        threshold = length * problems.threshold
        new = moved.sub_(moved.clamp(-threshold, threshold))
        new.div_(1 + length * problems.shrinkage)
        product = problems.product(new)
        change, step, product_step = new - point, new - self.weight, product - self.product
        curvature, size = vecdot(change, product - at_point)[:, None], vecdot(change, change)[:, None]
        accepted = (curvature <= self.lipschitz * size * (1 + _ROUNDING)) | (self.lipschitz >= largest)
        restart = accepted & (vecdot(change, step)[:, None] < 0)
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
