"""A store under construction: its layout, the check that it fits the disk, and the seal when all parts are there."""

import contextlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np

from src.activations.collect import right_padded, sequences_per_part
from src.activations.parts import Manifest, damage, manifest_path, part_folder, read_manifest
from src.activations.store import STORAGE_DTYPES, StoreLayout
from src.activations.workers import Worker
from src.artifacts import Draft, Plan, Provenance, find_finished
from src.artifacts.files import checksums
from src.artifacts.folder import open_shared_folder, seal_in_place
from src.artifacts.locks import Busy, locked
from src.artifacts.meta import PLAN, open_meta
from src.errors import StrataError
from src.hook_points import HookPoint
from src.models import HiddenStateCheck, LanguageModel, check_hidden_states, run_with_hooks
from src.text import Keep, SequenceTable

# the disk of a machine that is filled to the last byte helps nobody
_SPARE_BYTES = 64 * 2**20
_TEST_POSITIONS = 32


def chosen_layers(layers: int | list[int] | Literal["all"], n_layers: int, model_name: str) -> list[int]:
    """The layers that a user asks for ("all", one, or a list), sorted. Raises StrataError if the model lacks one."""
    if layers == "all":
        return list(range(n_layers))
    chosen = sorted({layers} if isinstance(layers, int) else set(layers))
    if chosen[-1] >= n_layers:
        raise StrataError(f"layers: {model_name} has no layer {chosen[-1]}; choose from its layers 0 to {n_layers - 1}")
    return chosen


def hook_points_of(
    model: LanguageModel, hooks: list[str], layers: int | list[int] | Literal["all"]
) -> tuple[HookPoint, ...]:
    """All combinations of hooks and layers, checked against the model."""
    chosen = chosen_layers(layers, model.n_layers, model.config.name)
    points = tuple(HookPoint(hook, layer) for hook in dict.fromkeys(hooks) for layer in chosen)
    model.check_hook_points(points)
    return points


def refuse_long_sequences(model: LanguageModel, table: SequenceTable) -> None:
    """StrataError if the table has sequences that are longer than the model was made for."""
    positions = getattr(model.module.config.get_text_config(), "max_position_embeddings", None)
    longest = int(table.lengths.max())
    if isinstance(positions, int) and 0 < positions < longest:
        raise StrataError(
            f"there are sequences of {longest} tokens, and {model.config.name} has {positions} positions: "
            f"set max_length={positions} (and long_documents=split to keep the rest of each document)"
        )


def plan_layout(
    model: LanguageModel,
    table: SequenceTable,
    points: tuple[HookPoint, ...],
    storage_dtype: str,
    max_length: int,
    part_bytes: int,
    batch_size: int,
) -> StoreLayout:
    """The layout of a store whose parts have at most `part_bytes` (one batch at least)."""
    bytes_per_token = len(points) * model.d_model * STORAGE_DTYPES[storage_dtype].itemsize
    return StoreLayout(
        hook_points=points,
        d_model=model.d_model,
        n_layers=model.n_layers,
        storage_dtype=storage_dtype,
        n_sequences=table.n_sequences,
        n_tokens=table.n_tokens,
        sequences_per_part=sequences_per_part(bytes_per_token, max_length, part_bytes, batch_size),
    )


def missing_parts(store: Path, layout: StoreLayout, seal: str, *, repair: bool, overwrite: bool) -> list[int]:
    """The parts that are still to be made.

    repair: also those whose contents don't match their checksums. overwrite: all.
    """
    missing = []
    changed = set() if overwrite else _changed_manifests(store)
    for part in range(layout.n_parts):
        if manifest_path(store, part).name in changed:
            missing.append(part)
            continue
        manifest = None if overwrite else read_manifest(store, part, seal)
        if manifest is None or (repair and damage(store, manifest)):
            missing.append(part)
    return missing


def _changed_manifests(store: Path) -> set[str]:
    """Manifests of a sealed store that are not what they were when it was sealed."""
    try:
        files = open_meta(store).files
    except StrataError:
        return set()  # not sealed yet, or not to be trusted
    manifests = {name: entry for name, entry in files.items() if "/" not in name and name.startswith("part-")}
    return {
        name
        for name, found in checksums(store, [n for n in manifests if (store / n).exists()]).items()
        if found != manifests[name]
    }


def lies_beside_parts(name: str) -> bool:
    """Whether a file of a store (relative path) is none of a part."""
    return not name.startswith("part-")


