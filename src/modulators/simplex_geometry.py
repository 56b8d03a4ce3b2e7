"""Regular simplices, and volumes of simplices that gradients flow through."""

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


def square_edges(vertices: Float[Tensor, "*batch vertex width"]) -> Float[Tensor, "*batch edge"]:
    """Squared lengths of all edges, pairs (i, j) with i < j in order, from differences (never from a Gram matrix)."""
    first, second = torch.triu_indices(vertices.shape[-2], vertices.shape[-2], 1, device=vertices.device)
    return (vertices[..., first, :] - vertices[..., second, :]).square().sum(-1)


def log_square_volume(vertices: Float[Tensor, "*batch vertex width"]) -> Float[Tensor, "*batch"]:
    """Log V^2 = 2 sum log R_ii - 2 log k! of simplices, R_ii from the edge vectors by modified Gram-Schmidt.

    In float32 or above; -inf where a simplex is flat. The error grows with the condition of the edges, not with its
    square as that of Cayley-Menger or Gram determinants does (spec B5, H2). k steps, each of all simplices at once: a
    batched QR is a call to LAPACK for each of them.
    """
    vertices = vertices if vertices.dtype == torch.float64 else vertices.float()
    rest = vertices[..., 1:, :] - vertices[..., :1, :]
    k = rest.shape[-2]
    log_volume = torch.full(rest.shape[:-2], -2 * math.lgamma(k + 1), dtype=rest.dtype, device=rest.device)
    for _ in range(k):
        first, rest = rest[..., :1, :], rest[..., 1:, :]
        square = first.square().sum(-1, keepdim=True)
        log_volume = log_volume + square[..., 0, 0].log()
        along = (rest * first).sum(-1, keepdim=True) / square.clamp_min(torch.finfo(square.dtype).tiny)
        rest = rest - along * first
    return log_volume
