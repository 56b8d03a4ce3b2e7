"""How many parameters a model has, and where (spec A1)."""

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from src.models.checkpoint import Matrix, Weights


@dataclass(frozen=True)
class Census:
    """total: each tensor once, however many names it has. by_module: by the first two parts of a parameter's name.

    by_role: of the parts that parameters are split into.
    """

    total: int
    by_module: dict[str, int]
    by_role: dict[str, int]
    tied: dict[str, str]


def parameter_census(weights: Weights, matrices: Iterable[Matrix]) -> Census:
    """From shapes alone."""
    by_module: Counter[str] = Counter()
    for name, shape in weights.shapes.items():
        by_module[".".join(name.split(".")[:2])] += math.prod(shape)
    by_role: Counter[str] = Counter()
    for matrix in matrices:
        by_role[matrix.role] += math.prod(matrix.shape)
    return Census(
        sum(by_module.values()), dict(by_module.most_common()), dict(by_role.most_common()), dict(weights.tied)
    )
