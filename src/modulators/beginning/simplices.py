"""Tokens' vectors from simplices of embeddings: where a token lies in the simplex of its neighbours."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from src.geometry.directions import unit_rows
from src.modulators.beginning.interpolation import nearest_rows

# of the length of the vertices that are added up
_ROUNDING = 1e-5


def weighted_vertices(
    vertices: Float[Tensor, "*batch vertex d"], weights: Float[Tensor, "*#batch vertex"]
) -> tuple[Float[Tensor, "*batch d"], Bool[Tensor, "*batch"]]:
    """Sums of the vertices with weights, and which of them are more than rounding.

    The plain sum of a simplex that is centred at the origin is zero, and dividing it by its length makes a direction
    of rounding errors (BUG G-1): what is not True here must not be used.
    """
    pooled = (weights[..., None] * vertices).sum(-2)
    scale = (weights.abs() * vertices.norm(dim=-1)).sum(-1)
    return pooled, pooled.norm(dim=-1) > _ROUNDING * scale


def principal_parts(
    rows: Float[Tensor, "row d"], width: int
) -> tuple[Float[Tensor, "row part"], Float[Tensor, "d part"]]:
    """Centred rows in their first principal directions, and these (orthonormal columns)."""
    centred = rows.double() - rows.double().mean(0)
    values, vectors = torch.linalg.eigh(centred.T @ centred)
    basis = vectors[:, -min(width, len(values)) :].flip(1)
    largest = basis.abs().argmax(0)
    basis = basis * basis[largest, torch.arange(basis.shape[1], device=basis.device)].sign()
    return centred @ basis, basis


def simplex_vectors(
    points: Float[Tensor, "token part"], k: int = 4
) -> tuple[Float[Tensor, "token part"], Bool[Tensor, " token"]]:
    """Of each token, its simplex with its k nearest neighbours (by cosine), centred, as a weighted sum of the vertices.

    The weights are w_0 = 1 for the token itself and w_i = softmax(-distance / mean distance) / 2 for neighbours: they
    are not alike, so that the sum does not vanish (BUG G-1). The direction is from where the neighbours are to the
    token; vectors have length 1. Second: which tokens have one (not those whose neighbours are copies of it).
    """
    nearest = nearest_rows(points, points, k + 1)[1]
    vectors, found = torch.zeros_like(points), torch.zeros(len(points), dtype=torch.bool, device=points.device)
    for own in torch.arange(len(points), device=points.device).split(4096):
        vertices = points[_own_first(own, nearest[own])]
        distances = (vertices[:, 1:] - vertices[:, :1]).norm(dim=-1)
        mean = distances.mean(1, keepdim=True)
        near = (-distances / torch.where(mean > 0, mean, 1)).softmax(1) / 2
        weights = torch.cat([torch.ones_like(near[:, :1]), near], dim=1)
        pooled, solid = weighted_vertices(vertices - vertices.mean(1, keepdim=True), weights)
        # copies: their simplex has no size, and its centre is rounding
        solid &= distances.amax(1) > _ROUNDING * vertices[:, 0].norm(dim=-1)
        vectors[own] = torch.where(solid[:, None], unit_rows(pooled), 0)
        found[own] = solid
    return vectors, found


def _own_first(own: Int[Tensor, " token"], nearest: Int[Tensor, "token neighbour"]) -> Int[Tensor, "token neighbour"]:
    """The token itself and then its neighbours; among copies it may not have been found as its own nearest."""
    others = torch.where(nearest == own[:, None], -1, nearest)
    # itself goes to the front; where it was not found, the last neighbour makes room
    order = (others >= 0).to(torch.int8).argsort(dim=1, stable=True)
    ordered = others.gather(1, order)
    missing = ordered[:, 0] >= 0
    ordered[missing] = others[missing].roll(1, dims=1)
    ordered[:, 0] = own
    return ordered
