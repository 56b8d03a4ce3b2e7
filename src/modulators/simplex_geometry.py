"""Regular simplices."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from src.errors import StrataError


def regular_simplex(k: int, width: int) -> Float[Tensor, "vertex width"]:
    """The k + 1 vertices of a regular k-simplex with edges of 1, centred at the origin, float64.

    The k + 1 unit vectors of R^(k+1), centred, in an orthonormal basis of their span, over sqrt 2; the other dimensions
    are zero (spec H3). Its squared volume is (k + 1) / (2^k (k!)^2).

    Raises:
        StrataError: a k-simplex does not fit into `width` dimensions.
    """
    if not 1 <= k <= width:
        raise StrataError(f"a simplex of dimension {k} does not fit into {width} dimensions: choose 1 to {width}")
    centred = torch.eye(k + 1, dtype=torch.float64) - 1 / (k + 1)
    basis = torch.linalg.svd(centred).Vh[:k]
    vertices = torch.zeros(k + 1, width, dtype=torch.float64)
    vertices[:, :k] = centred @ basis.T / math.sqrt(2)
    return vertices


def regular_square_volume(k: int) -> float:
    """Of the regular k-simplex with edges of 1: (k + 1) / (2^k (k!)^2)."""
    return (k + 1) / (2**k * math.factorial(k) ** 2)
