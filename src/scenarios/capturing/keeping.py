"""From the device to the host: in the dtype that is stored, with what that dtype can't hold noticed."""

from collections import Counter
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from src.scenarios.capturing.arrays import Arrays, widened
from src.scenarios.states import ATTENTION, LOGITS, RESIDUAL_SOURCES, Rows, kept_resid_pre


class Keeper:
    """Collects rows, a pass or a chunk of steps at a time.

    Residual sources stay in float32 if `exact`, all else is rounded to `dtype`. A source that has values too large for
    it is kept in float32 from there on.
    """

    def __init__(self, layers: Sequence[int], dtype: torch.dtype, exact: bool = True) -> None:
        self._layers, self._dtype, self._exact = tuple(layers), dtype, exact
        self._parts: dict[str, list[Tensor]] = {}
        self._overflowed: set[str] = set()
        self._not_finite: Counter[tuple[str, int]] = Counter()

    def add(self, arrays: Arrays) -> None:
        """More rows, from any device."""
        for name, array in arrays.items():
            self._parts.setdefault(name, []).append(self._rounded(name, array).cpu())

    def rows(self) -> Rows:
        """All that was added; the keeper is empty then."""
        arrays = {}
        for name in list(self._parts):
            parts = self._parts.pop(name)
            if name in self._overflowed:
                parts = [part.float() for part in parts]
            parts = widened(parts) if name == ATTENTION else parts
            arrays[name] = parts[0] if len(parts) == 1 else torch.cat(parts, 1)
        return Rows(self._layers, arrays)

    def note(self, notes: dict[str, object], where: str) -> None:
        """Put into `notes` what was not finite (count by source and layer) and what float32 was needed for."""
        if self._not_finite:
            counts: dict[str, dict[str, int]] = {}
            for (name, layer), count in sorted(self._not_finite.items()):
                counts.setdefault(name, {})[str(layer)] = count
            _part(notes, "not_finite")[where] = counts
        if self._overflowed:
            _part(notes, "kept_in_float32")[where] = sorted(self._overflowed)

    def _rounded(self, name: str, array: Float[Tensor, "layer row ..."]) -> Tensor:
        dtype = torch.float32 if self._exact and name in RESIDUAL_SOURCES else self._dtype
        if not array.numel():
            return array.to(dtype)
        limit = torch.finfo(dtype).max
        least, largest = torch.stack(torch.aminmax(array)).tolist()
        if not (-limit <= least and largest <= limit):  # NaN too
            self._count(name, array)
            # rounding reaches inf only above the largest value by half a unit
            if bool((array.to(dtype).isinf() & array.isfinite()).any()):
                self._overflowed.add(name)
                dtype = torch.float32
        return array.to(dtype)

    def _count(self, name: str, array: Float[Tensor, "layer row ..."]) -> None:
        # logits count with the last layer
        layers = {"resid_pre": kept_resid_pre(self._layers), LOGITS: self._layers[-1:]}.get(name, self._layers)
        counts = (~array.isfinite()).flatten(1).sum(1).tolist()
        self._not_finite.update({(name, layer): n for layer, n in zip(layers, counts, strict=True) if n})


def _part(notes: dict[str, object], key: str) -> dict[str, object]:
    found = notes.setdefault(key, {})
    assert isinstance(found, dict)
    return found
