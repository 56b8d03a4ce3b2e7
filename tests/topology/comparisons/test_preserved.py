"""Which bars of two clouds are found again in their union."""

import numpy as np
import pytest

from src.errors import StrataError
from src.topology.comparisons.preserved import preserved_bars
from src.topology.homology.distances import Distances
from src.topology.homology.persistence import Bars, persistence


def without_edges(bars):
    return Bars(bars.dimension, bars.birth, bars.death)


def circle(n, radius, centre, seed):
    random = np.random.default_rng(seed)
    angle = np.sort(random.random(n)) * 2 * np.pi
    return radius * np.stack([np.cos(angle), np.sin(angle)], 1) + centre + 0.02 * random.normal(size=(n, 2))


def of(first, second, k=1, edges=True):
    clouds = [Distances.from_points(each) for each in (first, second, np.concatenate([first, second]))]
    found = [persistence(cloud).bars[k] for cloud in clouds]
    return preserved_bars(*(found if edges else map(without_edges, found)), n_first=len(first))


@pytest.mark.parametrize("edges", [True, False])
def test_clouds_that_lie_apart_keep_all_their_bars(edges):
    first, second = circle(30, 1, (0, 0), 0), circle(25, 2, (20, 0), 1)
    found = of(first, second, edges=edges)
    assert found.first.share == found.second.share == found.first.lifetime_share == 1
    assert found.n_new == 0
    components = of(first, second, k=0, edges=edges)
    assert components.first.n_preserved == 29
    assert components.second.n_preserved == 24
    assert components.n_new == 1  # the edge between the clouds
    assert components.longest_new == pytest.approx(17, abs=0.2)


@pytest.mark.parametrize("edges", [True, False])
def test_a_loop_that_the_other_cloud_fills_is_lost(edges):
    ring = circle(40, 1, (0, 0), 0)
    filling = np.random.default_rng(1).uniform(-0.7, 0.7, size=(60, 2))
    found = of(ring, filling, edges=edges)
    longest = persistence(Distances.from_points(ring)).bars[1].lifetimes[0]
    lost = found.first.lifetime - found.first.preserved_lifetime
    assert lost >= longest > 0.5
    assert found.first.share < 1
    assert found.n_new > 0


def test_each_bar_of_the_union_serves_once_when_there_are_no_edges():
    first, second = Bars(1, np.array([1.0, 1.0]), np.array([2.0, 2.0])), Bars(1, np.array([1.0]), np.array([2.0]))
    union = Bars(1, np.array([1.0, 1.0]), np.array([2.0, 2.5]))
    found = preserved_bars(first, second, union, n_first=5)
    assert found.by == "birth and death"
    assert found.first.n_preserved + found.second.n_preserved == 1
    assert (found.n_new, found.longest_new) == (1, 1.5)
    nothing = Bars(1, np.zeros(0), np.zeros(0))
    none = preserved_bars(nothing, nothing, union, n_first=5)
    assert np.isnan(none.first.share)
    assert none.n_new == 2


def test_bars_with_edges_are_recognised_by_them():
    def bar(birth_edge, death_edge):
        return Bars(1, np.array([1.0]), np.array([2.0]), np.array([birth_edge]), np.array([death_edge]))

    first, second = bar([0, 1], [2, 3]), bar([0, 1], [2, 3])
    union = Bars(1, np.ones(2), np.full(2, 2.0), np.array([[6, 5], [0, 9]]), np.array([[7, 8], [2, 3]]))
    found = preserved_bars(first, second, union, n_first=5)
    assert found.by == "edges"
    assert (found.first.n_preserved, found.second.n_preserved, found.n_new) == (0, 1, 1)


@pytest.mark.parametrize("k", [0, 1])
def test_bars_of_a_lattice_are_found_whichever_edges_they_name(k):
    lattice = np.indices((4, 4)).reshape(2, -1).T
    found = of(lattice, lattice + np.array([100, 0]), k)
    assert found.by == "edges"
    assert found.first.share == found.second.share == 1


def test_other_dimensions_are_refused():
    bars = persistence(Distances.from_points(circle(10, 1, (0, 0), 0))).bars
    with pytest.raises(StrataError, match="dimensions 0, 1 and 1"):
        preserved_bars(bars[0], bars[1], bars[1], 10)


def test_all_loops_of_actopos_clouds_survive_in_their_union():
    """Specification 1.9.4: 452 + 617 bars survive, and 25 short ones are new; SHARED was the published verdict."""
    data = pytest.importorskip("actopo.data")
    found = of(*(data.load_example_cloud(name).astype(np.float64) for name in ("base", "instruct")))
    assert (found.first.n_bars, found.second.n_bars) == (452, 617)
    assert found.first.share == found.second.share == 1
    assert found.n_new == 25
    assert found.longest_new < 0.19
