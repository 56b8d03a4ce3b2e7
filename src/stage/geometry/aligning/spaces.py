"""What both kinds of spaces, tables of tokens and states of texts, give to an alignment."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from jaxtyping import Float, Int

from src.artifacts import Parent
from src.geometry.alignment.rows import PairedRows
from src.stage.context import Stage


@dataclass(frozen=True, eq=False)
class OrderedTokens:
    """An ordered set among the pairs.

    distances: steps between its words. members: of each word, the pairs that stand for it (one, or its occurrences).
    """

    name: str
    words: tuple[str, ...]
    cycle: bool
    distances: Int[np.ndarray, "word word"]
    members: Sequence[Int[np.ndarray, " pair"]]


@dataclass(frozen=True, eq=False)
class Spaces:
    """Two spaces whose rows are paired.

    ordered_are_new: no token of an ordered set was among those that maps were fitted on. ids: of each pair, the token's
    id in both vocabularies. coverage: how pairing went, for JSON; pairing: the same in words. unit: what intervals
    draw, in words. tables: whole tables and the ids of the digits, for compat=notebook.
    """

    rows: PairedRows
    source_ids: Int[np.ndarray, " pair"]
    target_ids: Int[np.ndarray, " pair"]
    ordered: Sequence[OrderedTokens]
    ordered_are_new: bool
    coverage: Mapping[str, Any]
    pairing: str
    unit: str
    tables: tuple[Float[np.ndarray, "row d"], Float[np.ndarray, "other e"], Sequence[int | None]] | None = None


class PreparedSpaces(Protocol):
    """Two spaces that were found and can be read."""

    @property
    def names(self) -> tuple[str, str]:
        """Of the source and the target, for titles."""
        ...

    @property
    def parents(self) -> list[Parent]:
        """Stores that are read."""
        ...

    def identity(self) -> dict[str, Any]:
        """What decides the rows, besides the parents."""
        ...

    def read(self, stage: Stage) -> Spaces:
        """Pair the rows, and read them."""
        ...
