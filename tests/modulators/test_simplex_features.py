"""Edges and volumes of simplices, their gradients, and what becomes of flat ones."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from src.errors import StrataError
from src.geometry.simplices.volumes import VertexPool
from src.modulators.simplex_features import FLOOR, first_edges, n_edges, n_features, simplex_features
from src.modulators.simplex_geometry import regular_simplex, regular_square_volume

KS = (1, 2, 3, 4, 8)


def _edges(vertices: torch.Tensor) -> torch.Tensor:
    """From vertex 0: [k, width, token] of [vertex, width, token]."""
    return torch.einsum("nv,vwt->nwt", first_edges(len(vertices) - 1).to(vertices), vertices)


def _drawn(k: int, n: int = 6, spread: float = 0.3) -> torch.Tensor:
    draws = torch.Generator().manual_seed(k)
    noise = torch.randn(k + 1, 8, n, dtype=torch.float64, generator=draws)
    return regular_simplex(k, 8)[..., None] + spread * noise


@pytest.mark.parametrize("k", KS)
def test_all_edges_of_a_template_are_one(k: int) -> None:
    """BUG H-1: in the notebook's they run from 0.94 to 1.08, which its volume does not show."""
    template = regular_simplex(k, 8)
    distances = torch.pdist(template)
    assert len(distances) == n_edges(k)
    torch.testing.assert_close(distances, torch.ones_like(distances), atol=1e-12, rtol=0)
    torch.testing.assert_close(template.mean(0), torch.zeros(8, dtype=torch.float64), atol=1e-12, rtol=0)


@pytest.mark.parametrize(("k", "expected"), [(1, 1.0), (2, 0.1875), (3, 1.3889e-2), (4, 5.4253e-4)])
def test_square_volumes_of_regular_simplices_are_those_of_the_specification(k: int, expected: float) -> None:
    assert regular_square_volume(k) == pytest.approx(expected, rel=1e-4)
    measured = VertexPool(regular_simplex(k, 8)).log_volumes(torch.arange(k + 1)[None])
    assert math.exp(2 * float(measured)) == pytest.approx(expected, rel=1e-4)


def test_a_simplex_that_does_not_fit_is_refused() -> None:
    with pytest.raises(StrataError, match="dimension 5 does not fit into 4"):
        regular_simplex(5, 4)


@pytest.mark.parametrize("k", KS)
def test_features_are_logarithms_of_edges_and_of_the_volume(k: int) -> None:
    vertices = _drawn(k)
    found = simplex_features(_edges(vertices))
    assert found.shape == (n_features(k), 6)
    for token in range(6):
        points = vertices[..., token]
        torch.testing.assert_close(found[: n_edges(k), token], (torch.pdist(points).square() + FLOOR).log())
        if k > 1:
            log_volume = VertexPool(points).log_volumes(torch.arange(k + 1)[None])
            square = (2 * log_volume).exp() / regular_square_volume(k)
            torch.testing.assert_close(found[-1:, token], (square + FLOOR).log())


def test_features_of_templates_are_zero_and_an_edge_has_no_volume_of_its_own() -> None:
    """BUG H-3: V^2 of an edge is its d^2, so that LayerNorm makes 0 of both; here it is told once."""
    for k in KS:
        found = simplex_features(_edges(regular_simplex(k, 8)[..., None]))
        torch.testing.assert_close(found, torch.zeros_like(found), atol=2e-6, rtol=0)
    assert n_features(1) == 1
    stretched = simplex_features(3 * _edges(regular_simplex(1, 8)[..., None]))
    assert float(stretched) == pytest.approx(math.log(9), abs=1e-6)


@pytest.mark.parametrize("k", KS)
def test_gradients_are_those_of_finite_differences(k: int) -> None:
    edges = _edges(_drawn(k, n=2)).requires_grad_()
    assert torch.autograd.gradcheck(simplex_features, (edges,))


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 4), st.floats(0.05, 20), st.integers(0, 2**31))
def test_scaling_adds_to_the_volume_k_times_the_logarithm(k: int, scale: float, seed: int) -> None:
    draws = torch.Generator().manual_seed(seed)
    edges = _edges(torch.randn(k + 1, 8, 1, dtype=torch.float64, generator=draws))
    once, scaled = (simplex_features(edges * factor)[-1].exp() - FLOOR for factor in (1.0, scale))
    # the floor is subtracted again, so that what is left of a small volume has few digits
    torch.testing.assert_close(scaled, once * scale ** (2 * k), rtol=1e-6, atol=1e-9 * (1 + scale ** (2 * k)))


