import math

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import beta
from sklearn.datasets import make_swiss_roll

from src.errors import StrataError
from src.topology.homology.distances import Distances
from src.topology.measures.dimension import for_dimension, from_halves, gride, gride_path, levina_bickel, two_nn
from src.topology.measures.neighbours import Neighbours, overlap_variance


def sphere(d, n, seed=0):
    points = np.random.default_rng(seed).normal(size=(n, d + 1))
    return points / np.linalg.norm(points, axis=1, keepdims=True)


def ball(d, n, seed=0):
    random = np.random.default_rng(seed)
    points = random.normal(size=(n, d))
    return points / np.linalg.norm(points, axis=1, keepdims=True) * random.random((n, 1)) ** (1 / d)


def torus(n, seed=0):
    # a flat torus in four dimensions: uniform, without edge
    angle = np.random.default_rng(seed).random((n, 2)) * 2 * np.pi
    return np.concatenate([np.cos(angle), np.sin(angle)], axis=1)


def neighbours(points, k=20):
    return Neighbours.of(Distances.from_points(points), k)


# of 1000 points: the bias of the d = 10 clouds (edges, far neighbours) is part of the truth
@pytest.mark.parametrize(
    ("points", "d", "lowest", "highest"),
    [
        (sphere(1, 1000), 1, 0.93, 1.07),
        (sphere(2, 1000), 2, 1.87, 2.13),
        (torus(1000), 2, 1.87, 2.13),
        (make_swiss_roll(1000, random_state=0)[0], 2, 1.8, 2.15),
        (sphere(5, 1000), 5, 4.6, 5.3),
        (ball(5, 1000), 5, 4.3, 5.3),
        (sphere(10, 1000), 10, 8.4, 10.2),
        (ball(10, 1000), 10, 8.0, 9.8),
    ],
    ids=["circle", "sphere", "torus", "roll", "sphere 5", "ball 5", "sphere 10", "ball 10"],
)
def test_known_manifolds(points, d, lowest, highest):
    # in 40 dimensions more, turned: embedding changes nothing
    turned = points @ np.linalg.qr(np.random.default_rng(1).normal(size=(40, points.shape[1])))[0].T
    near = neighbours(turned)
    for estimate in (two_nn(near), gride(near, 2, 4), levina_bickel(near, 10)):
        assert lowest < estimate.value < highest
        assert estimate.low < estimate.value < estimate.high
        assert estimate.high / estimate.low < 1.3
        assert estimate.n_points == 1000


@pytest.mark.parametrize(("n1", "n2"), [(1, 2), (2, 4), (8, 16), (3, 20)])
def test_gride_maximises_its_likelihood(n1, n2):
    near = neighbours(ball(4, 150))
    ratio = near.distance[:, n2 - 1] / near.distance[:, n1 - 1]

    def minus_log_likelihood(d):  # Denti et al. 2022, eq. 4
        density = d * (ratio**d - 1) ** (n2 - n1 - 1) / (ratio ** ((n2 - 1) * d + 1) * beta(n2 - n1, n1))
        return -np.log(density).sum()

    best = minimize_scalar(minus_log_likelihood, bounds=(0.5, 20), method="bounded", options={"xatol": 1e-9})
    assert gride(near, n1, n2).value == pytest.approx(best.x, rel=1e-5)


def test_two_nn_is_the_unbiased_inverse_mean():
    near = neighbours(ball(3, 200))
    ratios = np.log(near.distance[:, 1] / near.distance[:, 0])
    assert two_nn(near).value == pytest.approx(199 / ratios.sum())
    assert two_nn(near).value == pytest.approx(gride(near, 1, 2).value * 199 / 200)


def test_levina_bickel_averages_inverses():
    near = neighbours(ball(3, 50), 5)
    inverse = [np.mean([math.log(row[3] / row[j]) for j in range(3)]) for row in near.distance]
    assert levina_bickel(near, 4).value == pytest.approx(1 / np.mean(inverse))


def test_overlap_weighs_pairs_by_the_points_that_their_neighbourhoods_share():
    near = neighbours(ball(2, 40), 6)
    scores = np.random.default_rng(0).normal(size=40)
    hoods = [{i, *row} for i, row in enumerate(near.index.tolist())]
    direct = sum(scores[i] * scores[j] * len(hoods[i] & hoods[j]) / 7 for i in range(40) for j in range(40))
    assert overlap_variance(scores, near.index) == pytest.approx(direct)


