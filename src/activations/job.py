"""A store under construction: its layout, the check that it fits the disk, and the seal when all parts are there."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np

from src.activations.collect import right_padded, sequences_per_part
from src.activations.parts import Manifest, part_folder, read_manifest
from src.activations.store import STORAGE_DTYPES, StoreLayout
from src.artifacts import Plan, Provenance
from src.artifacts.folder import seal
from src.errors import StrataError
from src.hook_points import HookPoint
from src.models import HiddenStateCheck, LanguageModel, check_hidden_states
from src.text import Keep, SequenceTable

# the disk of a machine that is filled to the last byte helps nobody
_SPARE_BYTES = 64 * 2**20


def hook_points_of(model: LanguageModel, hooks: list[str], layers: int | list[int] | str) -> tuple[HookPoint, ...]:
    """All combinations of hooks and layers ("all", one, or a list), checked against the model."""
    if layers == "all":
        chosen = list(range(model.n_layers))
    else:
        chosen = sorted({layers} if isinstance(layers, int) else {int(layer) for layer in layers})
    points = tuple(HookPoint(hook, layer) for hook in dict.fromkeys(hooks) for layer in chosen)
    if not points:
        raise StrataError("layers=[] leaves nothing to collect: name at least one layer")
    model.check_hook_points(points)
    return points


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


def bytes_of(layout: StoreLayout, table: SequenceTable, parts: list[int]) -> int:
    """Upper bound on the bytes that some parts take on the disk (compression only makes it less)."""
    which = [layout.sequences_of(part) for part in parts]
    tokens = sum(int(table.offsets[sequences.stop] - table.offsets[sequences.start]) for sequences in which)
    return tokens * layout.bytes_per_token


def refuse_full_disk(store: Path, needed: int) -> None:
    """StrataError if the disk can't hold `needed` more bytes."""
    existing = next(path for path in (store, *store.parents) if path.exists())
    free = shutil.disk_usage(existing).free
    if needed + _SPARE_BYTES > free:
        raise StrataError(
            f"{store} needs up to {needed / 1e9:.3g} GB more, and its disk has {free / 1e9:.3g} GB free: collect fewer "
            "layers or tokens, use storage_dtype=bfloat16, or set artifacts_dir=... to another disk"
        )


def finish(
    store: Path, layout: StoreLayout, plan: Plan, provenance: Provenance, check: HiddenStateCheck | None
) -> bool:
    """Seal the store if all parts are there: write meta.json. False while parts of other workers are missing.

    Any worker may do it, several may do it at once: they write the same.
    """
    manifests = [read_manifest(store, part, plan.fingerprint) for part in range(layout.n_parts)]
    present = [manifest for manifest in manifests if manifest is not None]
    if len(present) < layout.n_parts:
        return False
    known = {
        f"{part_folder(store, manifest.part).name}/{name}": entry
        for manifest in present
        for name, entry in manifest.files.items()
    }
    seal(store, plan, provenance, summarise(layout, present, check), known)
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


def self_test(model: LanguageModel, table: SequenceTable, batch_size: int) -> HiddenStateCheck:
    """Compare our hooks with transformers' own hidden states on the first sequences (StrataError if they differ)."""
    sequences = table.read(0, min(batch_size, table.n_sequences))
    return check_hidden_states(model, *right_padded([sequence.token_ids for sequence in sequences]))
