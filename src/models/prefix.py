"""Forward passes over the last positions only: earlier ones are seen through keys and values of an earlier pass.

In a causal model a position sees the ones before it through their keys and values alone, so what changes nothing before
a position can be rerun from there on. The model is given a cache of transformers' own, whose layers never store.
"""

from collections.abc import Collection, Mapping
from typing import Any

from jaxtyping import Float, Int
from torch import Tensor, cat
from transformers.cache_utils import Cache, DynamicLayer

KeysAndValues = tuple[Float[Tensor, "batch head pos d_head"], Float[Tensor, "batch head pos d_head"]]


class PrefixRecorder:
    """Keeps keys and values of the first positions, of some layers, in a pass that is given its `cache`."""

    def __init__(self, n_layers: int, layers: Collection[int], n_positions: int) -> None:
        self._layers = {layer: _Recording(n_positions) for layer in layers}
        self.cache = Cache(layers=[self._layers.get(layer) or _Recording(0) for layer in range(n_layers)])

    @property
    def recorded(self) -> dict[int, KeysAndValues]:
        """Of the layers that have run; copies."""
        return {layer: kept.recorded for layer, kept in self._layers.items() if kept.recorded is not None}


def prefix_cache(
    recorded: Mapping[int, KeysAndValues], n_layers: int, sequence: Int[Tensor, "row"], n_positions: int
) -> Cache:
    """A cache that holds the first n_positions >= 1 of some recorded sequences, one for each row of the pass.

    Layers that were not recorded must not run. Nothing is stored in it, so it serves one pass as well as many.
    """
    example = next(iter(recorded.values()))[0] if recorded else sequence
    nothing = example.new_empty(()).expand(len(sequence), 1, n_positions, 1)
    return Cache(
        layers=[_Prefix(recorded.get(layer, (nothing, nothing)), sequence, n_positions) for layer in range(n_layers)]
    )


class _Recording(DynamicLayer):
    """Takes note of the first positions, and for the model stays empty."""

    def __init__(self, n_positions: int) -> None:
        super().__init__()
        self._n_positions = n_positions
        self.recorded: KeysAndValues | None = None

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        if self._n_positions:
            kept = slice(self._n_positions)
            self.recorded = key_states[..., kept, :].clone(), value_states[..., kept, :].clone()
        return key_states, value_states


class _Prefix(DynamicLayer):
    """Puts recorded keys and values before those of the pass."""

    def __init__(self, recorded: KeysAndValues, sequence: Int[Tensor, "row"], n_positions: int) -> None:
        super().__init__()
        self.keys, self.values = (states[..., :n_positions, :] for states in recorded)
        self.is_initialized = True
        self._sequence = sequence

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        assert self.keys is not None
        assert self.values is not None
        return (
            cat([self.keys[self._sequence], key_states], dim=-2),
            cat([self.values[self._sequence], value_states], dim=-2),
        )
