"""Everything that is measured of a model's weights, in one pass over its matrices, a role at a time."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from src.geometry.weights.blocks import exact_device, gram
from src.geometry.weights.cross_layer import (
    READERS,
    WRITERS,
    LayerCosines,
    ResidualGrams,
    entry_cosines,
    gram_cosines,
    residual_grams,
    subspace_overlaps,
)
from src.geometry.weights.entries import Entries, entries
from src.geometry.weights.neurons import Neurons, neurons
from src.geometry.weights.norms import Gains
from src.geometry.weights.spectra import Spectrum, random_spectra, spectrum, top_eigenvectors
from src.models.checkpoint import Attention, Matrix, Role, Stack, Weights, read_matrix

Group = tuple[Stack, Role, Attention | None]


@dataclass(frozen=True, eq=False)
class MatrixProfile:
    """What was measured of one matrix."""

    matrix: Matrix
    spectrum: Spectrum
    entries: Entries


@dataclass(frozen=True, eq=False)
class LayerComparison:
    """One kind of matrix in all layers of a stack. overlaps: of the leading `rank` directions."""

    group: Group
    layers: tuple[int, ...]
    entries: LayerCosines
    grams: LayerCosines
    overlaps: LayerCosines
    rank: int


@dataclass(frozen=True, eq=False)
class Composition:
    """Gram cosines of what reads (rows: layers) and what writes the residual stream (columns: layers)."""

    reader: Group
    writer: Group
    reader_layers: tuple[int, ...]
    writer_layers: tuple[int, ...]
    cosines: LayerCosines


@dataclass(frozen=True, eq=False)
class LayerNeurons:
    """The neurons of an MLP, or of one expert of it."""

    stack: Stack
    layer: int
    expert: int | None
    shared: bool
    neurons: Neurons
    gated: bool
    d_model: int


@dataclass(eq=False)
class WeightProfile:
    """Of one model. skipped: parameters that are neither matrices nor norms nor biases; listed, not measured.

    random: spectra of Gaussian matrices by shape.
    """

    matrices: list[MatrixProfile] = field(default_factory=list)
    random: dict[tuple[int, int], list[Spectrum]] = field(default_factory=dict)
    comparisons: list[LayerComparison] = field(default_factory=list)
    compositions: list[Composition] = field(default_factory=list)
    neurons: list[LayerNeurons] = field(default_factory=list)
    norms: list[tuple[Matrix, Gains]] = field(default_factory=list)
    skipped: list[Matrix] = field(default_factory=list)

    def random_number(self, shape: tuple[int, int], name: str) -> float:
        """The mean of a number over random matrices of a shape (of the condition, which has none, the median)."""
        middle = np.median if name == "condition" else np.mean
        return float(middle([each.numbers()[name] for each in self.random[shape]]))


def is_measured(matrix: Matrix) -> bool:
    """Whether a parameter is a matrix of weights: two dimensions, and more than one row and column."""
    return len(matrix.shape) == 2 and min(matrix.shape) > 1 and matrix.role not in ("bias", "special_token", "norm")


def group_of(matrix: Matrix) -> Group:
    """Matrices of one group have the same place in every layer."""
    return matrix.stack, matrix.role, matrix.attention


def profile_weights(
    weights: Weights,
    matrices: Sequence[Matrix],
    device: torch.device,
    seed: int,
    subspace_rank: int,
    advance: Callable[[int], object] = lambda _: None,
) -> WeightProfile:
    """Measure every matrix. At any time one matrix, and the Gram matrices of three kinds, are in memory.

    advance: is told of each matrix that is done.
    """
    found = WeightProfile()
    writers: list[tuple[Group, tuple[int, ...], ResidualGrams]] = []
    wide = [matrix for matrix in matrices if is_measured(matrix)]
    # writers first: readers are compared with them
    order = sorted(wide, key=lambda m: (m.role not in WRITERS, *map(str, group_of(m))))
    for group, members in groupby(order, key=group_of):
        alike = list(members)
        bases = {}
        for matrix in alike:
            values = read_matrix(weights, matrix)
            compared = group[1] in (*READERS, *WRITERS) and matrix.layer is not None and matrix.expert is None
            profile, basis = _measured(matrix, values, device, subspace_rank if compared else 0)
            found.matrices.append(profile)
            if basis is not None:
                bases[matrix.name] = basis
            advance(1)
        in_layers = _comparable([matrix for matrix in alike if matrix.name in bases])
        if len(in_layers) < 2:
            continue
        grams = _compare(weights, group, in_layers, bases, device, found)
        layers = tuple(matrix.layer for matrix in in_layers if matrix.layer is not None)
        if group[1] in WRITERS:
            writers.append((group, layers, grams))
        else:
            found.compositions += [
                Composition(group, writer, layers, theirs, gram_cosines(grams, written))
                for writer, theirs, written in writers
                if writer[0] == group[0]
                and written.width == grams.width
                # what is read across comes from the other stack
                and not (group[2] == "cross" and group[1] in ("k", "v"))
            ]
    writers.clear()
    for shape in {profile.spectrum.shape for profile in found.matrices}:
        found.random[shape] = random_spectra(shape, seed)
    found.neurons = _neurons(weights, matrices, device)
    found.norms = [
        (matrix, Gains(read_matrix(weights, matrix).double().numpy())) for matrix in matrices if matrix.role == "norm"
    ]
    found.skipped = [m for m in matrices if not is_measured(m) and m.role not in ("norm", "bias")]
    place = {matrix.name: number for number, matrix in enumerate(matrices)}
    found.matrices.sort(key=lambda profile: place[profile.matrix.name])
    order_of = list(dict.fromkeys(group_of(matrix) for matrix in matrices))
    found.comparisons.sort(key=lambda comparison: order_of.index(comparison.group))
    found.compositions.sort(key=lambda pair: (order_of.index(pair.reader), order_of.index(pair.writer)))
    return found


def _measured(
    matrix: Matrix, values: Float[Tensor, "row column"], device: torch.device, rank: int
) -> tuple[MatrixProfile, Float[Tensor, "d_model rank"] | None]:
    """The profile of a matrix, and its leading directions on the side of the residual stream."""
    where = exact_device(device)
    tall = values if values.shape[1] <= values.shape[0] else values.T
    small = gram(tall, where)
    profile = MatrixProfile(matrix, spectrum(values, device, small), entries(values, device))
    if not rank:
        return profile, None
    basis = top_eigenvectors(small, min(rank, len(small)))
    residual_is_small = (matrix.role in READERS) == (values.shape[1] <= values.shape[0])
    if not residual_is_small:
        # W v / s of the directions of the other side
        other = tall.to(where, torch.float64) @ basis
        basis = torch.linalg.qr(other).Q
    return profile, basis.float().cpu()


def _comparable(members: list[Matrix]) -> list[Matrix]:
    """One matrix of a layer, those of the commonest shape."""
    shapes = [matrix.shape for matrix in members]
    kept = [matrix for matrix in members if shapes.count(matrix.shape) == max(map(shapes.count, shapes))]
    kept = [matrix for matrix in kept if matrix.shape == kept[0].shape and matrix.shared == kept[0].shared]
    return sorted(kept, key=lambda matrix: matrix.layer or 0)


def _compare(
    weights: Weights,
    group: Group,
    members: list[Matrix],
    bases: Mapping[str, Tensor],
    device: torch.device,
    found: WeightProfile,
) -> ResidualGrams:
    def read(place: int) -> Tensor:
        return read_matrix(weights, members[place])

    rows, columns = members[0].shape
    grams = residual_grams(read, len(members), group[1] in READERS, device)
    stacked = torch.stack([bases[matrix.name] for matrix in members])
    found.comparisons.append(
        LayerComparison(
            group,
            tuple(matrix.layer for matrix in members if matrix.layer is not None),
            entry_cosines(read, len(members), (rows, columns), device),
            gram_cosines(grams),
            subspace_overlaps(stacked),
            stacked.shape[-1],
        )
    )
    return grams


def _neurons(weights: Weights, matrices: Sequence[Matrix], device: torch.device) -> list[LayerNeurons]:
    parts: dict[tuple[Stack, int, int | None, bool], dict[str, Matrix]] = {}
    for matrix in matrices:
        if matrix.role in ("up", "gate", "down") and matrix.layer is not None and is_measured(matrix):
            parts.setdefault((matrix.stack, matrix.layer, matrix.expert, matrix.shared), {})[matrix.role] = matrix
    found = []
    for (stack, layer, expert, shared), part in parts.items():
        if "up" in part and "down" in part:
            read = {role: read_matrix(weights, matrix).to(device) for role, matrix in part.items()}
            measured = neurons(read["up"], read["down"], read.get("gate"))
            d_model = part["up"].shape[1]
            found.append(LayerNeurons(stack, layer, expert, shared, measured, "gate" in part, d_model))
    return found
