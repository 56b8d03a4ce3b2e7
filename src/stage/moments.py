"""The artifact `moments`: second moments of a store, per fold and split, made in one pass or found."""

import torch

from src.activations.moments import Moments
from src.activations.passes import accumulate_moments
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
    """The moments of all pairs and of their sources, on a device. A finished artifact that covers them is reused."""
    wanted = _products(pairs, config.hook)
    settings = {
        "split": config.split.model_dump(),
        "n_folds": split.n_folds,
        "precision": config.precision,
        "device": device.type,
        "seed": config.seed,
    }
    if not config.overwrite:
        for artifact in list_artifacts(stage.root, "moments"):
            if _covers(artifact, store, settings, wanted):
                stage.say(f"{artifact.path} covers these pairs: reused")
                return Moments.load(artifact.path, device)
    names = sorted([str(a), str(b)] for a, b in wanted)
    plan = stage.plan("moments", label(config.model.name), {**settings, "products": names}, [store.artifact.parent])
    with stage.progress("moments", store.layout.n_tokens, "tokens") as advance:
        precision = None if config.precision == "auto" else config.precision
        moments = accumulate_moments(store, wanted, split.groups, split.n_groups, precision, device, advance)
    with stage.create(plan) as draft:
        moments.save(draft.path)
        draft.summary = {
            "products": names,
            "precision": moments.precision,
            "rows": {
                "train": int(moments.count[: split.n_folds].sum()),
                "val": int(moments.count[split.val]),
                "test": int(moments.count[split.test]),
            },
        }
    return moments


def _products(pairs: list[LayerPair], hook: str) -> list[tuple[HookPoint, HookPoint]]:
    grams = [(pair.source(hook), pair.source(hook)) for pair in pairs]
    return list(dict.fromkeys([*grams, *((pair.source(hook), pair.target(hook)) for pair in pairs)]))


def _covers(artifact: Artifact, store: ActivationStore, settings: dict, wanted: list) -> bool:
    identity = artifact.meta.identity
    held = {tuple(names) for names in identity["products"]}
    return (
        artifact.meta.parents == [store.artifact.parent]
        and {key: identity[key] for key in settings} == settings
        and {(str(a), str(b)) for a, b in wanted} <= held
    )
