"""Fit operators by any method: from moments alone, or with the model that the activations came from."""

import warnings
from dataclasses import dataclass
from typing import Any

from src.activations.moments import Moments
from src.activations.passes import row_offsets
from src.activations.products import Precision, resolve_precision
from src.activations.sampling import TokenSample, sample_tokens
from src.activations.store import ActivationStore
from src.artifacts import label
from src.config.stages import TransportConfig
from src.models import LanguageModel
from src.stage.context import Stage
from src.stage.models import load_model_of
from src.stage.moments import pair_products, prepare_moments
from src.stage.stores import Split, find_store
from src.transport.fitting import PairFit, fit_pairs, pair_fit
from src.transport.jacobian import fit_jacobian, gradients_to_take, mean_jacobians
from src.transport.pairs import LayerPair, layer_pairs
from src.transport.settings import FitSettings

# of the mean Jacobian, above which the user is told
_LARGE_ERROR = 0.1


@dataclass(frozen=True)
class FitWork:
    """What is to be fitted, checked before anything is read.

    label: of the artifact's name. identity: what decides the fits, for the fingerprint.
    """

    store: ActivationStore
    pairs: list[LayerPair]
    settings: FitSettings
    precision: Precision
    label: str
    identity: dict[str, Any]


def prepare_fit(config: TransportConfig, stage: Stage) -> FitWork:
    """Find the store, and check the pairs and settings of a config against it.

    Raises:
        StrataError: no such store, layers or hooks that it does not have, or a rank above its width.
    """
    store = find_store(stage, config.activations, config.model, config.dataset)
    wanted, keys = config.experiment, "experiment.L, experiment.k"
    pairs = layer_pairs(wanted.L, wanted.k, store.layout.n_layers, keys, wanted.position_offset)
    store.require([point for pair in pairs for point in (pair.source(config.hook), pair.target(config.hook))])
    settings = FitSettings.of(config)
    settings.require_width(store.layout.d_model)
    precision = resolve_precision(config.precision, stage.device)
    identity = {
        "pairs": [pair.identity() for pair in pairs],
        "row_offsets": row_offsets([pair.target(config.hook) for pair in pairs]),
        "fit": settings.identity(),
        "split": config.split.model_dump(),
        "precision": precision,
        **config.model_dump(include={"hook", "method", "cv_folds", "seed"}),
    }
    which = str(pairs[0]) if len(pairs) == 1 else f"{len(pairs)}-pairs"
    return FitWork(store, pairs, settings, precision, label(config.model.name, config.method, which), identity)


def fit_operators(config: TransportConfig, stage: Stage, work: FitWork, split: Split) -> tuple[list[PairFit], Moments]:
    """The fits of all pairs, and the moments of train and val; StrataError if the method can't have what it needs."""
    store, pairs, settings, precision = work.store, work.pairs, work.settings, work.precision
    products = pair_products(pairs, config.hook, targets_too=settings.needs_target_products)
    if settings.method == "jacobian":
        # the model and the tokens are looked at before the store is passed over
        sample = sample_tokens(store, split.groups, [split.val], split.documents, settings.jacobian_tokens, config.seed)
        if len(sample) < settings.jacobian_tokens:
            stage.say(f"the val documents have {len(sample):,} counted tokens: the Jacobians of all are averaged")
        model = load_model_of(store, config.model, stage)
        moments = prepare_moments(stage, store, split, products, precision)
        return _fit_jacobians(config, stage, model, sample, settings.jacobian_tokens, split, pairs, moments), moments
    moments = prepare_moments(stage, store, split, products, precision)
    with stage.progress("fitting", len(pairs), "pairs") as advance:
        return fit_pairs(moments, pairs, config.hook, split.train, split.val, settings, advance), moments


def _fit_jacobians(
    config: TransportConfig,
    stage: Stage,
    model: LanguageModel,
    sample: TokenSample,
    tokens: int,
    split: Split,
    pairs: list[LayerPair],
    moments: Moments,
) -> list[PairFit]:
    hook, total = config.hook, gradients_to_take(pairs, len(sample), model.d_model)
    model.module.float()  # in half precision, rounding would be most of a small derivative
    with warnings.catch_warnings(), stage.progress("differentiating", total, "gradients") as advance:
        warnings.filterwarnings("always", message=".*key-value cache")  # in every job of a sweep
        warnings.showwarning = lambda message, *_where, **_how: stage.warn(str(message))
        jacobians = mean_jacobians(model, pairs, hook, sample, config.jacobian.batch_size, advance)
    fits = []
    for pair, jacobian in sorted(jacobians.items()):
        fit = fit_jacobian(moments, pair.source(hook), pair.target(hook), split.train, jacobian)
        fits.append(pair_fit(moments, pair, hook, split.train, split.val, fit, None, "jacobian"))
    errors = {str(pair): jacobian.relative_standard_error or 0 for pair, jacobian in sorted(jacobians.items())}
    unsure = [pair for pair, error in errors.items() if error > _LARGE_ERROR]
    if unsure:
        more = "collect more text" if len(sample) < tokens else f"raise jacobian.tokens above {tokens}"
        stage.warn(
            f"the standard error of the mean Jacobian is above {_LARGE_ERROR:.0%} of it for {', '.join(unsure)}: {more}"
        )
    return fits