@pytest.mark.parametrize(("n1", "n2"), [(1, 2), (4, 8), (8, 16)])
def test_intervals_cover_the_dimension_where_there_is_no_bias_and_are_not_idle(n1, n2):
    # a cap of a sphere has the area of a disc with the chord for radius: no scale is too large
    found = [gride(neighbours(sphere(2, 250, seed)), n1, n2) for seed in range(120)]
    covered = np.mean([one.low < 2 < one.high for one in found])
    assert 0.88 <= covered <= 1
    spread = np.log([one.value for one in found]).std()
    width = np.mean([math.log(one.high / one.low) for one in found]) / (2 * 1.96)
    assert 0.85 < width / spread < 1.5


def test_the_path_of_a_noisy_circle_falls_from_the_noise_to_the_circle():
    random = np.random.default_rng(0)
    points = np.concatenate([sphere(1, 1500) * 5, np.zeros((1500, 4))], axis=1) + random.normal(size=(1500, 6)) * 0.02
    path = gride_path(neighbours(points, 200), largest=128)
    assert [at.n2 for at in path] == [2, 4, 8, 16, 32, 64, 128]
    assert [at.n1 for at in path] == [1, 2, 4, 8, 16, 32, 64]
    assert path[0].estimate.value > 2
    assert path[-1].estimate.value == pytest.approx(1, abs=0.15)
    assert all(at.r1 < at.r2 for at in path)
    assert gride_path(neighbours(points[:50], 5))[-1].n2 == 4


def test_copies_are_refused_and_left_out_beforehand():
    points = ball(3, 60)
    points[[8, 9]] = points[2]
    distances = Distances.from_points(points)
    with pytest.raises(StrataError, match="3 points have a copy"):
        two_nn(Neighbours.of(distances, 5))
    kept = for_dimension(distances)
    assert kept.n_points == 58
    rest = Distances.from_points(np.delete(points, [8, 9], axis=0))
    assert two_nn(Neighbours.of(kept, 5)).value == pytest.approx(two_nn(Neighbours.of(rest, 5)).value)
    assert for_dimension(rest) is rest


def test_cosine_distances_become_chords():
    points = ball(6, 300) + 0.1
    units = Distances.from_points(points / np.linalg.norm(points, axis=1, keepdims=True))
    chords = for_dimension(Distances.from_points(points, "cosine"))
    np.testing.assert_allclose(chords.matrix, units.matrix, atol=1e-7)
    assert chords.metric == "euclidean"
    # as they are, they would halve the dimension
    halved = two_nn(Neighbours.of(Distances.from_points(points, "cosine"), 2)).value
    assert halved == pytest.approx(two_nn(Neighbours.of(units, 2)).value / 2, rel=1e-6)


def test_where_all_neighbours_tie_there_is_no_dimension_and_some_ties_do_no_harm():
    lattice = np.stack(np.meshgrid(np.arange(8.0), np.arange(8.0)), -1).reshape(-1, 2)
    near = Neighbours.of(Distances.from_points(lattice), 8)
    assert math.isnan(two_nn(near).value)
    assert math.isnan(levina_bickel(near, 2).high)
    assert math.isnan(gride(near, 1, 2).value)
    assert 1 < gride(near, 1, 8).value < 10


@pytest.mark.parametrize(("n1", "n2"), [(0, 2), (2, 2), (3, 2), (2, 21)])
def test_neighbours_that_are_not_there_are_refused(n1, n2):
    with pytest.raises(StrataError, match="n1 < n2 <= 20"):
        gride(neighbours(ball(2, 50)), n1, n2)


def test_halves_tell_the_spread_of_a_mean():
    # of points on a line, the logarithm of the mean distance varies as draws of new clouds do
    def logarithm(one, _random):
        return float(one.matrix.mean())

    clouds = [np.random.default_rng(seed).exponential(size=(120, 1)) for seed in range(200)]
    spread = np.log([Distances.from_points(points).matrix.mean() for points in clouds]).std()
    widths = []
    for seed in range(8):
        distances = Distances.from_points(clouds[seed])
        random = np.random.default_rng(seed)
        found = from_halves(logarithm(distances, random), distances, logarithm, 60, random)
        widths.append(math.log(found.high / found.low) / (2 * 1.96))
    assert np.mean(widths) == pytest.approx(spread, rel=0.2)
