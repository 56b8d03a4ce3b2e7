"""Fit the operators of many pairs of layers from moments: one eigendecomposition per source serves all its targets."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Literal

import torch

from src.activations.moments import Moments
from src.transport.closed_form import ClosedFormScore, score_affine, score_identity
from src.transport.operator import TransportOperator
from src.transport.pairs import LayerPair
from src.transport.affine import AffineFit, RegularizationPath as RidgePath
from src.transport.solvers import fit_least_squares, fit_ridge, fit_ridge_path


@dataclass(frozen=True)
class RidgeSettings:
    """How alpha is chosen: by cross-validation over `alphas`, or given; in relative or absolute units."""

    auto_tune: bool
    alphas: tuple[float, ...]
    regularization: float
    relative: bool
    scoring: Literal["uniform", "variance_weighted"]

    def identity(self) -> dict[str, Any]:
        """What decides the fit, for the fingerprint of an artifact: no setting that is not used."""
        used = {"alphas": list(self.alphas), "scoring": self.scoring}
        return {"relative": self.relative, **(used if self.auto_tune else {"regularization": self.regularization})}


@dataclass(frozen=True)
class PairFit:
    """A fitted operator, its path over alphas (None if nothing was tuned), and held-out scores on the val group.

    identity: the score of predicting y = x; shift: of y = x + mean(y - x) over the training rows.
    """

    pair: LayerPair
    operator: TransportOperator
    path: RidgePath | None
    val: ClosedFormScore
    identity: ClosedFormScore
    shift: ClosedFormScore


def fit_pairs(
    moments: Moments,
    pairs: Sequence[LayerPair],
    hook: str,
    train: Sequence[int],
    val: int,
    settings: RidgeSettings | None,
) -> list[PairFit]:
    """Fit all pairs on the groups of train; settings: None = ordinary least squares.

    Raises StrataError when the moments lack a pair, or a group has no rows.
    """
    fits: list[PairFit] = []
    for source_layer, of_source in groupby(sorted(pairs), key=lambda pair: pair.L):
        targets = {pair.target(hook): pair for pair in of_source}
        source = next(iter(targets.values())).source(hook)
        assert source.layer == source_layer
        paths: dict = {}
        if settings is None:
            affine = fit_least_squares(moments, source, list(targets), train)
        elif settings.auto_tune:
            paths = fit_ridge_path(
                moments, source, list(targets), train, settings.alphas, settings.relative, settings.scoring
            )
            affine = {target: path.fit for target, path in paths.items()}
        else:
            affine = fit_ridge(moments, source, list(targets), train, settings.regularization, settings.relative)
        method = "linear" if settings is None else "ridge"
        for target, pair in targets.items():
            fits.append(_pair_fit(moments, pair, hook, train, val, affine[target], paths.get(target), method))
    return fits


def _pair_fit(
    moments: Moments,
    pair: LayerPair,
    hook: str,
    train: Sequence[int],
    val: int,
    fit: AffineFit,
    path: RidgePath | None,
    method: str,
) -> PairFit:
    source, target = pair.source(hook), pair.target(hook)
    training, held_out = moments.subset(train), moments.subset([val])
    mean_source, mean_target = training.mean(source), training.mean(target)
    operator = TransportOperator(
        weight=fit.weight,
        bias=fit.bias,
        source=source,
        target=target,
        method=method,
        alpha=fit.alpha,
        metadata={
            "relative_alpha": fit.relative_alpha,
            "rank": fit.rank,
            "n_train_rows": training.n,
        },
    )
    return PairFit(
        pair=pair,
        operator=operator,
        path=path,
        val=score_affine(held_out, source, target, fit.weight, fit.bias),
        identity=score_identity(held_out, source, target, shifted_by=torch.zeros_like(mean_target)),
        shift=score_identity(held_out, source, target, shifted_by=mean_target - mean_source),
    )
