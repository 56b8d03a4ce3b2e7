"""A cloud on its way to being measured, and what every source of clouds can do."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from jaxtyping import Float

from src.artifacts import Parent
from src.stage.context import Stage


@dataclass(frozen=True, eq=False)
class Cloud:
    """A cloud as it comes, what its rows are, and the same tokens in models with random weights, if asked for."""

    name: str
    hook: str | None
    layer: int | None
    points: Float[np.ndarray, "point d"]
    table: pa.Table
    random: Sequence[Float[np.ndarray, "point d"]] = ()


class CloudSource(Protocol):
    """What a stage needs to know before it looks for a finished artifact, and the clouds themselves.

    words: of the artifact's label. parents: the artifacts that the clouds come from.
    """

    words: list[str]
    parents: list[Parent]

    @property
    def model_name(self) -> str | None:
        """The label of the model; None for files."""
        ...

    @property
    def shares_points(self) -> bool:
        """Whether all clouds are of the same points."""
        ...

    def identity(self) -> dict[str, Any]:
        """What decides the clouds, beside the parents."""
        ...

    def describe(self) -> str:
        """In words, for a report."""
        ...

    def read(self, stage: Stage) -> list[Cloud]:
        """The clouds, layer after layer."""
        ...
