"""The same matrix in different layers: entry by entry, and by what it reads from or writes to the residual stream.

Units and heads have no common order between layers, so entries are compared in vain (BUG E-8); the residual stream is
common to all layers, and W'W (of what reads it) or W W' (of what writes it) does not depend on that order.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from src.geometry.weights.blocks import exact_device, gram

READERS = ("q", "k", "v", "gate", "up")
WRITERS = ("o", "down")
# values that are held at once while entries are compared: 256 MB in float32
_HELD = 1 << 26

Layers = Float[Tensor, "layer layer"]


@dataclass(frozen=True, eq=False)
class LayerCosines:
    """Cosines of every pair of layers. deviation: standard deviation by chance, around `expected`."""

    values: Layers
    deviation: float
    expected: float = 0.0

    @property
    def adjacent(self) -> float:
        """Mean over neighbouring layers."""
        return float(self.values.diagonal(1).mean())

    @property
    def between(self) -> Float[Tensor, "pair"]:
        """The values of all pairs."""
        n = len(self.values)
        return self.values[tuple(torch.triu_indices(n, n, 1))]

    def z(self, value: float) -> float:
        """How many standard deviations a pair's value is beyond chance."""
        return (value - self.expected) / self.deviation if self.deviation else math.nan

    def numbers(self) -> dict[str, float]:
        """Mean, range and neighbours, in cosines and in standard deviations of chance for one pair."""
        pairs = self.between
        return {
            "mean": float(pairs.mean()),
            "adjacent": self.adjacent,
            "min": float(pairs.min()),
            "max": float(pairs.max()),
            "chance": self.expected,
            "chance_deviation": self.deviation,
            "z_mean_pair": self.z(float(pairs.mean())),
            "z_adjacent_pair": self.z(self.adjacent),
            "z_largest_pair": self.z(float(pairs.max())),
        }


def entry_cosines(
    read: Callable[[int], Float[Tensor, "row column"]], n_layers: int, shape: tuple[int, int], device: torch.device
) -> LayerCosines:
    """Cosines of flattened matrices, a stretch of entries of all layers at a time.

    Independent entries give 0 with standard deviation 1 / sqrt(numel). read: the matrix of the i-th layer; it is read
    as often as its entries do not fit.
    """
    numel = shape[0] * shape[1]
    products = torch.zeros(n_layers, n_layers, dtype=torch.float64, device=exact_device(device))
    stretch = max(1, _HELD // n_layers)
    for start in range(0, numel, stretch):
        width = min(stretch, numel - start)
        stacked = torch.empty(n_layers, width, dtype=torch.float32, device=device)
        for layer in range(n_layers):
            stacked[layer] = _entries(read(layer), start, width).to(device)
        products += (stacked @ stacked.T).to(products)
    return LayerCosines(_as_cosines(products).cpu(), 1 / math.sqrt(numel))


def _entries(matrix: Tensor, start: int, width: int) -> Float[Tensor, "width"]:
    """Some entries in row-major order, without a copy of all."""
    columns = matrix.shape[1]
    first, last = start // columns, -(-(start + width) // columns)
    return matrix[first:last].reshape(-1)[start - first * columns :][:width]


def _as_cosines(products: Layers) -> Layers:
    norms = products.diagonal().sqrt()
    norms = torch.where(norms > 0, norms, torch.inf)
    return products / norms[:, None] / norms[None]


@dataclass(frozen=True, eq=False)
class ResidualGrams:
    """W'W or W W' of each layer on the residual side, without their traces, packed and of length 1.

    packed: upper triangles, entries off the diagonal times sqrt 2, so that dot products are those of the matrices.
    width: of the residual stream.
    """

    packed: Float[Tensor, "layer entry"]
    width: int


def residual_grams(
    read: Callable[[int], Float[Tensor, "row column"]], n_layers: int, reader: bool, device: torch.device
) -> ResidualGrams:
    """Of readers W'W, of writers W W', in float32. read: the matrix of the i-th layer."""
    packed: Tensor | None = None
    width = 0
    for layer in range(n_layers):
        matrix = read(layer)
        whole = gram(matrix if reader else matrix.T, device, torch.float32)
        width = len(whole)
        whole -= torch.eye(width, device=device) * whole.diagonal().double().mean().float()
        upper = _packed(whole)
        if packed is None:
            packed = torch.zeros(n_layers, len(upper), device=device)
        length = torch.linalg.vector_norm(upper)
        packed[layer] = upper / length if length > 0 else upper
    assert packed is not None
    return ResidualGrams(packed, width)


def _packed(symmetric: Float[Tensor, "side side"]) -> Float[Tensor, "entry"]:
    side = len(symmetric)
    rows = [symmetric[row, row + 1 :] for row in range(side)]
    return torch.cat([symmetric.diagonal(), *(row * math.sqrt(2) for row in rows)])


def gram_cosines(grams: ResidualGrams, others: ResidualGrams | None = None) -> LayerCosines:
    """Cosines of traceless Gram matrices of all pairs of layers: of one kind, or of readers (rows) and writers.

    Turning one of two by a random rotation gives 0 with standard deviation 1 / sqrt((d - 1)(d + 2) / 2), the dimension
    of the traceless symmetric matrices, an irreducible representation of the rotations: exact for any pair. Where
    neurons and heads are permuted or rotated nothing changes.
    """
    products = grams.packed @ (grams if others is None else others).packed.T
    return LayerCosines(products.double().cpu(), rotation_deviation(grams.width))


def rotation_deviation(d_model: int) -> float:
    """Standard deviation of the cosine of two traceless symmetric matrices of which one is randomly rotated."""
    return 1 / math.sqrt(max(1.0, (d_model - 1) * (d_model + 2) / 2))


def subspace_overlaps(bases: Float[Tensor, "layer d_model rank"]) -> LayerCosines:
    """Mean squared cosine of the principal angles between the subspaces of all pairs of layers.

    Random subspaces give rank / d with standard deviation (1 - rank / d) / sqrt((d - 1)(d + 2) / 2): the cosine of the
    traceless projectors, and its exact deviation.
    """
    n_layers, d_model, rank = bases.shape
    flat = bases.permute(1, 0, 2).reshape(d_model, -1).float()
    products = (flat.T @ flat).square().reshape(n_layers, rank, n_layers, rank).sum((1, 3)) / rank
    share = rank / d_model
    return LayerCosines(products.double().cpu(), (1 - share) * rotation_deviation(d_model), share)