def test_float32_loses_little_where_a_simplex_is_nearly_flat() -> None:
    """Spec B5: by Cayley-Menger in float32 half of such volumes are negative."""
    vertices = _drawn(4, n=50, spread=0.1)
    # the last vertex at 0.003 from the plane of the others
    weights = torch.softmax(torch.randn(4, generator=torch.Generator().manual_seed(0), dtype=torch.float64), 0)
    off = torch.zeros(8, 50, dtype=torch.float64)
    off[-1] = 0.003
    vertices[4] = (weights[:, None, None] * vertices[:4]).sum(0) + off
    exact = simplex_features(_edges(vertices))[-1]
    single = simplex_features(_edges(vertices).float())[-1]
    assert (single - exact).abs().max() < 1e-3


@pytest.mark.parametrize("k", [2, 4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_flat_simplices_have_finite_features_and_bounded_gradients(k: int, dtype: torch.dtype) -> None:
    """log V^2 is -inf where a vertex is doubled; no training step may become NaN of it."""
    vertices = _drawn(k, n=4).to(dtype)
    vertices[1, :, 0] = vertices[0, :, 0]  # doubled
    vertices[2, :, 1] = 0.5 * (vertices[0, :, 1] + vertices[1, :, 1])  # on a line
    vertices[:, :, 2] = 0  # all one point
    vertices[:, :, 3] = vertices[:1, :, 3] + 1e-20 * vertices[:, :, 3]
    edges = _edges(vertices).requires_grad_()
    found = simplex_features(edges)
    assert found.isfinite().all()
    torch.testing.assert_close(found[-1], torch.full((4,), math.log(FLOOR), dtype=dtype), atol=1e-3, rtol=0)
    (gradient,) = torch.autograd.grad(found.sum(), edges)
    assert gradient.isfinite().all()
    assert gradient.abs().max() <= 2 / FLOOR**0.5


@pytest.mark.parametrize("k", [2, 4])
@pytest.mark.parametrize("size", [1.0, 100.0, 1e6])
def test_what_is_flat_but_for_rounding_is_flat_at_any_size(k: int, size: float) -> None:
    """Else a large flat simplex would have a volume, and a gradient of a million, that are rounding alone."""
    vertices = (size * _drawn(k, n=3)).float()
    vertices[k, :, 0] = 0.4 * vertices[0, :, 0] + 0.6 * vertices[1, :, 0]  # on an edge
    vertices[k, :, 1] = vertices[k - 1, :, 1]  # doubled
    edges = _edges(vertices).requires_grad_()
    volume = simplex_features(edges)[-1]
    (gradient,) = torch.autograd.grad(volume.sum(), edges)
    torch.testing.assert_close(volume[:2], torch.full((2,), math.log(FLOOR)))
    assert not gradient[..., :2].any()
    assert gradient[..., 2].any()
    assert float(volume[2].detach()) > math.log(size) - 5


def test_volumes_that_no_number_holds_do_not_overflow() -> None:
    edges = (1e12 * _edges(_drawn(4, n=3))).float().requires_grad_()
    found = simplex_features(edges)
    (gradient,) = torch.autograd.grad(found.sum(), edges)
    assert found.isfinite().all()
    assert float(found[-1].detach().min()) > 200  # V^2 is about 1e96, and float32 ends at 3e38
    assert gradient.isfinite().all()


def test_an_edge_that_is_a_difference_keeps_the_digits_that_its_length_leaves() -> None:
    """Two vertices at 0.003 from each other and at 1 from vertex 0: 1e-7 / 0.003 of the edge is rounding."""
    vertices = _drawn(3, n=200, spread=0.1)
    off = torch.randn(8, 200, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    vertices[2] = vertices[1] + 0.003 * off / off.norm(dim=0)
    exact, single = (simplex_features(_edges(vertices).to(dtype)) for dtype in (torch.float64, torch.float32))
    torch.testing.assert_close(exact[3].exp() - FLOOR, torch.full((200,), 9e-6, dtype=torch.float64), rtol=1e-9, atol=0)
    assert (single - exact)[:6].abs().max() < 3e-4


def test_gradients_of_the_second_order_are_refused() -> None:
    edges = _edges(_drawn(2)).requires_grad_()
    (gradient,) = torch.autograd.grad(simplex_features(edges).square().sum(), edges, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()
