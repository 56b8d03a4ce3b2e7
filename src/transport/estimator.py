"""Ridge transport as a scikit-learn estimator for arrays in memory; the arithmetic is that of moments and solvers."""

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator, MultiOutputMixin, RegressorMixin
from sklearn.metrics import r2_score
from sklearn.model_selection import BaseCrossValidator, GroupKFold, KFold
from sklearn.utils.validation import check_is_fitted, validate_data

from src.activations.moments import Moments
from src.errors import StrataError
from src.hook_points import HookPoint
from src.transport.affine import SCORINGS, Scoring
from src.transport.solvers import fit_ridge_path

# Names for the two arrays, which have no layer.
_SOURCE, _TARGET = HookPoint("resid_pre", 0), HookPoint("resid_post", 0)


class RidgeTransport(MultiOutputMixin, RegressorMixin, BaseEstimator):
    """Ridge regression with an intercept whose alpha is chosen by cross-validated R2, for all alphas at once.

    alphas: grid, in units of tr(X_c'X_c) / n_features if relative, else as in sklearn.linear_model.Ridge.
    cv: number of folds (of groups, if `fit` gets any; else contiguous), or a splitter whose test sets partition the
        rows.
    scoring: "uniform" (mean R2 of the outputs) or "variance_weighted".

    After `fit`: coef_ and intercept_ (shaped as Ridge's), alpha_ (as in Ridge), cv_scores_ [fold, alpha], alphas_ (the
    grid as in Ridge), at_edge_ (whether alpha_ is an end of the grid).
    """

    def __init__(
        self,
        alphas: Sequence[float] = (1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0),
        relative: bool = True,
        cv: int | BaseCrossValidator = 5,
        scoring: Scoring = "uniform",
    ) -> None:
        self.alphas = alphas
        self.relative = relative
        self.cv = cv
        self.scoring: Scoring = scoring

    def fit(self, X: Any, y: Any, groups: Any = None) -> Self:
        """Fit on X [n_samples, n_features] and y [n_samples] or [n_samples, n_outputs].

        groups [n_samples]: rows with an equal group (a sequence) never stand on both sides of a split.
        Raises ValueError for unfit input, as scikit-learn's estimators do.
        """
        X, y = validate_data(
            self, X, y, multi_output=True, y_numeric=True, dtype=[np.float64, np.float32], ensure_min_samples=2
        )
        if self.scoring not in SCORINGS:
            raise ValueError(f"scoring={self.scoring!r}: choose one of {', '.join(SCORINGS)}")
        outputs = (y[:, None] if y.ndim == 1 else y).astype(np.float32 if y.dtype == np.float32 else np.float64)
        fold = self._fold_of_rows(X, y, groups)
        # torch warns of arrays that it must not write to, though nothing here does
        rows = {_SOURCE: torch.from_numpy(np.require(X, requirements="W")), _TARGET: torch.from_numpy(outputs)}
        try:
            moments = Moments.empty(
                [(_SOURCE, _SOURCE), (_SOURCE, _TARGET)], {h: x.shape[1] for h, x in rows.items()}, int(fold.max()) + 1
            )
            moments.update(rows, torch.from_numpy(fold))
            folds = range(moments.n_groups)
            path = fit_ridge_path(moments, _SOURCE, [_TARGET], folds, self.alphas, self.relative, self.scoring)[_TARGET]
        except StrataError as error:
            raise ValueError(str(error)) from error
        coef, intercept = path.fit.weight.T.numpy().copy(), path.fit.bias.numpy()
        self.coef_, self.intercept_ = (coef[0], intercept[0]) if y.ndim == 1 else (coef, intercept)
        self.alpha_, self.alphas_, self.at_edge_ = path.fit.alpha, path.alphas.numpy(), path.at_edge
        self.cv_scores_ = path.scores[self.scoring].numpy()
        return self

    def _fold_of_rows(self, X: np.ndarray, y: np.ndarray, groups: Any) -> np.ndarray:
        splitter: Any = self.cv
        if isinstance(splitter, int):
            splitter = KFold(splitter) if groups is None else GroupKFold(splitter)
        fold = np.full(len(X), -1, dtype=np.int64)
        times = np.zeros(len(X), dtype=np.int64)
        for index, (_, held_out) in enumerate(splitter.split(X, y, groups)):
            fold[held_out] = index
            times[held_out] += 1
        if (times != 1).any():
            raise ValueError("cv must hold out every row exactly once: use KFold, GroupKFold or PredefinedSplit")
        return fold

    def predict(self, X: Any) -> np.ndarray:
        """Predictions, shaped as the y of `fit`."""
        check_is_fitted(self)
        X = validate_data(self, X, reset=False, dtype=[np.float64, np.float32])
        return X @ self.coef_.T + self.intercept_

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """R2 of the predictions, averaged over outputs as `scoring` says."""
        average = "uniform_average" if self.scoring == "uniform" else self.scoring
        return float(r2_score(y, self.predict(X), sample_weight=sample_weight, multioutput=average))
