"""Volumes of simplices as logarithms, for many simplices at once."""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

# below this part of the points' squared norms a pivot of the Gram matrix has lost too many digits (spec B5), and the
# simplex is measured again from its edges
_ILL_CONDITIONED = 1e-6
# a height that is less than this many roundings of the longest edge is 0; float64 can afford to be strict, for nothing
# that was stored in fewer bits means anything so far down
_ROUNDINGS = {torch.float32: 2**3, torch.float64: 2**12}
# numbers that one block of gathered blocks or edges may hold
_BLOCK = 2**21


class VertexPool:
    """Finite points whose simplices are measured.

    Float64 points: one Gram matrix serves all simplices, each takes its block of it, and the few whose block is ill
    conditioned are measured by QR. Points in any lower precision: by QR of their edges in float32, whose error grows
    with the condition number and not with its square (spec B5).
    """

    def __init__(self, points: Float[Tensor, "point d"]) -> None:
        wide = points if points.dtype == torch.float64 else points.float()
        self.points = wide - wide.mean(dim=0)
        # copies are told by their bits: a determinant sees rounding errors in their place
        self._copies = torch.unique(wide, dim=0, return_inverse=True)[1]
        self._gram = self.points @ self.points.T if points.dtype == torch.float64 else None

    def __len__(self) -> int:
        return len(self.points)

    def log_volumes(self, simplices: Int[Tensor, "simplex vertex"]) -> Float[Tensor, " simplex"]:
        """Logarithms of volumes V of simplices with k + 1 vertices; -inf where these span less than k dimensions.

        V = sqrt(det(D D')) / k! with the k edges from vertex 0 as rows of D (spec B1).
        """
        k = simplices.shape[1] - 1
        if k > self.points.shape[1]:
            return self.points.new_full((len(simplices),), -math.inf)
        of_block = self._from_gram if self._gram is not None else self._from_edges
        width = (k + 1) ** 2 if self._gram is not None else k * self.points.shape[1]
        blocks = simplices.split(max(1, _BLOCK // width))
        logs = torch.cat([of_block(block) for block in blocks]) - math.lgamma(k + 1)
        classes = self._copies[simplices].sort(dim=1).values
        return logs.masked_fill((classes[:, 1:] == classes[:, :-1]).any(dim=1), -math.inf)

    def _from_gram(self, simplices: Int[Tensor, "simplex vertex"]) -> Float[Tensor, " simplex"]:
        assert self._gram is not None
        k, size = simplices.shape[1] - 1, len(self.points)
        entries, vertices = self._gram.view(-1), simplices.T.contiguous()
        squares = entries.take(vertices * (size + 1))
        # (p_i - p_0).(p_j - p_0) = G_ij - s_i - s_j with s_i = G_i0 - G_00 / 2; the lower triangle alone is filled
        shift = entries.take(vertices[1:] * size + vertices[0]) - squares[0] / 2
        edges = entries.new_empty(k, k, len(simplices))
        for column in range(k):
            below = entries.take(vertices[column + 1 :] * size + vertices[column + 1])
            torch.sub(below, shift[column:], out=edges[column:, column]).sub_(shift[column])
        pivots = _pivots(edges)
        ill = ~(pivots > _ILL_CONDITIONED * squares.amax(dim=0)).all(dim=0)
        logs = pivots.log().sum(dim=0) / 2
        if ill.any():
            some = simplices[ill].split(max(1, _BLOCK // self.points.shape[1]))
            logs[ill] = torch.cat([self._from_edges(part) for part in some])
        return logs

    def _from_edges(self, simplices: Int[Tensor, "simplex vertex"]) -> Float[Tensor, " simplex"]:
        edges = self.points[simplices[:, 1:]] - self.points[simplices[:, :1]]
        factor = torch.linalg.qr(edges.transpose(1, 2), mode="r").R
        heights = factor.diagonal(dim1=1, dim2=2).abs()
        longest = edges.norm(dim=2).amax(dim=1, keepdim=True)
        flat = (heights <= _ROUNDINGS[edges.dtype] * torch.finfo(edges.dtype).eps * longest).any(dim=1)
        return heights.log().sum(dim=1).masked_fill(flat, -math.inf)


def _pivots(matrices: Float[Tensor, "k k matrix"]) -> Float[Tensor, "k matrix"]:
    """Squared diagonals of the Cholesky factors, from the lower triangles, which are overwritten.

    Column by column for all matrices at once: LAPACK is called once for each small matrix, which takes three times as
    long.
    """
    k = len(matrices)
    for column in range(k - 1):
        below = matrices[column + 1 :, column]
        scaled = below / matrices[column, column]
        for other in range(column + 1, k):
            matrices[other:, other].addcmul_(below[other - column - 1 :], scaled[other - column - 1], value=-1)
    return matrices.diagonal(dim1=0, dim2=1).T
