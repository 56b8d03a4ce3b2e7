"""Affine maps between hook points, solved from moments: cross-validated ridge for all alphas at once, and OLS.

One eigendecomposition per source and training set serves every target and every alpha (docs/methods.md).
S and H are scatter matrices (sums over rows, not means) of the training rows about their means and of the held-out rows
about the *training* means, so that alpha is scikit-learn's.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from src.activations.moments import Moments
from src.activations.products import Precision, add_product, exact_products
from src.activations.statistics import Statistics
from src.errors import StrataError
from src.hook_points import HookPoint
from src.transport.metrics import CONSTANT_TOLERANCE, constant_dimensions

Scoring = Literal["uniform", "variance_weighted"]
SCORINGS: tuple[Scoring, ...] = ("uniform", "variance_weighted")

# Eigenvalues of the correlation matrix below this share of the largest are rounding noise of the products.
_EIGENVALUE_FLOOR: Mapping[Precision, float] = {"float64": 1e-11, "float32": 1e-5}


@dataclass(frozen=True)
class AffineFit:
    """y = x @ weight + bias, float64.

    alpha: the ridge penalty as scikit-learn counts it (added to the scatter matrix); 0 for least squares.
    relative_alpha: alpha in units of tr(Sxx) / d_in. rank: eigenvalues of the source that the fit used.
    """

    weight: Float[Tensor, "d_in d_out"]
    bias: Float[Tensor, "d_out"]
    alpha: float
    relative_alpha: float
    rank: int


@dataclass(frozen=True)
class RidgePath:
    """Held-out R2 for every alpha, and the fit with the best of them on all training rows.

    scores: for each scoring, [split, alpha]; R2 of a split is about the split's own mean, as scikit-learn's r2_score.
    """

    fit: AffineFit
    alphas: Float[Tensor, "alpha"]
    relative_alphas: Float[Tensor, "alpha"]
    scores: Mapping[Scoring, Float[Tensor, "split alpha"]]
    scoring: Scoring
    best: int

    @property
    def mean_scores(self) -> Float[Tensor, "alpha"]:
        """Mean over splits of the chosen scoring: what `best` maximises (GridSearchCV's mean_test_score)."""
        return self.scores[self.scoring].mean(0)

    @property
    def at_edge(self) -> bool:
        """Whether the best alpha is the smallest or largest of several: the grid should be widened."""
        best = self.alphas[self.best]
        return len(self.alphas) > 1 and bool((best == self.alphas.min()) | (best == self.alphas.max()))


def fit_ridge_path(
    moments: Moments,
    source: HookPoint,
    targets: Sequence[HookPoint],
    folds: Sequence[int],
    alphas: Sequence[float],
    relative: bool = True,
    scoring: Scoring = "uniform",
) -> dict[HookPoint, RidgePath]:
    """Choose alpha by held-out R2 for each target of a source, and fit on all rows of `folds` with it.

    folds: the groups to train on. Each is held out in turn, and the splits' R2 are averaged without weights
        (GridSearchCV with PredefinedSplit).
    alphas: if relative, in units of tr(Sxx) / d_in over all folds (the same absolute alpha for every split); else
        scikit-learn's alpha.
    moments: need the pairs (source, source) and (source, target); held in float32 they are also rotated in float32.

    Raises StrataError if a split lacks rows, or the source is constant while alphas are relative.
    """
    folds = _distinct(folds)
    total = moments.subset(folds)
    grid = _Alphas.of(total, source, alphas, relative)
    if len(folds) < 2:
        raise StrataError("cross-validation needs at least 2 folds: set cv_folds to 2 or more, or auto_tune=false")
    held_out = [moments.subset([fold]) for fold in folds]
    splits = [(total - part, part) for part in held_out]
    if any(part.n < 2 for _, part in splits):
        raise StrataError("R2 needs at least 2 rows in each held-out group: use fewer folds, or more sequences")
    with exact_products():
        bases = [_EigenBasis.of(train, part, source, moments.precision) for train, part in splits]
        ridge = _Ridge(total, source)
        paths = {}
        for target in targets:
            by_split = [basis.r2(source, target, grid.absolute) for basis in bases]
            scores: dict[Scoring, Tensor] = {
                name: torch.stack([r2[i] for r2 in by_split]) for i, name in enumerate(SCORINGS)
            }
            best = int(scores[scoring].mean(0).argmax())
            fit = ridge.fit(target, grid, best)
            paths[target] = RidgePath(fit, grid.absolute, grid.relative, scores, scoring, best)
    return paths


def fit_ridge(
    moments: Moments,
    source: HookPoint,
    targets: Sequence[HookPoint],
    groups: Sequence[int],
    alpha: float,
    relative: bool = True,
) -> dict[HookPoint, AffineFit]:
    """Ridge with one given alpha (in the units of `fit_ridge_path`) on all rows of the groups; no scores."""
    total = moments.subset(_distinct(groups))
    grid = _Alphas.of(total, source, [alpha], relative)
    with exact_products():
        ridge = _Ridge(total, source)
        return {target: ridge.fit(target, grid, 0) for target in targets}


def fit_least_squares(
    moments: Moments,
    source: HookPoint,
    targets: Sequence[HookPoint],
    groups: Sequence[int],
) -> dict[HookPoint, AffineFit]:
    """Ordinary least squares by the pseudo-inverse of the source's correlation matrix.

    Eigenvalues below a share of the largest count as zero (1e-11, or 1e-5 for float32 moments). The
    correlation matrix makes that floor independent of the units of single dimensions; where the source is of full rank
    the result is scikit-learn's LinearRegression, else the solution of least norm in standardised coordinates.
    """
    total = moments.subset(_distinct(groups))
    scatter = total.scatter(source, source)
    scale = torch.where(_require_variation(total, source), total.square_scatter(source).rsqrt(), 0)
    with exact_products():
        values, vectors = _eigh(scatter * scale * scale[:, None])
        used = values > _EIGENVALUE_FLOOR[moments.precision] * values.max()
        vectors = vectors[:, used] * scale[:, None]
        fits = {}
        for target in targets:
            rotated = vectors.T @ total.scatter(source, target)
            weight = vectors @ (rotated / values[used][:, None])
            fits[target] = AffineFit(weight, _bias(total, source, target, weight), 0.0, 0.0, int(used.sum()))
    return fits


def _distinct(groups: Sequence[int]) -> list[int]:
    if len(set(groups)) != len(groups):
        raise StrataError(f"groups {list(groups)} are not distinct")
    return list(groups)


@dataclass(frozen=True)
class _Alphas:
    """Alphas as scikit-learn counts them, and in units of tr(Sxx) / d_in; those that were given are kept exactly."""

    absolute: Float[Tensor, "alpha"]
    relative: Float[Tensor, "alpha"]

    @classmethod
    def of(cls, total: Statistics, source: HookPoint, alphas: Sequence[float], relative: bool) -> "_Alphas":
        grid = torch.tensor([float(alpha) for alpha in alphas], dtype=torch.float64, device=total.sums[source].device)
        if len(grid) == 0 or not bool(((grid > 0) & grid.isfinite()).all()):
            raise StrataError(f"ridge needs alphas above 0, got {list(alphas)}: use method=linear for no penalty")
        if relative:
            _require_variation(total, source)
        unit = total.square_scatter(source).mean()
        if not bool((grid * unit).isfinite().all()):
            raise StrataError(
                f"alphas of {list(alphas)} in units of {float(unit):.3g} are beyond all numbers: lower them"
            )
        return cls(grid * unit, grid) if relative else cls(grid, torch.where(unit > 0, grid / unit, float("nan")))


def _require_variation(total: Statistics, source: HookPoint) -> Bool[Tensor, "d"]:
    """Which dimensions of the source vary. Raises StrataError if none does."""
    varying = ~constant_dimensions(total.square_scatter(source), total.square_sums[source])
    if not varying.any():
        raise StrataError(f"{source} is the same in all {total.n} rows: check how it was collected, or leave it out")
    return varying


def _eigh(matrix: Float[Tensor, "d d"]) -> tuple[Float[Tensor, "d"], Float[Tensor, "d d"]]:
    values, vectors = torch.linalg.eigh(matrix)
    # a scatter matrix has no negative eigenvalues but by rounding
    return values.clamp(min=0), vectors


class _Ridge:
    """(Sxx + alpha I)^-1 Sxy for the targets of one source; those with an equal alpha share one factorisation."""

    def __init__(self, total: Statistics, source: HookPoint) -> None:
        self.total, self.source = total, source
        self.scatter = total.scatter(source, source)
        self._factors: dict[float, Tensor] = {}

    def fit(self, target: HookPoint, alphas: _Alphas, chosen: int) -> AffineFit:
        alpha, relative = float(alphas.absolute[chosen]), float(alphas.relative[chosen])
        if alpha not in self._factors:
            penalised = self.scatter.clone()
            penalised.diagonal().add_(alpha)
            factor, failed = torch.linalg.cholesky_ex(penalised)
            if failed:
                # alpha is lost in the rounding of a singular scatter matrix: take a root of it that is exact in alpha
                values, vectors = _eigh(self.scatter)
                factor = torch.linalg.qr((values + alpha).sqrt()[:, None] * vectors.T, mode="r").R.T
            self._factors[alpha] = factor
        weight = torch.cholesky_solve(self.total.scatter(self.source, target), self._factors[alpha])
        bias = _bias(self.total, self.source, target, weight)
        return AffineFit(weight, bias, alpha, relative, len(weight))


def _bias(
    total: Statistics, source: HookPoint, target: HookPoint, weight: Float[Tensor, "d_in d_out"]
) -> Float[Tensor, "d_out"]:
    return total.mean(target) - total.mean(source) @ weight


@dataclass(frozen=True)
class _EigenBasis:
    """One split of one source: S = V diag(values) V' of the training rows, and M = V'HV of the held-out rows."""

    train: Statistics
    held_out: Statistics
    values: Float[Tensor, "d"]
    vectors: Float[Tensor, "d d"]
    held_out_gram: Float[Tensor, "d d"]
    work: torch.dtype

    @classmethod
    def of(cls, train: Statistics, held_out: Statistics, source: HookPoint, precision: Precision) -> "_EigenBasis":
        work = torch.float64 if precision == "float64" else torch.float32
        values, vectors = _eigh(train.scatter(source, source))
        rotation = vectors.to(work)
        gram = rotation.T @ held_out.scatter(source, source, about=train).to(work) @ rotation
        return cls(train, held_out, values, vectors, gram.double(), work)

    def r2(
        self, source: HookPoint, target: HookPoint, alphas: Float[Tensor, "alpha"]
    ) -> tuple[Float[Tensor, "alpha"], Float[Tensor, "alpha"]]:
        """R2 on the held-out rows for every alpha: uniform mean over output dimensions, and variance-weighted.

        With D_i = 1 / (values_i + alpha), Q = V'Sxy, N = V'Hxy and weights w_j of the output dimensions,
        sum_j w_j SSE_j = sum_j w_j Hyy_j - 2 D'r + D'(M o (Q diag(w) Q'))D, r_i = sum_j w_j Q_ij N_ij. Dimensions that
        do not vary among the held-out rows count by scikit-learn's convention (see `metrics.r2_per_dimension`).
        """
        rotation = self.vectors.to(self.work)
        q = rotation.T @ self.train.scatter(source, target).to(self.work)
        n = rotation.T @ self.held_out.scatter(source, target, about=self.train).to(self.work)
        sst = self.held_out.square_scatter(target)
        sse_of_mean = self.held_out.square_scatter(target, about=self.train)
        square_sum = self.held_out.square_sums[target]
        constant = constant_dimensions(sst, square_sum)
        varying = ~constant
        shrinkage = 1 / (self.values + alphas[:, None])

        def weighted_sse(weight: Float[Tensor, "d_out"]) -> Float[Tensor, "alpha"]:
            scaled = q * weight.sqrt().to(self.work)
            gram = torch.zeros(len(q), len(q), dtype=self.work, device=q.device)
            columns = scaled.T
            add_product(gram, columns, columns)
            linear = ((q * n) @ weight.to(self.work)).double()
            quadratic = (shrinkage @ (self.held_out_gram * gram) * shrinkage).sum(1)
            return weight @ sse_of_mean - 2 * shrinkage @ linear + quadratic

        uniform = varying.sum() - weighted_sse(torch.where(varying, 1 / sst, 0))
        variance_weighted = 1 - weighted_sse(varying / sst[varying].sum()) if varying.any() else None
        if constant.any():
            q, n, sse_of_mean, tolerance = (x[..., constant].double() for x in (q, n, sse_of_mean, square_sum))
            fitted = shrinkage[:, :, None] * q
            sse = sse_of_mean + (fitted * (self.held_out_gram @ fitted - 2 * n)).sum(1)
            uniform = uniform + (sse <= CONSTANT_TOLERANCE * tolerance).sum(1)
        uniform = uniform / len(sst)
        return uniform, uniform if variance_weighted is None else variance_weighted
