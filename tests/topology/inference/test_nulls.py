"""Null models: what each keeps and what it does not, p by hand, and uniform under the null."""

import numpy as np
import pytest

from src.errors import StrataError
from src.topology.homology.distances import Distances
from src.topology.homology.persistence import persistence
from src.topology.inference.nulls import (
    NullSummary,
    PrincipalScores,
    gaussian,
    grouped_gaussian,
    null_distribution,
    permutation_p_value,
    random_model,
    shuffled_labels,
    shuffled_scores,
)
from src.topology.measures.summaries import largest_ratio


def cloud(n=40, d=6, seed=0):
    random = np.random.default_rng(seed)
    return random.standard_exponential((n, d)) @ random.standard_normal((d, d)) + 10.0


def draw(null, points, seed=1):
    return null(points)(np.random.default_rng(seed))


def mean_distance(distances, found):
    assert found.n_points == distances.n_points
    return {"mean_distance": float(distances.pairs.mean()), "largest_distance": distances.diameter}


@pytest.mark.parametrize("shape", [(40, 6), (12, 50), (5, 5), (30, 1)])
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_principal_scores_keep_all_distances(shape, metric):
    points = np.random.default_rng(2).standard_normal(shape) + 3.0
    own = PrincipalScores.of(points)
    assert own.scores.shape[1] <= min(shape[0] - 1, shape[1])
    rebuilt = Distances.from_points(own.cloud(own.scores), metric).matrix
    assert rebuilt == pytest.approx(Distances.from_points(points, metric).matrix, abs=1e-7)
    assert own.scores.T @ own.scores == pytest.approx(np.diag((own.scores**2).sum(axis=0)), abs=1e-9)


@pytest.mark.parametrize("shape", [(40, 6), (12, 50)])
def test_gaussian_keeps_mean_and_covariance_exactly(shape):
    points = cloud(*shape)
    own = PrincipalScores.of(points)
    drawn = draw(gaussian, points)
    assert drawn.mean(axis=0) == pytest.approx(own.mean, abs=1e-9)
    assert np.cov(drawn, rowvar=False) == pytest.approx(np.cov(own.cloud(own.scores), rowvar=False), abs=1e-9)
    assert not np.allclose(drawn, own.cloud(own.scores))


def test_gaussian_draws_are_spread_evenly_over_directions():
    # the first row of a uniformly distributed frame, of unit length but for the direction of ones: each of its squared
    # entries has the mean 1 / n
    points = np.random.default_rng(0).standard_normal((8, 3))
    fitted, random = gaussian(points), np.random.default_rng(3)
    lengths = np.linalg.norm(PrincipalScores.of(points).scores, axis=0)
    squares = np.array([((each := fitted(random)) - each.mean(axis=0))[:, :3] ** 2 / lengths**2 for _ in range(2000)])
    assert squares.mean(axis=0) == pytest.approx(np.full((8, 3), 1 / 8), abs=0.015)


def test_gaussian_draws_point_either_way_along_an_axis():
    # cosines see the mean, and so the signs: no point is on one side more often than by chance
    points = np.random.default_rng(0).standard_normal((8, 3))
    fitted, random = gaussian(points), np.random.default_rng(3)
    below = np.mean([(each := fitted(random))[:, :3] < each[:, :3].mean(axis=0) for _ in range(400)], axis=0)
    assert below == pytest.approx(np.full((8, 3), 0.5), abs=0.1)


def test_shuffled_scores_keep_every_marginal():
    points = cloud()
    own = PrincipalScores.of(points)
    drawn = draw(shuffled_scores, points)[:, :-1] - own.mean[:-1]
    assert np.sort(drawn, axis=0) == pytest.approx(np.sort(own.scores, axis=0), abs=1e-9)
    assert not np.allclose(drawn, own.scores)
    # not the rows: each component is permuted by itself
    assert np.sort(np.linalg.norm(drawn, axis=1)) != pytest.approx(np.sort(np.linalg.norm(own.scores, axis=1)))


def test_grouped_gaussian_keeps_groups_and_moves_centres():
    points, groups = cloud(30), np.repeat(["c", "a", "b", "d", "e"], 6)
    drawn = draw(grouped_gaussian(groups), points)
    before, after = Distances.from_points(points), Distances.from_points(drawn)
    for group in np.unique(groups):
        rows = np.flatnonzero(groups == group)
        assert after.among(rows).matrix == pytest.approx(before.among(rows).matrix, abs=1e-7)
    old, new = (np.array([x[groups == g].mean(axis=0) for g in np.unique(groups)]) for x in (points, drawn))
    spectra = [np.linalg.eigvalsh(np.cov(each, rowvar=False))[-4:] for each in (old, new)]
    assert spectra[1] == pytest.approx(spectra[0], rel=1e-6)
    assert Distances.from_points(new).matrix != pytest.approx(Distances.from_points(old).matrix)


def test_groups_of_one_point_are_the_gaussian_null():
    points = cloud(12)
    grouped = draw(grouped_gaussian(np.arange(12)), points)
    assert np.cov(grouped, rowvar=False) == pytest.approx(np.cov(draw(gaussian, points), rowvar=False), abs=1e-9)


@pytest.mark.parametrize(
    ("groups", "message"), [(np.zeros(40), "1 groups have no arrangement"), (np.arange(39), "each of the 40 points")]
)
def test_groups_that_do_not_fit_are_refused(groups, message):
    with pytest.raises(StrataError, match=message):
        grouped_gaussian(groups)(cloud())


