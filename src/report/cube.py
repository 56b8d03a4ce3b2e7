"""Numbers over named dimensions: what many charts of one page are slices of."""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

_DIGITS = 5


@dataclass(frozen=True, eq=False)
class Cube:
    """A block of numbers.

    dims: the name of each dimension with its values, in the order of the arrays' axes.
    values: arrays of that shape, by name; NaN where nothing is known.
    about: further columns that a dimension's values bring along: {dimension: {column: one entry per value}}.
    """

    dims: Mapping[str, Sequence[str | int]]
    values: Mapping[str, NDArray[np.floating]]
    about: Mapping[str, Mapping[str, Sequence[Any]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        shape = tuple(map(len, self.dims.values()))
        for name, array in self.values.items():
            if array.shape != shape:
                raise ValueError(
                    f"{name} has shape {array.shape}, but the dimensions {', '.join(self.dims)} are {shape}"
                )

    def records(
        self, at: Mapping[str, int] | None = None, fields: Mapping[str, str] | None = None
    ) -> list[dict[str, Any]]:
        """One record for each cell of a slice: its place in every dimension, what goes with that, and its numbers.

        at: dimensions that are held at one index. fields: the array behind each field; all under their own names if
        not given.
        """
        fields = {name: name for name in self.values} if fields is None else fields
        at = at or {}
        ranges = [[at[name]] if name in at else range(len(values)) for name, values in self.dims.items()]
        records = []
        for index in itertools.product(*ranges):
            record: dict[str, Any] = {}
            for (name, values), place in zip(self.dims.items(), index, strict=True):
                record[name] = values[place]
                record |= {column: entries[place] for column, entries in self.about.get(name, {}).items()}
            for name, array in fields.items():
                number = float(self.values[array][index])
                record[name] = number if math.isfinite(number) else None
            records.append(record)
        return records

    def compact(self) -> dict[str, Any]:
        """As JSON values: arrays flat, in C order, with 5 significant digits; null where a number is not finite."""
        return {
            "dims": [[name, list(values)] for name, values in self.dims.items()],
            "about": {
                name: {column: list(entries) for column, entries in of.items()} for name, of in self.about.items()
            },
            "values": {
                name: [_short(number) for number in array.ravel().tolist()] for name, array in self.values.items()
            },
        }


def _short(number: float) -> float | int | None:
    if not math.isfinite(number):
        return None
    short = float(f"{number:.{_DIGITS}g}")
    return int(short) if short == int(short) and abs(short) < 1e15 else short
