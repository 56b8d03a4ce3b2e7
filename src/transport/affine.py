"""What every solver returns, an affine fit or a path of them over penalties, and what all solvers ask of moments."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from src.activations.moments import Moments
from src.activations.statistics import Statistics
from src.errors import StrataError
from src.hook_points import HookPoint
from src.transport.metrics import constant_dimensions

Scoring = Literal["uniform", "variance_weighted"]
SCORINGS: tuple[Scoring, ...] = ("uniform", "variance_weighted")


@dataclass(frozen=True)
class AffineFit:
    """y = x @ weight + bias, float64.

    alpha: the penalty as scikit-learn's estimator of the method counts it (of the variables that were fitted: see
    `preprocessing`); 0 for least squares; None where a method has no penalty, or each output has its own.
    relative_alpha: the same in the method's relative unit. rank: dimensions of the source that the fit could use.
    details: what else the method tells of its fit, as JSON values that are kept with the operator.
    """

    weight: Float[Tensor, "d_in d_out"]
    bias: Float[Tensor, "d_out"]
    alpha: float | None
    relative_alpha: float | None
    rank: int
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class RegularizationPath:
    """Held-out R2 of every candidate penalty, and the fit with the best of them on all training rows.

    A candidate is an alpha, or an alpha with an l1_ratio or a rank. scores: for each scoring, [split, candidate]; R2 of
    a split is about the split's own mean, as scikit-learn's r2_score. best: the candidate with the highest mean score
    when all outputs share it. per_output: what was chosen where each output has its own candidate. unconverged: outputs
    of each split and candidate whose solver ran out of iterations (None: the solver is not iterative).
    """

    fit: AffineFit
    alphas: Float[Tensor, "candidate"]
    relative_alphas: Float[Tensor, "candidate"]
    scores: Mapping[Scoring, Float[Tensor, "split candidate"]]
    scoring: Scoring
    best: int
    l1_ratios: Float[Tensor, "candidate"] | None = None
    per_output: "OutputChoice | None" = None
    unconverged: Int[Tensor, "split candidate"] | None = None
    ranks: Int[Tensor, "candidate"] | None = None

    @property
    def mean_scores(self) -> Float[Tensor, "candidate"]:
        """Mean over splits of the chosen scoring: what `best` maximises (GridSearchCV's mean_test_score)."""
        return self.scores[self.scoring].mean(0)

    @property
    def best_score(self) -> float:
        """Mean over splits of the chosen scoring, for what was chosen."""
        return float(self.mean_scores[self.best]) if self.per_output is None else self.per_output.score

    @property
    def output_share(self) -> Float[Tensor, "candidate"]:
        """The share of the outputs that each candidate was chosen for."""
        chosen = torch.tensor([self.best]) if self.per_output is None else self.per_output.best.cpu()
        return chosen.bincount(minlength=len(self.alphas)).double() / len(chosen)

    @property
    def edge_share(self) -> float:
        """The share of the outputs whose alpha is the smallest or largest of several (of their l1_ratio)."""
        ends = torch.zeros(len(self.alphas), dtype=torch.bool)
        ratios = torch.ones_like(self.alphas) if self.l1_ratios is None else self.l1_ratios
        for ratio in ratios.unique():
            candidates = (ratios == ratio).nonzero()[:, 0].cpu()
            alphas = self.alphas.cpu()[candidates]
            if len(alphas) > 1:
                ends[candidates] = (alphas == alphas.min()) | (alphas == alphas.max())
        return float(self.output_share[ends].sum())

    @property
    def at_edge(self) -> bool:
        """Whether the alpha of most outputs is the smallest or largest of several: the grid should be widened."""
        return self.edge_share > 0.5


@dataclass(frozen=True)
class OutputChoice:
    """A candidate for each output, chosen by its own R2, and the cross-validated R2 of all with these candidates."""

    best: Int[Tensor, "d_out"]
    score: float


def cross_validation(moments: Moments, folds: Sequence[int]) -> list[tuple[Statistics, Statistics]]:
    """(training rows, held-out rows) for each fold held out in turn. Raises StrataError if a split lacks rows."""
    folds = distinct(folds)
    if len(folds) < 2:
        raise StrataError("cross-validation needs at least 2 folds: set cv_folds to 2 or more, or auto_tune=false")
    total = moments.subset(folds)
    held_out = [moments.subset([fold]) for fold in folds]
    splits = [(total - part, part) for part in held_out]
    if any(part.n < 2 for _, part in splits):
        raise StrataError("R2 needs at least 2 rows in each held-out group: use fewer folds, or more sequences")
    return splits


def distinct(groups: Sequence[int]) -> list[int]:
    """The groups as a list. Raises StrataError if one is there twice."""
    if len(set(groups)) != len(groups):
        raise StrataError(f"groups {list(groups)} are not distinct")
    return list(groups)


def require_variation(total: Statistics, source: HookPoint) -> Bool[Tensor, "d"]:
    """Which dimensions of the source vary. Raises StrataError if none does."""
    varying = ~constant_dimensions(total.square_scatter(source), total.square_sums[source])
    if not varying.any():
        raise StrataError(f"{source} is the same in all {total.n} rows: check how it was collected, or leave it out")
    return varying


def require_equal_widths(total: Statistics, source: HookPoint, target: HookPoint, what: str) -> int:
    """The width that source and target share. Raises StrataError if they differ; what: what needs equal widths."""
    d_in, d_out = len(total.sums[source]), len(total.sums[target])
    if d_in != d_out:
        raise StrataError(f"{what} needs equal widths, and {source} has {d_in} dimensions, {target} {d_out}")
    return d_in


def bias_of(
    total: Statistics, source: HookPoint, target: HookPoint, weight: Float[Tensor, "d_in d_out"]
) -> Float[Tensor, "d_out"]:
    """The bias with which the means of the rows are mapped onto each other."""
    return total.mean(target) - total.mean(source) @ weight


def penalties(alphas: Sequence[float], method: str, device: torch.device) -> Float[Tensor, "alpha"]:
    """Alphas as a tensor. Raises StrataError if there are none, or one is not above 0."""
    grid = torch.tensor([float(alpha) for alpha in alphas], dtype=torch.float64, device=device)
    if len(grid) == 0 or not bool(((grid > 0) & grid.isfinite()).all()):
        raise StrataError(f"{method} needs alphas above 0, got {list(alphas)}: use method=linear for no penalty")
    return grid


def in_absolute_units(relative: Float[Tensor, "*alpha"], unit: Float[Tensor, "*alpha"]) -> Float[Tensor, "*alpha"]:
    """Relative penalties as scikit-learn counts them. Raises StrataError if one is beyond all numbers."""
    absolute = relative * unit
    if not bool(absolute.isfinite().all()):
        alpha = f"{float(relative.max()):.3g} in units of {float(unit.max()):.3g}"
        raise StrataError(f"an alpha of {alpha} is beyond all numbers: lower it")
    return absolute
