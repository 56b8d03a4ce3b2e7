"""Vectors from simplices of embeddings."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from src.modulators.beginning.simplices import principal_parts, simplex_vectors, weighted_vertices
from src.modulators.simplex_geometry import regular_simplex


@given(st.integers(1, 6), st.integers(0, 100))
def test_the_plain_sum_of_a_centred_simplex_is_refused(k: int, seed: int) -> None:
    """BUG G-1: it is zero but for rounding, and dividing it by its length makes a random direction."""
    vertices = regular_simplex(k, 8)
    turned = vertices @ torch.linalg.qr(torch.randn(8, 8, generator=torch.Generator().manual_seed(seed)).double()).Q
    for exact in (turned, turned.float()):
        pooled, solid = weighted_vertices(exact, torch.ones(k + 1, dtype=exact.dtype))
        assert float(pooled.norm()) < 1e-5
        assert not bool(solid)


@given(st.integers(1, 6))
def test_weights_that_differ_keep_a_simplex(k: int) -> None:
    vertices = regular_simplex(k, 8)
    pooled, solid = weighted_vertices(vertices, torch.tensor([1.0] + [0.0] * k, dtype=torch.float64))
    assert bool(solid)
    torch.testing.assert_close(pooled, vertices[0])


def test_a_vector_points_from_the_neighbours_to_the_token() -> None:
    """A token above a square of four copies of one length: its neighbours are in the plane, so it points up."""
    square = torch.tensor([[3.0, 0.0, 0.0], [-3.0, 0.0, 0.0], [0.0, 3.0, 0.0], [0.0, -3.0, 0.0]])
    points = torch.cat([square, torch.tensor([[0.0, 0.0, 2.0]])]).double()
    vectors, found = simplex_vectors(points, k=4)
    assert found.all()
    assert vectors[4].tolist() == pytest.approx([0, 0, 1], abs=1e-12)
    assert vectors.norm(dim=1).tolist() == pytest.approx([1] * 5)


def test_copies_have_no_vector() -> None:
    """BUG G-1 by data: a token whose neighbours are copies of it, as padding rows of a vocabulary are."""
    draws = torch.Generator().manual_seed(0)
    points = torch.randn(30, 6, generator=draws)
    points[20:] = points[20]
    vectors, found = simplex_vectors(points, k=4)
    assert found.tolist() == [True] * 20 + [False] * 10
    assert not vectors[20:].any()


def test_vectors_do_not_depend_on_blocks_or_precision() -> None:
    draws = torch.Generator().manual_seed(0)
    points = torch.randn(60, 6, generator=draws)
    half, _ = simplex_vectors(points)
    whole, _ = simplex_vectors(points.double())
    torch.testing.assert_close(half.double(), whole, atol=1e-5, rtol=0)


def test_principal_parts_are_those_of_the_svd() -> None:
    rows = torch.randn(40, 6, generator=torch.Generator().manual_seed(0)) * torch.arange(6, 0, -1) + 5
    points, basis = principal_parts(rows, 3)
    u, s, v = torch.linalg.svd(rows.double() - rows.double().mean(0), full_matrices=False)
    torch.testing.assert_close(points @ points.T, (u[:, :3] * s[:3].square()) @ u[:, :3].T)
    torch.testing.assert_close(basis @ basis.T, v[:3].T @ v[:3])