def test_shuffled_labels_are_means_of_the_same_rows():
    rows, labels = cloud(40), np.repeat(["b", "a", "c", "d"], 10)
    means = np.array([rows[labels == each].mean(axis=0) for each in "abcd"])
    drawn = draw(shuffled_labels(rows, labels), means)
    assert drawn.mean(axis=0) == pytest.approx(means.mean(axis=0))  # classes are equally large
    assert not np.allclose(drawn, means)
    with pytest.raises(StrataError, match="not the class means"):
        shuffled_labels(rows, labels)(means[::-1])


def test_random_model_draws_rows_of_its_clouds():
    control = cloud(60, seed=3)
    drawn = draw(random_model([control]), cloud(40))
    assert drawn.shape == (40, 6)
    assert all((control == row).all(axis=1).sum() == 1 for row in drawn)
    assert len(np.unique(drawn, axis=0)) == 40


@pytest.mark.parametrize("controls", [[], [40], [60, 39]])
def test_random_model_needs_more_points(controls):
    with pytest.raises(StrataError, match="collect more points"):
        random_model([cloud(n) for n in controls])(cloud(40))


def test_p_values_count_ties_and_the_cloud_itself():
    null = np.array([1.0, 2.0, 2.0, 3.0])
    assert permutation_p_value(2.0, null) == 4 / 5
    assert permutation_p_value(9.0, null) == 1 / 5
    summary = NullSummary.of(3.0, np.append(null, np.nan))
    assert (summary.p_greater, summary.p_less, summary.p_two_sided) == (2 / 5, 1.0, 4 / 5)
    assert (summary.draws, summary.mean, summary.low) == (4, 2.0, pytest.approx(1.075))
    assert np.isnan(NullSummary.of(float("nan"), null).p_greater)
    undefined = NullSummary.of(1.0, np.full(3, np.nan))
    assert undefined.draws == 0
    assert np.isnan(undefined.p_two_sided)


def test_null_distribution_is_of_the_draws():
    points, fitted = cloud(20), gaussian(cloud(20))
    found = null_distribution(points, mean_distance, draws=5, seed=3)
    streams = [np.random.default_rng(child) for child in np.random.SeedSequence(3).spawn(5)]
    by_hand = [float(Distances.from_points(fitted(random)).pairs.mean()) for random in streams]
    assert found["mean_distance"].values == pytest.approx(by_hand)
    assert found["mean_distance"].observed == pytest.approx(Distances.from_points(points).pairs.mean())
    assert set(found) == {"mean_distance", "largest_distance"}


def test_known_statistics_are_not_computed_again():
    found = null_distribution(cloud(20), mean_distance, draws=3, observed={"mean_distance": 1e9, "largest_distance": 0})
    assert found["mean_distance"].p_greater == 1 / 4
    assert found["largest_distance"].p_greater == 1.0


def test_clouds_are_sampled_down_alike():
    def half(points, random):
        return points[random.choice(len(points), len(points) // 2, replace=False)]

    def size(distances, found):
        return {"n": float(found.n_points)}

    found = null_distribution(cloud(20), size, draws=3, sample=half)["n"]
    assert (found.observed, found.low, found.high) == (10, 10, 10)


def test_cosine_distances_of_draws_see_the_mean():
    # seen from the origin, a far cloud is narrow
    near, far = np.random.default_rng(0).standard_normal((2, 30, 5))
    narrow = null_distribution(far + 100, mean_distance, draws=5, metric="cosine")["mean_distance"]
    wide = null_distribution(near, mean_distance, draws=5, metric="cosine")["mean_distance"]
    assert narrow.high < 1e-3 < 0.5 < wide.low


def spread_and_ratio(distances, found):
    return {"spread": float(distances.pairs.std()), "ratio": largest_ratio(found.bars[1])}


def p_values_of_gaussian_clouds(null, name):
    found = [
        null_distribution(points, spread_and_ratio, null, draws=9, seed=k)[name].p_greater
        for k in range(80)
        for points in [np.random.default_rng([k, 77]).standard_normal((16, 4)) * [4, 2, 1, 1]]
    ]
    return np.array([p for p in found if not np.isnan(p)])


@pytest.mark.parametrize("name", ["spread", "ratio"])
def test_p_values_against_the_gaussian_null_are_uniform_on_gaussian_clouds(name):
    p, grid = p_values_of_gaussian_clouds(gaussian, name), np.arange(1, 11) / 10
    share = np.searchsorted(np.sort(p), grid, side="right") / len(p)
    assert np.abs(share - grid).max() < 1.63 / np.sqrt(len(p))  # Kolmogorov and Smirnov, at 0.01


def test_loops_are_not_too_significant_against_shuffled_scores():
    # not exact: shuffled components correlate by chance, those of the cloud do not
    p = p_values_of_gaussian_clouds(shuffled_scores, "ratio")
    assert np.mean(p <= 0.1) <= 0.17


def test_no_draws_are_refused():
    with pytest.raises(StrataError, match="1 draw or more"):
        null_distribution(cloud(), mean_distance, draws=0)


@pytest.mark.parametrize("null", [gaussian, shuffled_scores])
@pytest.mark.parametrize("value", [2.0, 0.1])  # the mean of seven 0.1 is not 0.1
def test_a_cloud_of_one_place_has_draws_of_one_place(null, value):
    drawn = draw(null, np.full((7, 3), value))
    assert Distances.from_points(drawn).diameter == 0
    assert len(persistence(Distances.from_points(drawn)).bars[1]) == 0
