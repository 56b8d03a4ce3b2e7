import numpy as np
import pytest
from scipy.stats import norm

from src.errors import StrataError
from src.topology.homology.distances import Distances
from src.topology.homology.persistence import Bars, Persistence, persistence
from src.topology.measures.vectorised import Grid, landscapes, persistence_image, vectorised

GRID = Grid(largest=1.5, longest=1.0, samples=301, landscapes=3, pixels=20)
ONE = np.array([[0.4, 1.0]])


def test_the_landscape_of_one_bar_is_a_triangle():
    found = landscapes(ONE, GRID)
    assert found.shape == (3, 301)
    np.testing.assert_allclose(found[0], np.maximum(0, 0.3 - np.abs(GRID.scales - 0.7)), atol=1e-12)
    assert not found[1:].any()


def test_landscapes_are_the_tents_in_order():
    diagram = np.array([[0.0, 1.0], [0.2, 0.6], [0.5, 1.4], [0.1, 0.3]])
    tents = np.maximum(0, np.minimum(GRID.scales - diagram[:, :1], diagram[:, 1:] - GRID.scales))
    np.testing.assert_allclose(landscapes(diagram, GRID), np.sort(tents, axis=0)[::-1][:3], atol=1e-12)


def test_an_image_adds_up_to_the_lifetimes_and_has_them_in_their_place():
    diagram = np.array([[0.4, 0.9], [0.9, 1.3]])
    image = persistence_image(diagram, GRID)
    assert image.sum() == pytest.approx(0.5 + 0.4, abs=1e-6)
    # rows are lifetimes, in pixels of 0.05, columns births, in pixels of 0.075
    births, lifetimes = (np.arange(20) + 0.5) * 0.075, (np.arange(20) + 0.5) * 0.05
    assert image.sum(axis=0) @ births == pytest.approx(0.5 * 0.4 + 0.4 * 0.9, abs=1e-6)
    assert image.sum(axis=1) @ lifetimes == pytest.approx(0.5 * 0.5 + 0.4 * 0.4, abs=1e-6)


@pytest.mark.parametrize("bandwidth", [1.0, 2.0])
def test_pixels_are_integrals_of_the_density(bandwidth):
    grid = Grid(largest=1.5, longest=1.0, pixels=20, bandwidth=bandwidth)
    step = np.array([0.075, 0.05])
    edges = np.arange(21)
    in_x = np.diff(norm.cdf(edges, loc=0.4 / step[0], scale=bandwidth))
    in_y = np.diff(norm.cdf(edges, loc=0.6 / step[1], scale=bandwidth))
    # the centre's density differs from the pixel's mean where the Gaussian is narrow, to second order
    np.testing.assert_allclose(
        persistence_image(ONE, grid), 0.6 * np.outer(in_y, in_x), atol=0.6 * 0.015 / bandwidth**4
    )


def test_vectors_are_in_units_of_the_scale():
    points = np.random.default_rng(0).normal(size=(60, 3))
    here, there = (Distances.from_points(factor * points) for factor in (1.0, 8.0))
    one, other = (vectorised(persistence(d), d.median) for d in (here, there))
    for a, b in zip(one, other, strict=True):
        np.testing.assert_allclose(a.vector, b.vector, rtol=1e-9)
    np.testing.assert_allclose(one[1].image, other[1].image, rtol=1e-9)
    assert one[0].image is None
    assert [v.dimension for v in one] == [0, 1]
    assert 0 <= one[1].share_outside < 0.5


def test_distances_of_vectors_are_those_of_landscapes():
    # two bars that do not overlap: each has the norm sqrt(l^3 / 12)
    bars = [Bars(1, np.array([birth]), np.array([birth + 0.4])) for birth in (0.1, 0.8)]
    (one,), (other,) = (vectorised(Persistence(9, (bar,), "gudhi"), 1.0) for bar in bars)
    distance = np.linalg.norm(one.vector - other.vector)
    assert distance == pytest.approx(np.sqrt(2 * 0.4**3 / 12), rel=1e-3)


def test_no_bars_make_zeros_and_infinite_bars_take_no_part():
    found = vectorised(
        Persistence(5, (Bars(0, np.zeros(1), np.array([np.inf])), Bars(1, np.empty(0), np.empty(0))), "gudhi"), 1.0
    )
    assert not found[0].landscapes.any()
    assert not found[1].landscapes.any()
    assert found[1].image is not None
    assert (found[1].image.sum(), found[1].share_outside) == (0, 0)


def test_what_falls_outside_is_told():
    bars = Bars(1, np.array([0.5, 0.2]), np.array([1.0, 5.2]))
    found = vectorised(Persistence(9, (bars,), "gudhi"), 1.0)[0]
    assert found.share_outside == pytest.approx(5 / 5.5, abs=1e-4)


def test_bad_grids_and_scales_are_refused():
    with pytest.raises(StrataError, match="scale is 0"):
        vectorised(Persistence(1, (), "gudhi"), 0.0)
    with pytest.raises(StrataError, match="half a pixel"):
        Grid(bandwidth=0.1)