def tokens_of(layout: StoreLayout, table: SequenceTable, parts: list[int]) -> int:
    """Number of tokens of some parts."""
    which = [layout.sequences_of(part) for part in parts]
    return sum(int(table.offsets[sequences.stop] - table.offsets[sequences.start]) for sequences in which)


def refuse_full_disk(store: Path, needed: int, *, overwrite: bool) -> None:
    """StrataError if the disk can't hold `needed` more bytes (overwrite: what lies in the store makes room first)."""
    existing = next(path for path in (store, *store.parents) if path.exists())
    free = shutil.disk_usage(existing).free
    if overwrite:
        free += sum(path.stat().st_size for path in store.rglob("*") if path.is_file())
    if needed + _SPARE_BYTES > free:
        raise StrataError(
            f"{store} needs up to {needed / 1e9:.3g} GB more, and its disk has {free / 1e9:.3g} GB free: collect fewer "
            "layers or tokens, use storage_dtype=bfloat16, or set artifacts_dir=... to another disk"
        )


@contextlib.contextmanager
def filling(plan: Plan, worker: Worker, *, overwrite: bool) -> Iterator[None]:
    """Open the folder of a store for filling, and keep other runs of the same command out of it meanwhile.

    Workers of several share it. Raises StrataError if another run fills it, or if it is to become another store.
    """
    if overwrite and worker.count > 1:
        raise StrataError(
            f"overwrite=true with {worker.count} workers: each would remove what the others made. Remove {plan.path} "
            "yourself, or choose another name=..., and start the workers without overwrite"
        )
    shared = worker.count > 1
    try:
        if plan.path.exists():
            with locked(
                plan.path, shared=shared, wait=False
            ):  # an overwrite must not pull the folder from under others
                open_shared_folder(plan, overwrite=overwrite)
        else:
            open_shared_folder(plan)
        with locked(plan.path, shared=shared, wait=False):
            yield
    except Busy:
        raise StrataError(
            f"another run is filling {plan.path}: wait until it has ended (several runs may share the work: give each "
            "of them num_workers and its own worker_index)"
        ) from None


def finish(
    store: Path,
    layout: StoreLayout,
    plan: Plan,
    provenance: Provenance,
    check: HiddenStateCheck | None,
    publish: Callable[[Draft], None],
) -> bool:
    """Seal the store if all parts are there: write meta.json. False while parts of other workers are missing.

    Any worker may do it; when several are done at once, one does it, and the others find it done. publish: adds to the
    folder what its readers should see, before it is sealed.
    """
    with locked(store / PLAN):
        manifests = [read_manifest(store, part, plan.fingerprint) for part in range(layout.n_parts)]
        present = [manifest for manifest in manifests if manifest is not None]
        if len(present) < layout.n_parts:
            return False
        if find_finished(plan, overwrite=False) is None:
            known = {
                f"{part_folder(store, manifest.part).name}/{name}": entry
                for manifest in present
                for name, entry in manifest.files.items()
            }

            def summed_up(draft: Draft) -> None:
                draft.summary = summarise(layout, present, check)
                publish(draft)

            names = [manifest_path(store, manifest.part).name for manifest in present]
            seal_in_place(plan, provenance, summed_up, known, names)
    return True


def summarise(layout: StoreLayout, manifests: list[Manifest], check: HiddenStateCheck | None) -> dict[str, Any]:
    """What meta.json says of a store: its layout, the tokens by reason for keeping them out, the self-test."""
    reasons = [reason.name.lower() for reason in Keep]
    counts = np.array([[manifest.keep[reason] for reason in reasons] for manifest in manifests]).sum(0)
    return {
        "layout": layout.as_json(),
        "keep": {reason: int(count) for reason, count in zip(reasons, counts, strict=True)},
        "hidden_states_check": None if check is None else vars(check),
    }


def self_test(model: LanguageModel, table: SequenceTable, batch_size: int) -> HiddenStateCheck | None:
    """Compare our hooks with transformers' own hidden states on the first batch (StrataError if they differ).

    Its first positions suffice, and cost little. None if NaN or infinite values leave nothing to compare.
    """
    sequences = table.read(0, min(batch_size, table.n_sequences))
    input_ids, attention_mask = right_padded([sequence.token_ids[:_TEST_POSITIONS] for sequence in sequences])
    finite: list[bool] = []
    run_with_hooks(
        model,
        input_ids,
        attention_mask,
        [HookPoint("resid_post", layer) for layer in range(model.n_layers)],
        lambda _point, state: finite.append(bool(state.isfinite().all())),
    )
    return check_hidden_states(model, input_ids, attention_mask) if all(finite) else None
