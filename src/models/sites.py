"""Places inside a block where something can be read: what a module takes or returns, or some columns of it."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from src.models.inner import PROBE_SHAPE

Columns = slice | Int[Tensor, "width"]


@dataclass(frozen=True, eq=False)
class Site:
    """One place inside a block.

    path: of the module inside the block ("" = the block itself).
    columns: which of the module's columns, in this order; all of them by default.
    width: number of columns.
    """

    path: str
    side: Literal["input", "output"]
    width: int
    columns: Columns | None = None


def as_slice(columns: Int[Tensor, "width"]) -> Columns:
    """The same columns as a slice, where they lie side by side (a view, not a copy)."""
    first = int(columns[0])
    if torch.equal(columns, torch.arange(first, first + len(columns))):
        return slice(first, first + len(columns))
    return columns


def linear_maps(block: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Modules of a block that multiply by one matrix: no modules inside, and a weight of two dimensions."""
    for path, module in block.named_modules():
        weight = getattr(module, "weight", None)
        if path and isinstance(weight, Tensor) and weight.ndim == 2 and not any(module.children()):
            yield path, module


def probe_rows(value: Any) -> Float[Tensor, "token width"] | None:
    """A tensor of the probe as one row per token ([token, width] from the MLP of opt too); None for anything else."""
    n_tokens = PROBE_SHAPE[0] * PROBE_SHAPE[1]
    if isinstance(value, Tensor) and value.is_floating_point():
        if tuple(value.shape[:-1]) == PROBE_SHAPE or (value.ndim == 2 and len(value) == n_tokens):
            return value.reshape(n_tokens, -1)
    return None


class Handles(list[RemovableHandle]):
    """Hooks that are taken off together, at the end of a `with` block."""

    def __enter__(self) -> "Handles":
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self:
            handle.remove()
        self.clear()
