"""What an expert sees of its simplices: logarithms of edges and volumes, with the gradient written out."""

import math
from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from src.modulators.simplex_geometry import regular_square_volume

# added to d^2 and to V^2 (both 1 for the template): an edge of a thousandth of the template's is as good as none
FLOOR = 1e-6
# a height below so many times the dtype's precision, as a share of its edge, is rounding and counts as 0
_ROUNDING = 8
# share of V^2 in V^2 + FLOOR below which its gradient is 0 in float32, and the dual vectors may overflow
_FLAT = 1e-10


def n_edges(k: int) -> int:
    """Of a k-simplex."""
    return k * (k + 1) // 2


def n_features(k: int) -> int:
    """Edges, and for k > 1 the volume: of an edge it is the edge again (BUG H-3)."""
    return n_edges(k) + (k > 1)


def first_edges(k: int) -> Float[Tensor, "k vertex"]:
    """Vertices 1 to k less vertex 0: the edges that all others are differences of."""
    return torch.cat([-torch.ones(k, 1), torch.eye(k)], dim=1)


def simplex_features(edges: Float[Tensor, "k width token"]) -> Float[Tensor, "feature token"]:
    """log(d^2 + FLOOR) of every edge, and for k > 1 log(V^2 / V_template^2 + FLOOR), of many k-simplices at once.

    V^2 is the product of the squared lengths of the k edges of vertex 0 after modified Gram-Schmidt, over (k!)^2: its
    error grows with the condition of the edges, not with its square as that of Cayley-Menger or Gram determinants does
    (spec B5, H2). Its gradient is d log V^2 / d e_i = 2 e*_i with the dual vectors e*_i (e*_i . e_j = 1 if i = j, else
    0), by back substitution through the same Gram-Schmidt. A simplex that is flat but for rounding, of whatever size,
    has V^2 = 0 and no gradient of it.

    edges: from vertex 0 to the others (first_edges), float32 or float64; the others are their differences, and what is
    shorter by orders of magnitude has as many digits fewer. Features are of these edges first, then of (1, 2), (1, 3)
    ... (k - 1, k). Gradients of the first order only.
    """
    return _SimplexFeatures.apply(edges)  # pyright: ignore[reportReturnType]


class _SimplexFeatures(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, edges: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        k = len(edges)
        features = edges.new_empty(n_features(k), edges.shape[-1])
        squares = edges.new_empty(n_edges(k), edges.shape[-1])
        for rows, group in _edge_groups(edges):
            torch.sum(group.square(), 1, out=squares[rows])
        torch.log(squares.add_(FLOOR), out=features[: len(squares)])
        duals = None
        if k > 1:
            features[-1], duals = _volume(edges, squares[:k], bool(ctx.needs_input_grad[0]))
        ctx.save_for_backward(edges, squares, duals)
        return features

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        edges, squares, duals = ctx.saved_tensors
        (gradient,) = gradients
        weights = (2 * gradient[: len(squares)]).div_(squares)[:, None]
        groups = _edge_groups(edges)
        rows, group = next(groups)
        result = group * weights[rows]
        for vertex, (rows, group) in enumerate(groups):
            group.mul_(weights[rows])
            result[vertex + 1 :] += group
            result[vertex] -= group.sum(0)
        return result if duals is None else result.addcmul_(duals, gradient[-1])


def _edge_groups(edges: Float[Tensor, "k width token"]) -> Iterator[tuple[slice, Float[Tensor, "edge width token"]]]:
    """The edges of vertex 0 to later ones, those of vertex 1, and so on; and their place among all edges."""
    k = len(edges)
    yield slice(0, k), edges
    place = k
    for vertex in range(k - 1):
        end = place + k - 1 - vertex
        yield slice(place, end), edges[vertex + 1 :] - edges[vertex]
        place = end


def _volume(
    edges: Float[Tensor, "k width token"], squares: Float[Tensor, "k token"], with_gradient: bool
) -> tuple[Float[Tensor, " token"], Float[Tensor, "k width token"] | None]:
    """log(V^2 / V_template^2 + FLOOR), and its gradient with respect to the edges of vertex 0."""
    k, precision = len(edges), torch.finfo(edges.dtype)
    flat = (_ROUNDING * precision.eps) ** 2
    rest = edges.clone()
    log_volume = edges.new_full(edges.shape[-1:], -2 * math.lgamma(k + 1) - math.log(regular_square_volume(k)))
    heights, shares = [], []
    for i in range(k):
        height = rest[i].square().sum(0)
        log_volume += height.masked_fill(height <= flat * squares[i], 0).log()
        heights.append(height.clamp_(min=precision.tiny))
        if i + 1 < k:
            share = (rest[i + 1 :] * rest[i]).sum(1).div_(heights[i])
            rest[i + 1 :].addcmul_(share[:, None], rest[i], value=-1)
            shares.append(share)
    feature = torch.logaddexp(log_volume, log_volume.new_full((), math.log(FLOOR)))
    if not with_gradient:
        return feature, None
    duals = rest.div_(torch.stack(heights)[:, None])
    for i in range(k - 2, -1, -1):
        duals[i] -= (shares[i][:, None] * duals[i + 1 :]).sum(0)
    weight = (log_volume - feature).exp_()
    return feature, duals.mul_(2 * weight).masked_fill_(weight < _FLAT, 0.0)
