"""The notebook's templates, whose edges are not equal (BUG H-1), and its Cayley-Menger volumes (spec H2)."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from src.errors import StrataError

# Edges in the order of torch.triu_indices. Published: those of k = 1 and 2 in full, and the first, shortest and longest
# of k = 3 and 4, whose other edges are 1 here.
_EDGES = {
    1: (1.0,),
    2: (1.0, 1.050, 0.959),
    3: (1.0, 1.067, 1.0, 0.950, 1.0, 1.0),
    4: (1.0, 1.076, 1.0, 1.0, 0.944, 1.0, 1.0, 1.0, 1.0, 1.0),
}


def notebook_template(k: int, width: int) -> Float[Tensor, "vertex width"]:
    """Its vertices, centred, float64: from the edges by classical scaling; the other dimensions are zero.

    Raises:
        StrataError: a k whose template is not published; a k-simplex that does not fit into `width` dimensions.
    """
    if k not in _EDGES or k > width:
        raise StrataError(
            f"the notebook's templates are known for k = {', '.join(map(str, _EDGES))} in at least k dimensions, not "
            f"for k = {k} in {width}: change modulator.field.dimensions or width, or set compat=null"
        )
    squares = torch.zeros(k + 1, k + 1, dtype=torch.float64)
    first, second = torch.triu_indices(k + 1, k + 1, 1)
    squares[first, second] = torch.tensor(_EDGES[k], dtype=torch.float64).square()
    squares = squares + squares.T
    centring = torch.eye(k + 1, dtype=torch.float64) - 1 / (k + 1)
    values, vectors = torch.linalg.eigh(-centring @ squares @ centring / 2)
    vertices = torch.zeros(k + 1, width, dtype=torch.float64)
    vertices[:, :k] = vectors[:, -k:] * values[-k:].sqrt()
    return vertices


def notebook_volume(
    vertices: Float[Tensor, "*batch vertex width"],
) -> tuple[Float[Tensor, "*batch edge"], Float[Tensor, "*batch"]]:
    """Squared edges, from a Gram matrix and cut off at 0, and V^2 = (-1)^(k+1) det(CM) / (2^k (k!)^2)."""
    k = vertices.shape[-2] - 1
    gram = vertices @ vertices.mT
    lengths = gram.diagonal(dim1=-2, dim2=-1)
    squares = (lengths[..., :, None] + lengths[..., None, :] - 2 * gram).clamp_min(0)
    bordered = torch.ones(*squares.shape[:-2], k + 2, k + 2, dtype=squares.dtype, device=squares.device)
    bordered[..., 0, 0] = 0
    bordered[..., 1:, 1:] = squares
    volume = (-1) ** (k + 1) * torch.linalg.det(bordered) / (2**k * math.factorial(k) ** 2)
    first, second = torch.triu_indices(k + 1, k + 1, 1, device=vertices.device)
    return squares[..., first, second], volume
