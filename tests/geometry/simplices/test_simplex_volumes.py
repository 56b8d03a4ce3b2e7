"""Volumes against closed forms, an independent formula in exact arithmetic, and what rounding does to bad simplices."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from src.geometry.simplices.band import gaussian_cv
from src.geometry.simplices.drawing import draw_simplices
from src.geometry.simplices.volumes import VertexPool


def log_volume(points: np.ndarray, dtype: torch.dtype = torch.float64) -> float:
    """Of the one simplex whose vertices the points are."""
    return VertexPool(torch.from_numpy(points).to(dtype)).log_volumes(torch.arange(len(points))[None]).item()


@pytest.mark.parametrize(("k", "squared"), [(1, 1.0), (2, 0.1875), (3, 1 / 72), (4, 5.42534722e-4)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_regular_simplices_of_unit_edges(k, squared, dtype):
    points = np.eye(k + 1) / math.sqrt(2)
    assert log_volume(points, dtype) == pytest.approx(math.log(squared) / 2, abs=1e-6)


@given(st.integers(1, 4), st.data())
@settings(max_examples=40, deadline=None)
def test_volumes_of_integer_points_are_those_of_exact_arithmetic(k, data):
    d = data.draw(st.integers(k, 6))
    coordinates = st.integers(-9, 9)
    points = data.draw(st.lists(st.lists(coordinates, min_size=d, max_size=d), min_size=k + 1, max_size=k + 1))
    found = log_volume(np.array(points, float))
    gram = [[Fraction(_edge(points, i, j)) for j in range(k)] for i in range(k)]
    exact = _determinant(gram)
    if exact == 0:
        assert found == -math.inf
    else:
        assert found == pytest.approx(math.log(exact) / 2 - math.log(math.factorial(k)), abs=1e-9)


def _edge(points: list[list[int]], i: int, j: int) -> int:
    return sum((a - c) * (b - c) for a, b, c in zip(points[i + 1], points[j + 1], points[0], strict=True))


def _determinant(rows: list[list[Fraction]]) -> Fraction:
    if not rows:
        return Fraction(1)
    first, *rest = rows
    minors = ([line[:column] + line[column + 1 :] for line in rest] for column in range(len(first)))
    return sum(((-1) ** place * first[place] * _determinant(minor) for place, minor in enumerate(minors)), Fraction(0))


@pytest.mark.parametrize("k", [1, 4, 7])
def test_scale_translation_and_rotation(k):
    draws = np.random.default_rng(k)
    points = draws.normal(size=(k + 1, 12))
    here = log_volume(points)
    rotation = np.linalg.qr(draws.normal(size=(12, 12)))[0]
    assert log_volume(3.5 * points) == pytest.approx(here + k * math.log(3.5), abs=1e-10)
    assert log_volume(points + 1e4) == pytest.approx(here, abs=1e-6)
    assert log_volume(points @ rotation) == pytest.approx(here, abs=1e-10)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_simplex_with_a_copy_has_no_volume_whatever_rounding_says(dtype):
    # far from 0, where products round: determinants call such simplices valid (spec B5)
    draws = np.random.default_rng(0)
    points = draws.normal(size=(40, 64)) + 300
    points[20:] = points[:20]
    simplices = torch.from_numpy(draw_simplices(40, 4, 3000, draws))
    logs = VertexPool(torch.from_numpy(points).to(dtype)).log_volumes(simplices)
    has_copy = torch.tensor([len({vertex % 20 for vertex in row}) < 5 for row in simplices.tolist()])
    assert 0.1 < has_copy.double().mean() < 0.9
    assert torch.equal(logs == -math.inf, has_copy)


@pytest.mark.parametrize(
    ("dtype", "tolerances"), [(torch.float64, (1e-11, 1e-9, 1e-7)), (torch.float32, (1e-4, 1e-3, 1e-2))]
)
def test_nearly_flat_simplices_keep_their_digits(dtype, tolerances):
    """One vertex at a small distance from the hyperplane of the others; a float32 determinant is lost at 1e-4."""
    draws = np.random.default_rng(1)
    for distance, tolerance in zip((1e-2, 1e-3, 1e-4), tolerances, strict=True):
        points = draws.normal(size=(5, 512))
        plane, heights = np.linalg.qr((points[1:4] - points[0]).T)
        offset = points[4] - points[0]
        inside = plane @ (plane.T @ offset)
        normal = (offset - inside) / np.linalg.norm(offset - inside)
        points[4] = points[0] + inside + distance * normal
        if dtype == torch.float32:
            points = points.astype(np.float32).astype(float)
            inside = plane @ (plane.T @ (points[4] - points[0]))
            _, heights = np.linalg.qr((points[1:] - points[0]).T)
            true = np.log(np.abs(np.diag(heights))).sum() - math.log(24)
        else:
            true = np.log(np.abs(np.diag(heights))).sum() + math.log(distance) - math.log(24)
        assert log_volume(points, dtype) == pytest.approx(true, abs=tolerance)


def test_points_of_fewer_dimensions_have_no_volume():
    draws = np.random.default_rng(2)
    simplices = torch.from_numpy(draw_simplices(50, 4, 200, draws))
    in_space = VertexPool(torch.from_numpy(draws.normal(size=(50, 3))))
    in_subspace = VertexPool(torch.from_numpy(draws.normal(size=(50, 3)) @ draws.normal(size=(3, 9))))
    assert (in_space.log_volumes(simplices) == -math.inf).all()
    assert (in_subspace.log_volumes(simplices) == -math.inf).all()


def test_great_points_and_many_dimensions_stay_in_range():
    # the float32 determinant of k = 8 at scale 300 overflows (spec B5)
    points = np.random.default_rng(3).normal(size=(41, 300)) * 300
    wide = log_volume(points[:9], torch.float32)
    assert wide == pytest.approx(log_volume(points[:9]), abs=1e-4)
    expected = np.linalg.slogdet((points[1:] - points[0]) @ (points[1:] - points[0]).T)[1] / 2 - math.lgamma(41)
    assert log_volume(points) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize(("n", "expected"), [(8, 0.609), (64, 0.180), (512, 0.063)])
def test_gaussian_clouds_vary_as_the_closed_form_says(n, expected):
    assert gaussian_cv(4, n) == pytest.approx(expected, abs=5e-4)
    found = []
    for seed in range(8):
        draws = np.random.default_rng(seed)
        simplices = torch.from_numpy(draw_simplices(600, 4, 6000, draws))
        logs = VertexPool(torch.from_numpy(draws.normal(size=(600, n)))).log_volumes(simplices)
        volumes = (logs - logs.max()).exp()
        found.append(float(volumes.std() / volumes.mean()))
    error = np.std(found, ddof=1) / math.sqrt(len(found))
    assert np.mean(found) == pytest.approx(expected, abs=3 * error + 5e-4)
    assert 3 * error < 0.1 * expected
