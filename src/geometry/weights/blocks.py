"""A matrix in blocks that fit anywhere: half precision is widened a block at a time."""

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor

# values of a block: 32 MB in float64
_BLOCK = 1 << 22


def exact_device(device: torch.device) -> torch.device:
    """Where float64 is computed: Apple's GPUs have none."""
    return torch.device("cpu") if device.type == "mps" else device


def row_blocks(
    matrix: Float[Tensor, "row column"], device: torch.device, dtype: torch.dtype
) -> Iterator[Float[Tensor, "some column"]]:
    """Rows, a block at a time, on a device and in a dtype."""
    for block in matrix.split(max(1, _BLOCK // max(1, matrix.shape[1]))):
        yield block.to(device=device, dtype=dtype)


def gram(
    matrix: Float[Tensor, "row column"], device: torch.device, dtype: torch.dtype = torch.float64
) -> Float[Tensor, "column column"]:
    """W'W, added up block by block of rows."""
    total = torch.zeros(matrix.shape[1], matrix.shape[1], device=device, dtype=dtype)
    for block in row_blocks(matrix, device, dtype):
        total.addmm_(block.T, block)
    return total
