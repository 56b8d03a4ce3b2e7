"""Affine maps between hook points, solved from moments: cross-validated ridge for all alphas at once, and OLS.

One eigendecomposition per source and training set serves every target and every alpha (docs/methods.md).
S and H are scatter matrices (sums over rows, not means) of the training rows about their means and of the held-out rows
about the *training* means, so that alpha is scikit-learn's.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from src.activations.moments import Moments
from src.activations.products import Precision, add_product, exact_products
from src.activations.statistics import Statistics
from src.hook_points import HookPoint
from src.transport.affine import (
    SCORINGS,
    AffineFit,
    OutputChoice,
    RegularizationPath,
    Scoring,
    bias_of,
    cross_validation,
    distinct,
    in_absolute_units,
    penalties,
    require_variation,
)
from src.transport.metrics import CONSTANT_TOLERANCE, constant_dimensions, r2_per_dimension, r2_variance_weighted
from src.transport.preprocessing import RAW, Prepared, Preprocessing

# Eigenvalues of the correlation matrix below this share of the largest are rounding noise of the products.
_EIGENVALUE_FLOOR: Mapping[Precision, float] = {"float64": 1e-11, "float32": 1e-5}


def fit_ridge_path(
    moments: Moments,
    source: HookPoint,
    targets: Sequence[HookPoint],
    folds: Sequence[int],
    alphas: Sequence[float],
    relative: bool = True,
    scoring: Scoring = "uniform",
    preprocessing: Preprocessing = RAW,
    per_output: bool = False,
) -> dict[HookPoint, RegularizationPath]:
    """Choose alpha by held-out R2 for each target of a source, and fit on all rows of `folds` with it.

    folds: the groups to train on. Each is held out in turn, and the splits' R2 are averaged without weights
        (GridSearchCV with PredefinedSplit).
    alphas: if relative, in units of tr(Sxx) / d_in over all folds (the same absolute alpha for every split); else
        scikit-learn's alpha. Sxx is that of the standardised source where `preprocessing` standardises.
    moments: need the pairs (source, source) and (source, target); held in float32 they are also rotated in float32.
    preprocessing: decided anew by the training rows of each split. Scores are those of raw y.
    per_output: give each output dimension the alpha with its own best R2 (GridSearchCV on that output alone).

    Raises StrataError if a split lacks rows, or the source is constant while alphas are relative.
    """
    total = moments.subset(distinct(folds))
    whole = preprocessing.of(total, source, targets)
    grid = RidgeAlphas.of(whole(total), source, alphas, relative)
    splits = cross_validation(moments, folds)
    with exact_products():
        bases = [
            _EigenBasis.of(preprocessing.of(train, source, targets), part, moments.precision) for train, part in splits
        ]
        ridge = _Ridge(whole)
        paths = {}
        for target in targets:
            by_split = [basis.r2(target, grid.absolute) for basis in bases]
            scores: dict[Scoring, Tensor] = {
                name: torch.stack([r2[i] for r2 in by_split]) for i, name in enumerate(SCORINGS)
            }
            best = int(scores[scoring].mean(0).argmax())
            choice = _choose_per_output(bases, target, grid.absolute, scoring) if per_output else None
            fit = ridge.fit(target, grid, best) if choice is None else ridge.fit_per_output(target, grid, choice.best)
            paths[target] = RegularizationPath(
                fit, grid.absolute, grid.relative, scores, scoring, best, per_output=choice
            )
    return paths


def fit_ridge(
    moments: Moments,
    source: HookPoint,
    targets: Sequence[HookPoint],
    groups: Sequence[int],
    alpha: float,
    relative: bool = True,
    preprocessing: Preprocessing = RAW,
) -> dict[HookPoint, AffineFit]:
    """Ridge with one given alpha (in the units of `fit_ridge_path`) on all rows of the groups; no scores."""
    total = moments.subset(distinct(groups))
    prepared = preprocessing.of(total, source, targets)
    grid = RidgeAlphas.of(prepared(total), source, [alpha], relative)
    with exact_products():
        ridge = _Ridge(prepared)
        return {target: ridge.fit(target, grid, 0) for target in targets}


def fit_least_squares(
    moments: Moments,
    source: HookPoint,
    targets: Sequence[HookPoint],
    groups: Sequence[int],
    preprocessing: Preprocessing = RAW,
) -> dict[HookPoint, AffineFit]:
    """Ordinary least squares by the pseudo-inverse of the source's correlation matrix.

    Eigenvalues below a share of the largest count as zero (1e-11, or 1e-5 for float32 moments). The
    correlation matrix makes that floor independent of the units of single dimensions; where the source is of full rank
    the result is scikit-learn's LinearRegression, else the solution of least norm in standardised coordinates.
    """
    prepared = preprocessing.of(moments.subset(distinct(groups)), source, targets)
    total = prepared(prepared.train)
    scatter = total.scatter(source, source)
    scale = torch.where(require_variation(total, source), total.square_scatter(source).rsqrt(), 0)
    with exact_products():
        values, vectors = _eigh(scatter * scale * scale[:, None])
        used = values > _EIGENVALUE_FLOOR[moments.precision] * values.max()
        vectors = vectors[:, used] * scale[:, None]
        fits = {}
        for target in targets:
            rotated = vectors.T @ total.scatter(source, target)
            weight = vectors @ (rotated / values[used][:, None])
            fit = AffineFit(weight, bias_of(total, source, target, weight), 0.0, 0.0, int(used.sum()))
            fits[target] = prepared.restore(fit, target)
    return fits


@dataclass(frozen=True)
class RidgeAlphas:
    """Alphas as scikit-learn counts them, and in units of tr(Sxx) / d_in; those that were given are kept exactly."""

    absolute: Float[Tensor, "alpha"]
    relative: Float[Tensor, "alpha"]

    @classmethod
    def of(cls, total: Statistics, source: HookPoint, alphas: Sequence[float], relative: bool) -> "RidgeAlphas":
        """In both units. Raises StrataError if an alpha is not above 0, or they are relative and nothing varies."""
        grid = penalties(alphas, "ridge", total.sums[source].device)
        if relative:
            require_variation(total, source)
        unit = total.square_scatter(source).mean()
        if relative:
            return cls(in_absolute_units(grid, unit), grid)
        return cls(grid, torch.where(unit > 0, grid / unit, float("nan")))


def _eigh(matrix: Float[Tensor, "d d"]) -> tuple[Float[Tensor, "d"], Float[Tensor, "d d"]]:
    values, vectors = torch.linalg.eigh(matrix)
    # a scatter matrix has no negative eigenvalues but by rounding
    return values.clamp(min=0), vectors


class _Ridge:
    """(Sxx + alpha I)^-1 Sxy for the targets of one source; those with an equal alpha share one factorisation."""

    def __init__(self, prepared: Prepared) -> None:
        self.prepared, self.source = prepared, prepared.source
        self.total = prepared(prepared.train)
        self.scatter = self.total.scatter(self.source, self.source)
        self._factors: dict[float, Tensor] = {}

    def fit(self, target: HookPoint, alphas: RidgeAlphas, chosen: int) -> AffineFit:
        alpha, relative = float(alphas.absolute[chosen]), float(alphas.relative[chosen])
        weight = self._solve(self.total.scatter(self.source, target), alpha)
        return self._fit(target, weight, alpha, relative)

    def fit_per_output(self, target: HookPoint, alphas: RidgeAlphas, chosen: Int[Tensor, "d_out"]) -> AffineFit:
        cross = self.total.scatter(self.source, target)
        weight = torch.empty_like(cross)
        for place in chosen.unique().tolist():
            outputs = chosen == place
            weight[:, outputs] = self._solve(cross[:, outputs], float(alphas.absolute[place]))
        fit = self._fit(target, weight, None, None)
        return replace(fit, details={"output_alphas": alphas.absolute[chosen].tolist()})

    def _solve(self, cross: Float[Tensor, "d_in output"], alpha: float) -> Float[Tensor, "d_in output"]:
        if alpha not in self._factors:
            penalised = self.scatter.clone()
            penalised.diagonal().add_(alpha)
            factor, failed = torch.linalg.cholesky_ex(penalised)
            if failed:
                # alpha is lost in the rounding of a singular scatter matrix: take a root of it that is exact in alpha
                values, vectors = _eigh(self.scatter)
                factor = torch.linalg.qr((values + alpha).sqrt()[:, None] * vectors.T, mode="r").R.T
            self._factors[alpha] = factor
        return torch.cholesky_solve(cross, self._factors[alpha])

    def _fit(self, target: HookPoint, weight: Tensor, alpha: float | None, relative: float | None) -> AffineFit:
        bias = bias_of(self.total, self.source, target, weight)
        return self.prepared.restore(AffineFit(weight, bias, alpha, relative, len(weight)), target)


@dataclass(frozen=True)
class _EigenBasis:
    """One split of one source: S = V diag(values) V' of the training rows, and M = V'HV of the held-out rows.

    S and H are those of the prepared variables; truth holds the raw held-out rows.
    """

    prepared: Prepared
    train: Statistics
    held_out: Statistics
    truth: Statistics
    values: Float[Tensor, "d"]
    vectors: Float[Tensor, "d d"]
    held_out_gram: Float[Tensor, "d d"]
    work: torch.dtype

    @classmethod
    def of(cls, prepared: Prepared, truth: Statistics, precision: Precision) -> "_EigenBasis":
        work = torch.float64 if precision == "float64" else torch.float32
        train, held_out, source = prepared(prepared.train), prepared(truth), prepared.source
        values, vectors = _eigh(train.scatter(source, source))
        rotation = vectors.to(work)
        gram = rotation.T @ held_out.scatter(source, source, about=train).to(work) @ rotation
        return cls(prepared, train, held_out, truth, values, vectors, gram.double(), work)

    def _rotated(self, target: HookPoint) -> tuple[Float[Tensor, "d d_out"], Float[Tensor, "d d_out"]]:
        """V'Sxy of the training rows and V'Hxy of the held-out rows."""
        rotation, source = self.vectors.to(self.work), self.prepared.source
        q = rotation.T @ self.train.scatter(source, target).to(self.work)
        return q, rotation.T @ self.held_out.scatter(source, target, about=self.train).to(self.work)

    def r2(
        self, target: HookPoint, alphas: Float[Tensor, "alpha"]
    ) -> tuple[Float[Tensor, "alpha"], Float[Tensor, "alpha"]]:
        """R2 on the held-out rows for every alpha: uniform mean over output dimensions, and variance-weighted.

        With D_i = 1 / (values_i + alpha), Q = V'Sxy, N = V'Hxy and weights w_j of the output dimensions,
        sum_j w_j SSE_j = sum_j w_j Hyy_j - 2 D'r + D'(M o (Q diag(w) Q'))D, r_i = sum_j w_j Q_ij N_ij. Dimensions that
        do not vary among the held-out rows count by scikit-learn's convention (see `metrics.r2_per_dimension`).
        """
        q, n = self._rotated(target)
        sst, square_sum = self.truth.square_scatter(target), self.truth.square_sums[target]
        sse_of_mean = self.held_out.square_scatter(target, about=self.train)
        unit = self.prepared.output_scale(target).square()
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

        uniform = varying.sum() - weighted_sse(torch.where(varying, unit / sst, 0))
        variance_weighted = 1 - weighted_sse(varying * unit / sst[varying].sum()) if varying.any() else None
        if constant.any():
            rotated, held_out, of_mean = (x[..., constant].double() for x in (q, n, sse_of_mean))
            sse = unit[constant] * self._sse(rotated, held_out, of_mean, alphas)
            uniform = uniform + (sse <= CONSTANT_TOLERANCE * square_sum[constant]).sum(1)
        uniform = uniform / len(sst)
        return uniform, uniform if variance_weighted is None else variance_weighted

    def sse_per_output(self, target: HookPoint, alphas: Float[Tensor, "alpha"]) -> Float[Tensor, "alpha d_out"]:
        """The squared error of raw y on the held-out rows, for every alpha and output dimension."""
        q, n = (x.double() for x in self._rotated(target))
        sse = self._sse(q, n, self.held_out.square_scatter(target, about=self.train), alphas)
        return sse * self.prepared.output_scale(target).square()

    def _sse(self, q: Tensor, n: Tensor, sse_of_mean: Tensor, alphas: Tensor) -> Float[Tensor, "alpha output"]:
        errors = []
        for alpha in alphas:
            fitted = q / (self.values + alpha)[:, None]
            errors.append(sse_of_mean + (fitted * (self.held_out_gram @ fitted - 2 * n)).sum(0))
        return torch.stack(errors)


def _choose_per_output(
    bases: Sequence[_EigenBasis], target: HookPoint, alphas: Float[Tensor, "alpha"], scoring: Scoring
) -> OutputChoice:
    """For each output the alpha with its best mean R2 over splits, and the mean score of all outputs with theirs."""
    errors = [basis.sse_per_output(target, alphas) for basis in bases]
    truths = [(basis.truth.square_scatter(target), basis.truth.square_sums[target]) for basis in bases]
    r2 = [r2_per_dimension(sse, *truth) for sse, truth in zip(errors, truths, strict=True)]
    best = torch.stack(r2).mean(0).argmax(0)
    if scoring == "uniform":
        scores = [each.gather(0, best[None]).mean() for each in r2]
    else:
        chosen = [sse.gather(0, best[None])[0] for sse in errors]
        scores = [r2_variance_weighted(sse, *truth) for sse, truth in zip(chosen, truths, strict=True)]
    return OutputChoice(best, float(torch.stack(scores).mean()))
