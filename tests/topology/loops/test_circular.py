import numpy as np
import pytest
from scipy.spatial.distance import cdist

from src.errors import StrataError
from src.topology.homology.cocycles import Cocycles
from src.topology.homology.distances import Distances
from src.topology.homology.persistence import persistence
from src.topology.loops.circular import circular_coordinate
from tests.fixtures.planted_loops import agreement, circle, in_dimensions, noisy_circle


def coordinate(points, bar=0, **options):
    distances = Distances.from_points(points)
    birth, death = persistence(distances).bars[1].diagram[bar]
    return circular_coordinate(Cocycles.of(distances), birth, death, **options)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("noise", [0.02, 0.1])
def test_the_angle_of_a_noisy_circle_is_found(seed, noise):
    turns, points = noisy_circle(n=120, noise=noise, seed=seed)
    found = coordinate(points)
    assert found.n_uncovered == 0
    assert ((found.turns >= 0) & (found.turns < 1)).all()
    assert agreement(found.turns, turns) > 0.97
    assert found.largest_step < 0.5


def test_uneven_density_bends_the_coordinate_little():
    turns = np.mod(np.random.default_rng(0).vonmises(0, 1, 200) / (2 * np.pi), 1)
    points = in_dimensions(circle(turns), 8, 0.05, 0)
    assert agreement(coordinate(points).turns, turns) > 0.9
    assert agreement(coordinate(points, weights="uniform").turns, turns) < 0.7


@pytest.mark.parametrize("seed", range(3))
def test_uniform_weights_agree_with_the_cocycles_of_ripser(seed):
    from ripser import ripser

    _, points = noisy_circle(n=60, noise=0.05, seed=seed)
    distances = Distances.from_points(points)
    result = ripser(distances.matrix, distance_matrix=True, do_cocycles=True, coeff=47)
    bar = int(np.ptp(result["dgms"][1], axis=1).argmax())
    found = coordinate(points, weights="uniform")
    # the route of de Silva and others: lift the cocycle from Z/47 to integers, then least squares over edges
    first, second = np.nonzero(np.triu(distances.matrix <= found.scale, 1))
    cocycle = np.zeros(distances.matrix.shape)
    for a, b, value in result["cocycles"][1][bar]:
        lifted = value - 47 if value > 23 else value
        cocycle[a, b], cocycle[b, a] = lifted, -lifted
    gradient = np.eye(len(points))[second] - np.eye(len(points))[first]
    potential = np.linalg.lstsq(gradient, cocycle[first, second], rcond=None)[0]
    assert agreement(found.turns, potential) > 1 - 1e-9


def test_each_loop_of_a_figure_eight_has_a_coordinate_of_its_own():
    turns = np.arange(24) / 24
    eight = np.concatenate([circle(turns), circle(turns, radius=0.7, centre=(1.75, 0.0))])
    points = in_dimensions(eight, 6, 0.02, 0)
    large, small = coordinate(points, 0, at=0.2), coordinate(points, 1, at=0.2)
    assert agreement(large.turns[:24], turns) > 0.97
    assert agreement(small.turns[24:], turns) > 0.97
    # along the other loop the coordinate goes forth and back, or stands still: it never comes around
    for still in (large.turns[24:], small.turns[:24]):
        steps = np.mod(np.roll(still, -1) - still + 0.5, 1) - 0.5
        assert abs(steps.sum()) < 0.5


def test_a_torus_has_two_coordinates():
    random = np.random.default_rng(0)
    grid = np.stack(np.meshgrid(np.arange(12) / 12, np.arange(12) / 12), axis=-1).reshape(-1, 2)
    grid = grid + random.uniform(-0.02, 0.02, size=grid.shape)
    points = np.concatenate([circle(grid[:, 0]), circle(grid[:, 1], radius=0.9)], axis=1)
    found = [coordinate(points, bar).turns for bar in (0, 1)]
    assert agreement(found[0], grid[:, 0]) > 0.95
    # the class of the shorter bar is known up to turns around the longer one
    fits = {k: agreement(found[1], grid[:, 1] + k * grid[:, 0]) for k in range(-2, 3)}
    assert max(fits.values()) > 0.95
    assert agreement(found[0], found[1]) < 0.3


def test_new_points_are_placed_between_their_neighbours():
    turns, points = noisy_circle(n=150, noise=0.03, d=2, seed=0)
    found = coordinate(points[:100])
    predicted = found.predict(cdist(points[100:], points[:100]))
    whole = np.concatenate([found.turns, predicted])
    assert agreement(whole, turns) > 0.97
    far_and_middle = found.predict(cdist([[50.0, 0.0]], points[:100]))
    assert np.isnan(far_and_middle).all()
    with pytest.raises(StrataError, match="of 100 points: distances to 99"):
        found.predict(cdist(points[100:], points[:99]))


def test_points_that_are_not_joined_to_the_loop_have_no_coordinate():
    turns, points = noisy_circle(n=60, noise=0.02, d=4, seed=0)
    away = np.full((3, 4), 30.0) + np.eye(3, 4)
    found = coordinate(np.concatenate([points, away]))
    assert found.n_uncovered == 3
    assert np.isnan(found.turns[60:]).all()
    assert agreement(found.turns[:60], turns) > 0.97


def test_a_regular_polygon_is_equally_spaced():
    turns = np.arange(9) / 9
    found = np.sort(coordinate(circle(turns)).turns)
    assert np.allclose(np.diff(found), 1 / 9)


def test_a_scale_outside_of_the_loops_life_is_refused():
    _, points = noisy_circle(n=40)
    with pytest.raises(StrataError, match="at=1 is not within the life"):
        coordinate(points, at=1.0)
