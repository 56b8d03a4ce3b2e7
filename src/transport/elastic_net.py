"""Lasso and elastic net from moments: scikit-learn's objective for each output, all outputs and l1_ratios together.

(1 / 2n) |y - xB - b|^2 + alpha l1_ratio |B|_1 + alpha (1 - l1_ratio) / 2 |B|^2 depends on the rows through Sxx, Sxy and
Syy alone. Alphas are walked from the largest to the smallest, each solution the start of the next (docs/methods.md).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from src.activations.moments import Moments
from src.activations.products import exact_products
from src.activations.statistics import Statistics
from src.errors import StrataError
from src.hook_points import HookPoint
from src.transport.affine import (
    SCORINGS,
    AffineFit,
    RegularizationPath,
    Scoring,
    bias_of,
    cross_validation,
    distinct,
    in_absolute_units,
    penalties,
    require_variation,
)
from src.transport.metrics import r2_per_dimension, r2_variance_weighted
from src.transport.preprocessing import RAW, Prepared, Preprocessing
from src.transport.sparse_solvers import Solution, solve_elastic_nets

MAX_ITER, TOL = 5000, 1e-4


@dataclass(frozen=True)
class Sparsity:
    """How sparse a weight is. zero_share: of all coefficients. inputs_used: dimensions of x that any output uses.

    nonzero_per_output: coefficients other than 0 of each output.
    """

    zero_share: float
    inputs_used: int
    nonzero_per_output: Int[Tensor, "d_out"]

    @classmethod
    def of(cls, weight: Float[Tensor, "d_in d_out"]) -> "Sparsity":
        """Count the coefficients that are exactly 0."""
        nonzero = weight != 0
        return cls(1 - float(nonzero.double().mean()), int(nonzero.any(1).sum()), nonzero.sum(0))


def fit_elastic_net_path(
    moments: Moments,
    source: HookPoint,
    targets: Sequence[HookPoint],
    folds: Sequence[int],
    alphas: Sequence[float],
    l1_ratios: Sequence[float] = (1.0,),
    relative: bool = True,
    scoring: Scoring = "uniform",
    preprocessing: Preprocessing = RAW,
    max_iter: int = MAX_ITER,
    tol: float = TOL,
) -> dict[HookPoint, RegularizationPath]:
    """Choose alpha and l1_ratio by held-out R2 for each target of a source, and fit on all rows of `folds` with them.

    folds: each is held out in turn, and the splits' R2 are averaged without weights (GridSearchCV with
        PredefinedSplit). Candidates are numbered l1_ratio by l1_ratio, alphas in the order given.
    alphas: if relative, in units of the smallest alpha, over all folds, at which all coefficients of all outputs of a
        target are 0; else scikit-learn's. l1_ratios: 1 is the lasso; above 0, at most 1.
    max_iter, tol: per output and alpha; see `solve_elastic_nets`. What did not converge is counted in the path's
        `unconverged`, and for the returned fit in its details.

    Raises StrataError if a split lacks rows, the source is constant, or a penalty is out of range.
    """
    whole = _Problem.of(preprocessing.of(moments.subset(distinct(folds)), source, targets))
    grid = _Grid.of(whole, alphas, l1_ratios, relative)
    with exact_products():
        splits = [
            _score_split(preprocessing.of(train, source, targets), part, grid, max_iter, tol)
            for train, part in cross_validation(moments, folds)
        ]
        paths = {}
        for place, target in enumerate(targets):
            scores: dict[Scoring, Tensor] = {
                name: torch.stack([split.scores[name][place].flatten() for split in splits]) for name in SCORINGS
            }
            best = int(scores[scoring].mean(0).argmax())
            ratio, alpha = divmod(best, len(alphas))
            paths[target] = RegularizationPath(
                fit=whole.fit(grid, place, ratio, alpha, max_iter, tol),
                alphas=grid.absolute[place].flatten(),
                relative_alphas=grid.relative[place].flatten(),
                scores=scores,
                scoring=scoring,
                best=best,
                l1_ratios=grid.l1_ratios.repeat_interleave(len(alphas)),
                unconverged=torch.stack([split.unconverged[place].flatten() for split in splits]),
            )
    return paths


def fit_elastic_net(
    moments: Moments,
    source: HookPoint,
    targets: Sequence[HookPoint],
    groups: Sequence[int],
    alpha: float,
    l1_ratio: float = 1.0,
    relative: bool = True,
    preprocessing: Preprocessing = RAW,
    max_iter: int = MAX_ITER,
    tol: float = TOL,
) -> dict[HookPoint, AffineFit]:
    """The elastic net with one given penalty (as in `fit_elastic_net_path`) on all rows of the groups; no scores."""
    whole = _Problem.of(preprocessing.of(moments.subset(distinct(groups)), source, targets))
    grid = _Grid.of(whole, [alpha], [l1_ratio], relative)
    with exact_products():
        return {target: whole.fit(grid, place, 0, 0, max_iter, tol) for place, target in enumerate(targets)}


@dataclass(frozen=True)
class _Grid:
    """alpha by target, l1_ratio and alpha: as scikit-learn counts it, and in units of that which leaves nothing."""

    absolute: Float[Tensor, "target l1_ratio alpha"]
    relative: Float[Tensor, "target l1_ratio alpha"]
    l1_ratios: Float[Tensor, "l1_ratio"]

    @classmethod
    def of(cls, whole: "_Problem", alphas: Sequence[float], l1_ratios: Sequence[float], relative: bool) -> "_Grid":
        given = penalties(alphas, "lasso or elastic net", whole.gram.device)
        ratios = given.new_tensor([float(ratio) for ratio in l1_ratios])
        if len(ratios) == 0 or not bool(((ratios > 0) & (ratios <= 1)).all()):
            raise StrataError(f"l1_ratio must be above 0 and at most 1, got {list(l1_ratios)}: 0 is method=ridge")
        strongest = whole.cross.abs().amax(0) / whole.n
        unit = torch.stack([part.max() for part in strongest.split(whole.widths)])[:, None, None] / ratios[:, None]
        given = given.expand(len(whole.widths), len(ratios), -1)
        return cls(*((in_absolute_units(given, unit), given) if relative else (given, given / unit)), ratios)

    @property
    def descending(self) -> list[int]:
        """Places of the alphas, from the largest to the smallest: relative order is the same for all."""
        return self.relative[0, 0].argsort(descending=True).tolist()


@dataclass(frozen=True)
class _Problem:
    """The prepared moments of a training set; the outputs of all targets stand side by side."""

    prepared: Prepared
    varying: Bool[Tensor, "d_in"]
    gram: Float[Tensor, "d_in d_in"]
    cross: Float[Tensor, "d_in output"]
    square: Float[Tensor, "output"]

    @classmethod
    def of(cls, prepared: Prepared) -> "_Problem":
        source, targets, fitted = prepared.source, prepared.targets, prepared(prepared.train)
        varying = require_variation(prepared.train, source)
        # inputs that do not vary hold rounding alone: with no product left, their coefficients stay 0
        gram = torch.where(varying & varying[:, None], fitted.scatter(source, source), 0)
        gram.diagonal()[~varying] = 1
        cross = torch.cat([fitted.scatter(source, target) for target in targets], 1) * varying[:, None]
        square = torch.cat([fitted.square_scatter(target) for target in targets])
        return cls(prepared, varying, gram, cross, square)

    @property
    def n(self) -> int:
        return self.prepared.train.n

    @property
    def widths(self) -> list[int]:
        return [len(self.prepared.train.sums[target]) for target in self.prepared.targets]

    def solve(
        self,
        alpha: Float[Tensor, "column"],
        l1_ratio: Float[Tensor, "column"],
        outputs: Int[Tensor, "column"],
        start: Tensor | None,
        max_iter: int,
        tol: float,
    ) -> Solution:
        """Solve for columns, each an output with a penalty of its own."""
        l1, l2 = alpha * l1_ratio * self.n, alpha * (1 - l1_ratio) * self.n
        return solve_elastic_nets(self.gram, self.cross[:, outputs], self.square[outputs], l1, l2, start, max_iter, tol)

    def fit(self, grid: _Grid, place: int, ratio: int, alpha: int, max_iter: int, tol: float) -> AffineFit:
        """The fit of one target with one penalty, reached along the larger alphas, as a map of raw activations."""
        target, l1_ratio = self.prepared.targets[place], grid.l1_ratios[ratio]
        first = sum(self.widths[:place])
        outputs = torch.arange(first, first + self.widths[place], device=self.cross.device)
        order = grid.descending
        solution: Solution | None = None
        for step in order[: order.index(alpha) + 1]:
            penalty = grid.absolute[place, ratio, step].expand(len(outputs))
            start = None if solution is None else solution.weight
            solution = self.solve(penalty, l1_ratio.expand(len(outputs)), outputs, start, max_iter, tol)
        assert solution is not None
        sparsity = Sparsity.of(solution.weight)
        details: dict[str, Any] = {
            "l1_ratio": float(l1_ratio),
            "unconverged_outputs": int((~solution.converged).sum()),
            "zero_share": sparsity.zero_share,
            "inputs_used": sparsity.inputs_used,
            "nonzero_per_output": sparsity.nonzero_per_output.tolist(),
        }
        chosen, relative = float(grid.absolute[place, ratio, alpha]), float(grid.relative[place, ratio, alpha])
        bias = bias_of(self.prepared(self.prepared.train), self.prepared.source, target, solution.weight)
        fit = AffineFit(solution.weight, bias, chosen, relative, int(self.varying.sum()), details)
        return self.prepared.restore(fit, target)


@dataclass(frozen=True)
class _SplitScores:
    scores: dict[Scoring, list[Float[Tensor, "l1_ratio alpha"]]]
    unconverged: list[Int[Tensor, "l1_ratio alpha"]]


def _score_split(prepared: Prepared, part: Statistics, grid: _Grid, max_iter: int, tol: float) -> _SplitScores:
    """R2 on the held-out rows of every target and candidate, per target; R2 is that of raw y."""
    source, targets = prepared.source, prepared.targets
    problem = _Problem.of(prepared)
    fitted, held_out = prepared(prepared.train), prepared(part)
    gram = held_out.scatter(source, source, about=fitted)
    cross = torch.cat([held_out.scatter(source, target, about=fitted) for target in targets], 1)
    sse_of_mean = torch.cat([held_out.square_scatter(target, about=fitted) for target in targets])
    shape = (len(grid.l1_ratios), grid.relative.shape[-1], cross.shape[1])
    sse, converged = cross.new_zeros(shape), torch.zeros(shape, dtype=torch.bool, device=cross.device)
    for step, ratio, outputs, solution in _walk(problem, grid, max_iter, tol):
        weight = solution.weight
        explained = (weight * (2 * cross[:, outputs] - gram @ weight)).sum(0)
        sse[ratio, step, outputs] = sse_of_mean[outputs] - explained
        converged[ratio, step, outputs] = solution.converged
    scores: dict[Scoring, list[Tensor]] = {name: [] for name in SCORINGS}
    for target, errors in zip(targets, sse.split(problem.widths, -1), strict=True):
        raw = errors * prepared.output_scale(target).square()
        truth, square_sum = part.square_scatter(target), part.square_sums[target]
        scores["uniform"].append(r2_per_dimension(raw, truth, square_sum).mean(-1))
        scores["variance_weighted"].append(r2_variance_weighted(raw, truth, square_sum))
    return _SplitScores(scores, [(~each).sum(-1) for each in converged.split(problem.widths, -1)])


# Columns whose path is walked at once, which bounds the memory: 8 bytes * d_in each, about ten times.
_COLUMNS = 8192


def _walk(
    problem: _Problem, grid: _Grid, max_iter: int, tol: float
) -> Iterator[tuple[int, Int[Tensor, "column"], Int[Tensor, "column"], Solution]]:
    """Solve every output with every penalty: (place of alpha, l1_ratios and outputs of the columns, solution)."""
    n_outputs, device = problem.cross.shape[1], problem.cross.device
    widths = torch.tensor(problem.widths, device=device)
    target_of = torch.arange(len(widths), device=device).repeat_interleave(widths)
    for columns in torch.arange(n_outputs * len(grid.l1_ratios), device=device).split(_COLUMNS):
        ratio, outputs = columns // n_outputs, columns % n_outputs
        start = None
        for step in grid.descending:
            alpha = grid.absolute[target_of[outputs], ratio, step]
            solution = problem.solve(alpha, grid.l1_ratios[ratio], outputs, start, max_iter, tol)
            start = solution.weight
            yield step, ratio, outputs, solution
