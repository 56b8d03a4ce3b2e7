"""Which pairs of layers: the target of a source L, a leap k and a position offset o is layer L + k at token i + o."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from src.errors import StrataError
from src.hook_points import HookPoint


@dataclass(frozen=True, order=True)
class LayerPair:
    """A source layer, a leap, and how many positions after the source's token the target's is (below 0: before it)."""

    L: int
    k: int
    offset: int = 0

    def __str__(self) -> str:
        return f"L{self.L}_k{self.k}{f'_j{self.offset:+d}' if self.offset else ''}"

    def identity(self) -> list[int]:
        """Its numbers, for fingerprints; `LayerPair(*numbers)` is the pair again."""
        return [self.L, self.k, self.offset] if self.offset else [self.L, self.k]

    def source(self, hook: str) -> HookPoint:
        """The hook point that an operator reads."""
        return HookPoint(hook, self.L)

    def target(self, hook: str) -> HookPoint:
        """The hook point that an operator predicts."""
        return HookPoint(hook, self.L + self.k, self.offset)


def layer_pairs(
    layers: int | Sequence[int] | Literal["all"],
    leaps: int | Sequence[int] | Literal["all"],
    n_layers: int,
    key: str,
    offsets: int | Sequence[int] = 0,
) -> list[LayerPair]:
    """All pairs of the given sources, leaps and offsets, sorted; `all` stands for whatever the model has room for.

    key: the config keys that the user set, for messages. Raises StrataError if a named layer or leap leaves the model.
    """
    sources = range(n_layers) if layers == "all" else _listed(layers)
    wanted = range(1, n_layers) if leaps == "all" else _listed(leaps)
    last = n_layers - 1
    for layer in sources:
        if layer > last:
            raise StrataError(f"{key}: layer {layer} is out of range: the model has layers 0..{last}")
    pairs = [LayerPair(layer, leap, offset) for layer in sources for leap in wanted for offset in _listed(offsets)]
    outside = [pair for pair in pairs if pair.L + pair.k > last]
    if outside and "all" not in (layers, leaps):
        pair = outside[0]
        raise StrataError(
            f"{key}: L={pair.L}, k={pair.k} leads to layer {pair.L + pair.k}, and the last one is {last}: "
            "leave it out, or write all for whatever there is room for"
        )
    inside = sorted(pair for pair in set(pairs) if pair.L + pair.k <= last)
    if not inside:
        raise StrataError(f"{key}: no pair of layers is left in a model with layers 0..{last}")
    return inside


def _listed(values: int | Sequence[int] | str) -> Sequence[int]:
    return [values] if isinstance(values, int) else [int(value) for value in values]
