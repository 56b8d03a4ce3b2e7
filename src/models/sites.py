"""Places inside a block where something can be read: what a module takes or returns, or some columns of it."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel

from src.models.blocks import Blocks
from src.models.inner import PROBE_SHAPE, InnerModel, hidden_state, probe, residual_input

# layer, path of a module inside of the block, input or output
Place = tuple[int, str, str]
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


def find_overwritten(module: PreTrainedModel, inner: InnerModel, blocks: Blocks) -> frozenset[Place]:
    """Whatever modules take or return that is changed in place before the forward pass is over (falcon: MLP outputs).

    The rest need not be copied to be kept.
    """
    seen: list[tuple[Place, Tensor, int]] = []

    def note(place: Place, value: Any) -> None:
        if isinstance(value, Tensor):
            seen.append((place, value, value._version))

    def before(layer: int, path: str, _module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        note((layer, path, "input"), residual_input(args, kwargs))

    def after(layer: int, path: str, _module: Any, _args: Any, output: Any) -> None:
        note((layer, path, "output"), hidden_state(output))

    with Handles() as handles:
        for layer, block in enumerate(blocks.modules):
            for path, part in block.named_modules():
                handles.append(part.register_forward_pre_hook(partial(before, layer, path), with_kwargs=True))
                handles.append(part.register_forward_hook(partial(after, layer, path)))
        probe(module, inner, gradients=True)  # tensors of inference mode do not count their changes
    return frozenset(place for place, value, version in seen if value._version != version)


def probe_rows(value: Any) -> Float[Tensor, "token width"] | None:
    """A tensor of the probe as one row per token ([token, width] from the MLP of opt too); None for anything else."""
    n_tokens = PROBE_SHAPE[0] * PROBE_SHAPE[1]
    if not isinstance(value, Tensor) or not value.is_floating_point():
        return None
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
