"""Activations of some tokens, by source: cut, averaged and joined, on any device."""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad

from src.scenarios.states import ATTENTION

# source -> [layer, row, width]; attention [layer, row, head, key]; logits [1, row, d_vocab]
Arrays = Mapping[str, Float[Tensor, "layer row ..."]]


def picked(arrays: Arrays, rows: Sequence[int]) -> Arrays:
    """Some rows, in this order."""
    if not arrays:
        return {}
    index = torch.tensor(list(rows), dtype=torch.long, device=next(iter(arrays.values())).device)
    return {name: array.index_select(1, index) for name, array in arrays.items()}


def averaged(arrays: Arrays, rows: Sequence[Sequence[int]]) -> Arrays:
    """A row for each group of rows: their mean, in float32 if there are several."""
    if all(len(group) == 1 for group in rows):
        return picked(arrays, [group[0] for group in rows])
    singles = [picked(arrays, list(group)) for group in rows]
    return {name: torch.cat([part[name].mean(1, True, dtype=torch.float32) for part in singles], 1) for name in arrays}


def joined(parts: Sequence[Arrays]) -> Arrays:
    """All rows, one part after the other; attention to keys that a part does not have is 0."""
    parts = [part for part in parts if part]
    if len(parts) <= 1:
        return parts[0] if parts else {}
    return {
        name: torch.cat(widened([part[name] for part in parts]) if name == ATTENTION else [p[name] for p in parts], 1)
        for name in parts[0]
    }


def widened(parts: Sequence[Float[Tensor, "layer row head key"]]) -> list[Tensor]:
    """Attention with as many keys in all parts: those that are missing get 0."""
    width = max(part.shape[-1] for part in parts)
    return [part if part.shape[-1] == width else pad(part, (0, width - part.shape[-1])) for part in parts]
