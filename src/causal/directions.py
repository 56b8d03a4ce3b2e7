"""Directions of the residual stream that a user keeps in a file."""

from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from src.artifacts.tensors import load_tensors
from src.causal.interventions import orthonormal_basis
from src.errors import StrataError

_REMEDY = "give a safetensors file with a tensor `directions` [n, d_model]"


def load_directions(path: Path) -> Float[Tensor, "d_model direction"]:
    """An orthonormal basis of the tensor `directions` [n, d_model] of a safetensors file, in float32 at least.

    Raises:
        StrataError: no such file or tensor, another shape, or directions that are zero, not finite or dependent.
    """
    directions = load_tensors(path, _REMEDY, ["directions"])["directions"]
    if directions.ndim != 2 or not directions.is_floating_point():
        raise StrataError(f"{path}: `directions` is {tuple(directions.shape)} of {directions.dtype}: {_REMEDY}")
    return orthonormal_basis(directions.to(torch.promote_types(directions.dtype, torch.float32)))


def require_width(basis: Float[Tensor, "d_model direction"], d_model: int) -> None:
    """StrataError if directions are not of a model's residual stream."""
    if len(basis) != d_model:
        raise StrataError(f"directions are {len(basis)} wide, and the model's residual stream {d_model}: {_REMEDY}")
