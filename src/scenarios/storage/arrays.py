"""Stacked arrays of a captured scenario on disk: a safetensors file for each item, read where it is looked at.

A tensor of the file is a view of the mapped file: bytes that nobody looks at are never read.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import reduce
from pathlib import Path

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from src.artifacts.tensors import load_tensors, save_tensors
from src.errors import StrataError
from src.scenarios.states import ATTENTION, LOGITS, SOURCES, Rows, kept_resid_pre

# keys of each row of packed attention
_LENGTHS = "attention_keys"
_INTEGERS = {2: torch.int16, 4: torch.int32, 8: torch.int64}
_KNOWN = (*SOURCES, LOGITS, _LENGTHS)
REMEDY = "capture the scenario again"


class StoredArrays(Mapping[str, Tensor]):
    """The arrays of one group of rows; attention, which is packed on disk, is unpacked each time it is asked for."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self._tensors = tensors

    def __getitem__(self, source: str) -> Tensor:
        if source == ATTENTION:
            return unpack_attention(self._tensors[ATTENTION], self._tensors[_LENGTHS])
        return self._tensors[source]

    def __iter__(self) -> Iterator[str]:
        return (name for name in self._tensors if name != _LENGTHS)

    def __len__(self) -> int:
        return sum(1 for _ in self)


def pack_attention(
    attention: Float[Tensor, "layer row head key"],
) -> tuple[Float[Tensor, "layer head entry"], Int[Tensor, " row"]]:
    """Attention without the zeros that follow each row's last key: entries row by row, and the keys of each row.

    Nothing is lost: the longest row counts as long as the array is wide.
    """
    attention, width = attention.cpu(), attention.shape[-1]
    bits = attention.view(_INTEGERS[attention.element_size()])  # or-ed, many at once
    seen = reduce(torch.bitwise_or, [head for layer in bits for head in layer.unbind(1)]) != 0
    lengths = (seen * torch.arange(1, width + 1)).amax(1)
    lengths[lengths.argmax()] = width
    rows = [row[..., :length] for row, length in zip(attention.unbind(1), lengths.tolist(), strict=True)]
    return torch.cat(rows, -1), lengths


def unpack_attention(
    packed: Float[Tensor, "layer head entry"], lengths: Int[Tensor, " row"]
) -> Float[Tensor, "layer row head key"]:
    """The inverse of pack_attention."""
    seen = _seen(lengths)
    attention = packed.new_zeros(*packed.shape[:2], *seen.shape)
    attention[:, :, seen] = packed
    return attention.transpose(1, 2)


def _seen(lengths: Int[Tensor, " row"]) -> Bool[Tensor, "row key"]:
    return torch.arange(int(lengths.max())) < lengths[:, None]


def save_rows(path: Path, groups: Mapping[str, Rows]) -> None:
    """Write groups of rows into one file, as GROUP/SOURCE."""
    tensors = {}
    for group, rows in groups.items():
        for source, array in rows.arrays.items():
            if source == ATTENTION and len(rows):
                array, tensors[f"{group}/{_LENGTHS}"] = pack_attention(array)
            tensors[f"{group}/{source}"] = array
    save_tensors(path, tensors)


def load_rows(path: Path, layers: Sequence[int], n_rows: Mapping[str, int]) -> dict[str, Rows]:
    """Groups of rows of one file; nothing but its header is read yet.

    n_rows: the groups, and how many rows each must have. Raises StrataError if the file is missing, truncated or
    foreign, or its shapes don't fit the rows and layers.
    """
    tensors = load_tensors(path, REMEDY)
    groups: dict[str, dict[str, Tensor]] = {group: {} for group in n_rows}
    for name, tensor in tensors.items():
        group, _, source = name.partition("/")
        if group not in groups or source not in _KNOWN:
            raise StrataError(f"{path} holds {name!r}, which is no state of this conversation: {REMEDY}")
        groups[group][source] = tensor
    groups = {group: {name: arrays[name] for name in _KNOWN if name in arrays} for group, arrays in groups.items()}
    for group, arrays in groups.items():
        for source, array in arrays.items():
            if not _fits(source, array, arrays, len(layers), len(kept_resid_pre(layers)), n_rows[group]):
                raise StrataError(
                    f"{path}: {group}/{source} is {list(array.shape)}, which does not fit {n_rows[group]} rows of "
                    f"{len(layers)} layers: {REMEDY}"
                )
    return {group: Rows(tuple(layers), StoredArrays(arrays)) for group, arrays in groups.items()}


def _fits(
    source: str, array: Tensor, arrays: Mapping[str, Tensor], n_layers: int, n_resid_pre: int, n_rows: int
) -> bool:
    if source == _LENGTHS:
        return array.shape == (n_rows,) and not array.is_floating_point() and ATTENTION in arrays
    if not array.is_floating_point():
        return False
    if source == ATTENTION and _LENGTHS in arrays:
        lengths = arrays[_LENGTHS]
        sound = lengths.ndim == 1 and bool((lengths >= 0).all())
        return sound and array.ndim == 3 and array.shape[0] == n_layers and array.shape[2] == int(lengths.sum())
    depth = {LOGITS: 1, "resid_pre": n_resid_pre}.get(source, n_layers)
    return array.ndim == (4 if source == ATTENTION else 3) and array.shape[:2] == (depth, n_rows)
