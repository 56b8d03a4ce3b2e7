"""The artifact `moments`: second moments of a store, per fold and split, made in one pass or found."""

from collections.abc import Sequence

import numpy as np

from src.activations.moments import Moments, Pair
from src.activations.passes import accumulate_moments, count_rows, row_offsets
from src.activations.products import Precision
from src.activations.store import ActivationStore
from src.artifacts import Artifact, label, list_artifacts
from src.errors import StrataError
from src.hook_points import HookPoint
from src.stage.context import Stage
from src.stage.stores import Split
from src.transport.pairs import LayerPair


def prepare_moments(
    stage: Stage,
    store: ActivationStore,
    split: Split,
    products: Sequence[Pair],
    precision: Precision,
    *,
    with_test: bool = False,
    offsets: Sequence[int] = (),
) -> Moments:
    """The products of train and val, and of test if asked for, on the stage's device; the groups are those of `split`.

    offsets: of positions, that a row needs beside those of the products (see `src.activations.passes`). A finished
    artifact that covers the products, over the same rows, is reused, if it is undamaged. Raises StrataError if offsets
    leave a group without rows.
    """
    offsets = row_offsets([point for pair in products for point in pair], offsets)
    settings = {**split.identity(), "precision": precision, "row_offsets": offsets}
    if not stage.config.overwrite:
        for artifact in list_artifacts(stage.root, "moments"):
            if _covers(artifact, store, settings, products, with_test) and stage.is_whole(artifact):
                stage.say(f"{artifact.path} covers these pairs: reused")
                return Moments.load(artifact.path, stage.device, products)
    names = sorted([str(a), str(b)] for a, b in products)
    identity = {**settings, "with_test": with_test, "products": names}
    plan = stage.plan("moments", label(store.model_name), identity, [store.artifact.parent])
    n_groups = split.n_groups if with_test else split.val + 1
    if offsets != [0]:
        _require_rows(store, split, n_groups, offsets)
    with stage.progress("moments", store.layout.n_tokens, "tokens") as advance:
        moments = accumulate_moments(store, products, split.groups, n_groups, precision, stage.device, advance, offsets)
    with stage.create(plan) as draft:
        moments.save(draft.path)
        rows = {"train": int(moments.count[: split.n_folds].sum()), "val": int(moments.count[split.val])}
        draft.summary = {"rows": rows | ({"test": int(moments.count[split.test :].sum())} if with_test else {})}
    return moments


def pair_products(pairs: Sequence[LayerPair], hook: str, *, targets_too: bool = False) -> list[Pair]:
    """X'X of every source and X'Y of every pair: what operators are fitted from; Y'Y too for canonical correlations."""
    points: list[HookPoint] = [pair.source(hook) for pair in pairs]
    if targets_too:
        points += [pair.target(hook) for pair in pairs]
    grams = [(point, point) for point in points]
    return list(dict.fromkeys([*grams, *((pair.source(hook), pair.target(hook)) for pair in pairs)]))


def _require_rows(store: ActivationStore, split: Split, n_groups: int, offsets: Sequence[int]) -> None:
    count = count_rows(store, split.groups, n_groups, offsets)
    if count.all():
        return
    longest = max(int(np.diff(part.sequence_start).max()) for part in store)
    names = [*(f"fold {fold}" for fold in split.train), "val", *("test" for _ in split.test_groups)]
    empty = ", ".join(dict.fromkeys(names[group] for group in np.flatnonzero(count == 0)))
    told = ", ".join(f"{offset:+d}" for offset in offsets if offset)
    raise StrataError(
        f"position offsets {told} leave no rows in {empty}: the longest sequence has {longest:,} tokens, and a row "
        "needs a counted token at every offset; choose offsets nearer to 0 (experiment.position_offset), fewer folds "
        "(cv_folds), or collect longer sequences (max_length)"
    )


def _covers(
    artifact: Artifact, store: ActivationStore, settings: dict, products: Sequence[Pair], with_test: bool
) -> bool:
    identity = dict(artifact.meta.identity)
    held = {tuple(names) for names in identity.pop("products", [])}
    has_test = identity.pop("with_test", False)
    identity.setdefault("row_offsets", [0])
    return (
        artifact.meta.parents == [store.artifact.parent]
        and identity == settings
        and (has_test or not with_test)
        and {(str(a), str(b)) for a, b in products} <= held
    )
