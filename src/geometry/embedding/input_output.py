"""Embedding against unembedding, token by token (spec A10)."""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from src.geometry.directions import unit_rows
from src.geometry.embedding.rows import Rows


@dataclass(frozen=True, eq=False)
class InputOutput:
    """cosines: of each token's two rows. unpaired: mean cosine of different tokens' rows, over all pairs exactly.

    *_norm: Frobenius norms of the tables' rows. difference: of the tables; relative: over that of the input.
    equal: every number is the same.
    """

    cosines: Float64[np.ndarray, "token"]
    unpaired: float
    input_norm: float
    output_norm: float
    difference: float
    equal: bool

    @property
    def relative(self) -> float:
        """Norm of the difference over that of the input."""
        return self.difference / self.input_norm if self.input_norm > 0 else math.nan


def compare_input_output(inputs: Rows, outputs: Rows) -> InputOutput:
    """Rows of the same tokens from two tables of the same width. Raises ValueError if they are not."""
    if inputs.width != outputs.width or len(inputs) != len(outputs):
        raise ValueError(f"{len(inputs)} x {inputs.width} against {len(outputs)} x {outputs.width}")
    cosines = np.empty(len(inputs))
    squares = {"input": 0.0, "output": 0.0, "difference": 0.0}
    sums = None
    for (places, first), (_, second) in zip(inputs.blocks(), outputs.blocks(), strict=True):
        units = unit_rows(first), unit_rows(second)
        cosines[places] = (units[0] * units[1]).sum(1).cpu().numpy()
        parts = [unit.sum(0) for unit in units]
        sums = parts if sums is None else [total + part for total, part in zip(sums, parts, strict=True)]
        for name, block in (("input", first), ("output", second), ("difference", first - second)):
            squares[name] += float(block.square().sum())
    n = len(inputs)
    paired = float(cosines.sum())
    unpaired = (float(sums[0] @ sums[1]) - paired) / (n * (n - 1)) if sums is not None and n > 1 else math.nan
    norms = {name: math.sqrt(square) for name, square in squares.items()}
    return InputOutput(
        cosines=cosines,
        unpaired=unpaired,
        input_norm=norms["input"],
        output_norm=norms["output"],
        difference=norms["difference"],
        equal=norms["difference"] == 0.0,
    )
