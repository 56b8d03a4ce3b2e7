"""Fit the operators of many pairs of layers from moments, by any method: what a source needs serves all its targets."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import torch

from src.activations.moments import Moments
from src.config.stages import Method
from src.hook_points import HookPoint
from src.transport.affine import AffineFit, RegularizationPath
from src.transport.baselines import Baseline, fit_baseline
from src.transport.closed_form import ClosedFormScore, score_affine, score_identity
from src.transport.elastic_net import fit_elastic_net, fit_elastic_net_path
from src.transport.operator import TransportOperator
from src.transport.orthogonal import fit_procrustes
from src.transport.pairs import LayerPair
from src.transport.preprocessing import Preprocessing
from src.transport.settings import FitSettings
from src.transport.solvers import fit_least_squares, fit_ridge, fit_ridge_path

_Fits = Mapping[HookPoint, AffineFit] | Mapping[HookPoint, RegularizationPath]
_Fitter = Callable[[Moments, HookPoint, Sequence[HookPoint], Sequence[int], FitSettings], _Fits]


@dataclass(frozen=True)
class PairFit:
    """A fitted operator, its path over alphas (None if nothing was tuned), and held-out scores on the val group.

    identity: the score of predicting y = x; shift: of y = x + mean(y - x) over the training rows.
    """

    pair: LayerPair
    operator: TransportOperator
    path: RegularizationPath | None
    val: ClosedFormScore
    identity: ClosedFormScore
    shift: ClosedFormScore


def fit_pairs(
    moments: Moments,
    pairs: Sequence[LayerPair],
    hook: str,
    train: Sequence[int],
    val: int,
    settings: FitSettings,
    advance: Callable[[int], None] = lambda _: None,
) -> list[PairFit]:
    """Fit all pairs on the groups of train, by a method that needs moments alone (any but jacobian).

    advance: is told the number of pairs done.

    Raises StrataError when the moments lack a pair, or a group has no rows.
    """
    fits: list[PairFit] = []
    for _, of_source in groupby(sorted(pairs), key=lambda pair: pair.L):
        targets = {pair.target(hook): pair for pair in of_source}
        source = next(iter(targets.values())).source(hook)
        fitted = _FITTERS[settings.method](moments, source, list(targets), train, settings)
        for target, pair in targets.items():
            found = fitted[target]
            path = found if isinstance(found, RegularizationPath) else None
            fit = found.fit if isinstance(found, RegularizationPath) else found
            fits.append(pair_fit(moments, pair, hook, train, val, fit, path, settings.method))
        advance(len(targets))
    return fits


def _linear(
    moments: Moments, source: HookPoint, targets: Sequence[HookPoint], train: Sequence[int], settings: FitSettings
) -> _Fits:
    return fit_least_squares(moments, source, targets, train, Preprocessing(target=settings.target))


def _ridge(
    moments: Moments, source: HookPoint, targets: Sequence[HookPoint], train: Sequence[int], settings: FitSettings
) -> _Fits:
    relative, preprocessing = settings.relative, settings.preprocessing
    if not settings.auto_tune:
        return fit_ridge(moments, source, targets, train, settings.penalty, relative, preprocessing)
    how = (settings.grid, relative, settings.scoring, preprocessing, settings.alpha_per_output)
    return fit_ridge_path(moments, source, targets, train, *how)


def _elastic_net(lasso: bool) -> _Fitter:
    def fit(
        moments: Moments, source: HookPoint, targets: Sequence[HookPoint], train: Sequence[int], settings: FitSettings
    ) -> _Fits:
        how = (settings.preprocessing, settings.max_iter, settings.tol)
        if settings.auto_tune:
            grid = (settings.grid, (1.0,) if lasso else settings.l1_ratios, settings.relative, settings.scoring)
            return fit_elastic_net_path(moments, source, targets, train, *grid, *how)
        penalty = (settings.penalty, 1.0 if lasso else settings.l1_ratio, settings.relative)
        return fit_elastic_net(moments, source, targets, train, *penalty, *how)

    return fit


def _procrustes(scaled: bool) -> _Fitter:
    return lambda moments, source, targets, train, _: fit_procrustes(moments, source, targets, train, scaled=scaled)


def _baseline(name: Baseline) -> _Fitter:
    return lambda moments, source, targets, train, _: fit_baseline(moments, source, targets, train, name)


_FITTERS: Mapping[Method, _Fitter] = {
    "linear": _linear,
    "ridge": _ridge,
    "lasso": _elastic_net(lasso=True),
    "elasticnet": _elastic_net(lasso=False),
    "procrustes": _procrustes(scaled=False),
    "procrustes_scaled": _procrustes(scaled=True),
    "identity": _baseline("identity"),
    "identity_shift": _baseline("identity_shift"),
    "mean": _baseline("mean"),
}


def pair_fit(
    moments: Moments,
    pair: LayerPair,
    hook: str,
    train: Sequence[int],
    val: int,
    fit: AffineFit,
    path: RegularizationPath | None,
    method: Method,
) -> PairFit:
    """The operator of a fit, however it was found, with its scores on the val group and those of the baselines.

    Raises StrataError when the moments lack the pair, or a group has no rows.
    """
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
            **fit.details,
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
