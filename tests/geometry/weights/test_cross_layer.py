"""Layers against each other: nulls by simulation, and what is found under another order of units (BUG E-8)."""

import numpy as np
import pytest
import torch
from torch import Tensor

from src.geometry.weights import cross_layer
from src.geometry.weights.cross_layer import (
    LayerCosines,
    entry_cosines,
    gram_cosines,
    residual_grams,
    rotation_deviation,
    subspace_overlaps,
)

CPU = torch.device("cpu")


def _draws(n: int, rows: int, columns: int, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(rows, columns, generator=generator) for _ in range(n)]


@pytest.mark.parametrize("held", [1 << 26, 130])
def test_entry_cosines_are_those_of_flattened_matrices(held: int, monkeypatch) -> None:
    """However few entries fit at once."""
    monkeypatch.setattr(cross_layer, "_HELD", held)
    matrices = _draws(5, 12, 9)
    matrices[3] = matrices[1] + 0.1 * matrices[3]
    found = entry_cosines(lambda layer: matrices[layer], 5, (12, 9), CPU)
    flat = torch.stack([matrix.flatten() for matrix in matrices])
    expected = torch.nn.functional.cosine_similarity(flat[:, None], flat[None], dim=-1)
    torch.testing.assert_close(found.values.float(), expected, atol=1e-5, rtol=1e-5)


def test_entry_cosines_of_independent_matrices_have_their_chance() -> None:
    matrices = _draws(20, 40, 50)
    found = entry_cosines(lambda layer: matrices[layer], 20, (40, 50), CPU)
    z = found.between / found.deviation
    assert float(z.std()) == pytest.approx(1, abs=0.15)
    assert abs(float(z.mean())) < 0.3


@pytest.mark.parametrize("reader", [True, False])
def test_another_basis_of_units_hides_nothing_from_gram_cosines(reader: bool) -> None:
    """The same layer in another basis of heads: entries as chance has it, Gram cosine 1; independent ones 0."""
    first, other = _draws(2, 64, 64)
    rotation, triangle = torch.linalg.qr(_draws(1, 64, 64, seed=5)[0])
    rotation = rotation * triangle.diagonal().sign()  # uniform over rotations
    rotated = rotation @ first if reader else first @ rotation
    matrices = [first, rotated, other]
    flat = entry_cosines(lambda layer: matrices[layer], 3, (64, 64), CPU)
    found = gram_cosines(residual_grams(lambda layer: matrices[layer], 3, reader, CPU))
    assert abs(flat.z(float(flat.values[0, 1]))) < 4
    assert float(found.values[0, 1]) == pytest.approx(1, abs=1e-4)
    assert abs(found.z(float(found.values[0, 2]))) < 4


def test_gram_cosines_are_those_of_traceless_matrices() -> None:
    matrices = _draws(3, 30, 8)
    found = gram_cosines(residual_grams(lambda layer: matrices[layer], 3, True, CPU)).values
    grams = [m.T @ m for m in matrices]
    grams = [g - torch.eye(8) * g.trace() / 8 for g in grams]
    expected = float((grams[0] * grams[2]).sum() / grams[0].norm() / grams[2].norm())
    assert float(found[0, 2]) == pytest.approx(expected, abs=1e-5)


def test_the_deviation_under_rotations_is_exact() -> None:
    generator = np.random.default_rng(0)
    one, other = (np.diag(generator.standard_normal(6)) for _ in range(2))
    one, other = (m - np.eye(6) * np.trace(m) / 6 for m in (one, other))
    values = []
    for _ in range(4000):
        q = np.linalg.qr(generator.standard_normal((6, 6)))[0]
        q *= np.sign(generator.standard_normal(6))
        values.append((q @ one @ q.T * other).sum() / np.linalg.norm(one) / np.linalg.norm(other))
    assert np.std(values) == pytest.approx(rotation_deviation(6), rel=0.05)
    assert abs(np.mean(values)) < 0.01


def test_subspace_overlaps() -> None:
    bases = torch.stack([torch.linalg.qr(draw).Q for draw in _draws(30, 40, 5)])
    bases[1] = bases[0] @ torch.linalg.qr(_draws(1, 5, 5, seed=9)[0]).Q
    found = subspace_overlaps(bases)
    assert float(found.values[0, 1]) == pytest.approx(1, abs=1e-5)
    angles = torch.linalg.svdvals(bases[2].T @ bases[3])
    assert float(found.values[2, 3]) == pytest.approx(float(angles.square().mean()), abs=1e-5)
    chance = LayerCosines(found.values[1:, 1:], found.deviation, found.expected).between
    assert float(chance.mean()) == pytest.approx(5 / 40, abs=0.005)
    assert float(chance.std()) == pytest.approx(found.deviation, rel=0.15)


def test_readers_against_writers() -> None:
    """What reads only the directions that an earlier matrix writes."""
    directions = torch.linalg.qr(_draws(1, 40, 6)[0]).Q
    writer = directions @ _draws(1, 6, 30, seed=1)[0]
    reader = _draws(1, 50, 6, seed=2)[0] @ directions.T
    elsewhere = _draws(1, 50, 40, seed=3)[0]
    written = residual_grams(lambda _: writer, 1, False, CPU)
    read = residual_grams(lambda layer: (reader, elsewhere)[layer], 2, True, CPU)
    found = gram_cosines(read, written)
    assert float(found.values[0, 0]) > 0.7
    assert abs(found.z(float(found.values[1, 0]))) < 4


def test_a_zero_layer_has_no_direction() -> None:
    matrices = [torch.zeros(4, 3), *_draws(1, 4, 3)]
    assert float(entry_cosines(lambda layer: matrices[layer], 2, (4, 3), CPU).values[0, 1]) == 0
    assert float(gram_cosines(residual_grams(lambda layer: matrices[layer], 2, True, CPU)).values[0, 1]) == 0
