import math

import numpy as np

from src.topology.homology.distances import Distances
from src.topology.measures.catalogue import STATISTICS, WITH_INTERVALS
from src.topology.measures.dimension import gride, levina_bickel, two_nn
from src.topology.measures.intrinsic import intrinsic_dimensions
from src.topology.measures.neighbours import Neighbours


def plane(n):
    points = np.random.default_rng(0).random((n, 2))
    points[-1] = points[0]
    return points


def test_all_estimates_of_a_square_are_2():
    distances = Distances.from_points(plane(301))
    found = intrinsic_dimensions(distances, seed=0)
    assert tuple(found.estimates) == WITH_INTERVALS
    assert set(WITH_INTERVALS) <= set(STATISTICS)
    assert {name for name, one in found.estimates.items() if not 1.7 < one.value < 2.2} == set()
    assert {one.n_points for one in found.estimates.values()} == {300}
    assert found.n_copies == 1
    near = Neighbours.of(Distances.from_points(plane(301)[:-1]), 20)
    assert math.isclose(found.estimates["two_nn"].value, two_nn(near).value, rel_tol=1e-9)
    assert math.isclose(found.estimates["levina_bickel"].value, levina_bickel(near, 10).value, rel_tol=1e-9)
    assert math.isclose(found.estimates["gride"].value, gride(near, 8, 16).value, rel_tol=1e-9)
    assert [at.n2 for at in found.path] == [2, 4, 8, 16, 32, 64]


def test_small_clouds_have_fewer_estimates():
    found = intrinsic_dimensions(Distances.from_points(plane(13)), seed=0)
    assert {name for name, one in found.estimates.items() if math.isnan(one.value)} == {
        "gride",
        "homology_dimension",
        "local_pca_dimension",
    }
    assert found.growth is None
    assert found.local_pca is None


def test_a_cloud_of_one_point_many_times_has_none():
    found = intrinsic_dimensions(Distances.from_points(np.ones((100, 3))), seed=0)
    assert all(math.isnan(one.value) for one in found.estimates.values())
    assert (found.path, found.n_copies) == ([], 99)


def test_distances_without_coordinates_have_no_local_pca():
    distances = Distances.precomputed(Distances.from_points(plane(100)).matrix)
    found = intrinsic_dimensions(distances, seed=0)
    assert found.local_pca is None
    assert found.growth is not None
