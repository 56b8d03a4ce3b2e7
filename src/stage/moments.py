"""The artifact `moments`: second moments of a store, per fold and split, made in one pass or found."""

import torch

from src.activations.moments import Moments
from src.activations.passes import accumulate_moments
from src.activations.products import Precision, default_precision
from src.activations.store import ActivationStore
from src.artifacts import Artifact, label, list_artifacts
from src.config.stages import TransportConfig
from src.hook_points import HookPoint
from src.stage.context import Stage
from src.stage.stores import Split
from src.transport.pairs import LayerPair


def prepare_moments(
    config: TransportConfig,
    stage: Stage,
    store: ActivationStore,
    split: Split,
    pairs: list[LayerPair],
    device: torch.device,
) -> Moments:
    """The moments of all pairs and of their sources, on a device.

    A finished artifact that covers them is reused, if it is undamaged.
    """
    wanted = _products(pairs, config.hook)
    precision: Precision = default_precision(device) if config.precision == "auto" else config.precision
    settings = {
        "split": config.split.model_dump(),
        "n_folds": split.n_folds,
        "precision": precision,
        "seed": config.seed,
    }
    if not config.overwrite:
        for artifact in list_artifacts(stage.root, "moments"):
            if _covers(artifact, store, settings, wanted) and stage.is_whole(artifact):
                stage.say(f"{artifact.path} covers these pairs: reused")
                return Moments.load(artifact.path, device, wanted)
    names = sorted([str(a), str(b)] for a, b in wanted)
    plan = stage.plan("moments", label(config.model.name), {**settings, "products": names}, [store.artifact.parent])
    with stage.progress("moments", store.layout.n_tokens, "tokens") as advance:
        moments = accumulate_moments(store, wanted, split.groups, split.val + 1, precision, device, advance)
    with stage.create(plan) as draft:
        moments.save(draft.path)
        draft.summary = {
            "rows": {
                "train": int(moments.count[: split.n_folds].sum()),
                "val": int(moments.count[split.val]),
            },
        }
    return moments


def _products(pairs: list[LayerPair], hook: str) -> list[tuple[HookPoint, HookPoint]]:
    grams = [(pair.source(hook), pair.source(hook)) for pair in pairs]
    return list(dict.fromkeys([*grams, *((pair.source(hook), pair.target(hook)) for pair in pairs)]))


def _covers(artifact: Artifact, store: ActivationStore, settings: dict, wanted: list) -> bool:
    identity = dict(artifact.meta.identity)
    held = {tuple(names) for names in identity.pop("products", [])}
    return (
        artifact.meta.parents == [store.artifact.parent]
        and identity == settings
        and {(str(a), str(b)) for a, b in wanted} <= held
    )
