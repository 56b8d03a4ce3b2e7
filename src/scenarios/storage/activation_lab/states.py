"""Rows of states from Activation Lab's npz files."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from src.errors import StrataError
from src.scenarios.states import ATTENTION, LOGITS, Rows, kept_resid_pre
from src.scenarios.storage.activation_lab.npz import LAYER_KEYS, LOGITS_KEY, REMEDY, LabTensors, layer_key

# dimensions of a tensor: of a whole forward pass, with its batch of 1 (HEAD), or of its last token alone (OLD)
_WHOLE, _LAST = 3, 1


def last_rows(files: Sequence[LabTensors]) -> Rows:
    """A row for each file: the state of its last token. Kept are the kinds that every file has at every layer.

    Raises StrataError if the files have not the same layers and widths.
    """
    return _joined(files, lambda array, key: _token_of(array, key)[-1:])


def token_rows(file: LabTensors) -> Rows:
    """A row for each token of one forward pass."""
    return _joined([file], _token_of)


def _joined(files: Sequence[LabTensors], rows_of: Callable[[np.ndarray, str], np.ndarray]) -> Rows:
    if not files:
        return Rows((), {})
    layers = files[0].layers
    if other := next((file for file in files if file.layers != layers), None):
        raise StrataError(f"{other.path} has layers {list(other.layers)}, {files[0].path} has {list(layers)}: {REMEDY}")
    before = {"resid_pre": kept_resid_pre(layers)}
    wanted = {
        source: [layer_key(layer, name) for layer in before.get(source, layers)] for name, source in LAYER_KEYS.items()
    } | {LOGITS: [LOGITS_KEY]}
    there = set.intersection(*(set(file.shapes) for file in files))
    wanted = {source: keys for source, keys in wanted.items() if keys and there.issuperset(keys)}
    parts: dict[str, list[np.ndarray]] = {source: [] for source in wanted}
    for file in files:
        tensors = file.read(key for keys in wanted.values() for key in keys)
        for source, keys in wanted.items():
            parts[source].append(_stacked(file, [rows_of(tensors[key], key) for key in keys]))
    return Rows(layers, {source: _side_by_side(found, source, files) for source, found in parts.items()})


def _token_of(array: np.ndarray, key: str) -> np.ndarray:
    """One tensor as [token, width]; attention as [token, head, key]."""
    if key.endswith("attn_weights"):
        if array.ndim == _WHOLE + 1 and len(array) == 1:
            return array[0].swapaxes(0, 1)
    elif array.ndim == _WHOLE and len(array) == 1:
        return array[0]
    elif array.ndim == _LAST:
        return array[None]
    raise StrataError(f"{key} has the shape {array.shape}: {REMEDY}")


def _stacked(file: LabTensors, layers: list[np.ndarray]) -> np.ndarray:
    try:
        return np.stack(layers)
    except ValueError:
        raise StrataError(f"{file.path}: its layers are of different shapes: {REMEDY}") from None


def _side_by_side(parts: list[np.ndarray], source: str, files: Sequence[LabTensors]) -> Tensor:
    """[layer, row, ...] of [layer, row of one file, ...]; attention gets zeros for later keys."""
    if source == ATTENTION:
        longest = max(part.shape[-1] for part in parts)
        parts = [np.pad(part, [(0, 0)] * 3 + [(0, longest - part.shape[-1])]) for part in parts]
    try:
        return torch.from_numpy(np.concatenate(parts, axis=1))
    except ValueError:
        raise StrataError(f"{files[0].path.parent}: {source} has not the same width in every file: {REMEDY}") from None
