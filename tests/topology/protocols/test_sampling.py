"""Samples of a cloud: which points, from which seed, and what each strategy does to the cloud."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ks_2samp
from sklearn.decomposition import PCA

from src.errors import StrataError
from src.topology.homology.distances import Distances
from src.topology.protocols.preparation import prepare
from src.topology.protocols.protocol import FROZEN_V5, ROBUST
from src.topology.protocols.sampling import principal_scores, sample

STRATEGIES = ("uniform", "multiscale", "adaptive", "farthest")


def dense_and_thin() -> np.ndarray:
    """1500 points: nine tenths in a small ball, the others in a wide one."""
    rng = np.random.default_rng(0)
    return np.concatenate([rng.normal(scale=0.1, size=(1350, 3)), rng.normal(scale=3.0, size=(150, 3))])


def share_of_the_thin(strategy: str) -> float:
    return float(np.mean(sample(dense_and_thin(), 300, strategy, seed=1) >= 1350))


@given(
    st.integers(3, 60), st.integers(1, 70), st.sampled_from(STRATEGIES), st.integers(0, 5), st.booleans(), st.booleans()
)
@settings(deadline=None, max_examples=60)
def test_a_sample_is_of_distinct_points_and_repeats_itself(n, wanted, strategy, seed, copies, by_distances):
    cloud = np.random.default_rng(seed).normal(size=(n, 2))
    if copies:
        cloud[:] = cloud[0]
    given_cloud = Distances.from_points(cloud) if by_distances else cloud
    rows = sample(given_cloud, wanted, strategy, seed)
    assert len(rows) == len(set(rows.tolist())) == min(n, wanted)
    assert rows.min() >= 0
    assert rows.max() < n
    assert np.array_equal(rows, sample(given_cloud, wanted, strategy, seed))
    if strategy != "farthest":
        assert np.array_equal(rows, np.sort(rows))


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_points_and_their_distances_give_the_same_sample(strategy):
    cloud = np.random.default_rng(3).normal(size=(80, 4))
    assert np.array_equal(sample(cloud, 25, strategy, 7), sample(Distances.from_points(cloud), 25, strategy, 7))


def test_what_strategies_do_to_a_cloud_of_uneven_density():
    shares = {strategy: share_of_the_thin(strategy) for strategy in STRATEGIES}
    assert shares["uniform"] == pytest.approx(0.1, abs=0.04)
    assert shares["multiscale"] == pytest.approx(0.1, abs=0.06)
    assert shares["adaptive"] < 0.02
    assert shares["farthest"] > 0.4


def test_a_uniform_sample_is_distributed_as_the_cloud():
    cloud = np.random.default_rng(0).exponential(size=(4000, 1))
    rows = np.concatenate([sample(cloud, 400, "uniform", seed) for seed in range(5)])
    assert ks_2samp(cloud[rows, 0], cloud[:, 0]).pvalue > 0.05


def test_multiscale_keeps_neighbourhoods_close():
    cloud = np.random.default_rng(0).uniform(size=(3000, 2))
    nearest = {
        strategy: np.median(Distances.from_points(cloud[sample(cloud, 200, strategy, 0)]).nearest(1)[0])
        for strategy in ("uniform", "multiscale")
    }
    assert nearest["multiscale"] < 0.7 * nearest["uniform"]


def test_farthest_points_are_greedy_centres():
    cloud = np.random.default_rng(2).normal(size=(60, 3))
    rows = sample(cloud, 12, "farthest", seed=4)
    matrix = Distances.from_points(cloud).matrix
    for k in range(1, 12):
        away = matrix[:, rows[:k]].min(axis=1)
        assert away[rows[k]] == pytest.approx(away.max())
    assert np.array_equal(sample(cloud, 5, "farthest", seed=4), rows[:5])
    # the radius of a greedy cover bounds the gaps between its centres
    assert matrix[:, rows].min(axis=1).max() <= matrix[np.ix_(rows, rows)][np.triu_indices(12, 1)].min()


def test_impossible_samples_are_refused():
    with pytest.raises(StrataError, match="uniform, multiscale, adaptive, farthest"):
        sample(np.zeros((5, 2)), 3, "grid")  # type: ignore[arg-type]
    with pytest.raises(StrataError, match="1 is the least"):
        sample(np.zeros((5, 2)), 0)
    with pytest.raises(StrataError, match="not finite"):
        sample(np.full((5, 2), np.nan), 3)


@pytest.mark.parametrize("shape", [(40, 12), (12, 40)])
def test_principal_scores_are_those_of_scikit_learn(shape):
    points = np.random.default_rng(0).normal(size=shape) * np.linspace(1, 3, shape[1]) + 100
    expected = PCA(5, svd_solver="full").fit_transform(points)
    assert principal_scores(points, 5) == pytest.approx(expected, abs=1e-9)
    assert principal_scores(points, 5) == pytest.approx(principal_scores(points, 7)[:, :5], abs=1e-12)


def test_principal_scores_do_not_depend_on_the_sign_of_a_basis():
    points = np.random.default_rng(0).normal(size=(30, 6))
    # turning the cloud upside down turns the loadings with it, not the rule for their sign
    assert np.abs(principal_scores(-points, 3)) == pytest.approx(np.abs(principal_scores(points, 3)), abs=1e-9)
    loadings = np.linalg.lstsq(principal_scores(points, 3), points - points.mean(axis=0), rcond=None)[0]
    assert (np.take_along_axis(loadings, np.abs(loadings).argmax(axis=1)[:, None], axis=1) > 0).all()
    with pytest.raises(StrataError, match="1 is the least"):
        principal_scores(points, 0)


def test_a_protocol_prepares_components_first_and_then_a_sample():
    points = np.random.default_rng(1).normal(size=(50, 9)) + 5
    protocol = ROBUST.changed({"pca_components": 3, "max_points": 20, "sampling": "farthest"})
    prepared = prepare(points, protocol, seed=2)
    scores = principal_scores(points, 3)
    assert np.array_equal(prepared.rows, sample(scores, 20, "farthest", 2))
    assert np.array_equal(prepared.points, scores[prepared.rows])
    assert np.array_equal(prepared.distances.matrix, Distances.from_points(scores[prepared.rows]).matrix)
    assert prepared.scale == prepared.distances.median


def test_a_protocol_of_float32_prepares_float32():
    points = np.random.default_rng(1).normal(size=(50, 9))
    prepared = prepare(points, FROZEN_V5)
    assert prepared.points.dtype == np.float32
    assert np.array_equal(prepared.rows, np.arange(50))
    assert prepared.scale == prepared.distances.diameter
    assert prepared.scale == float(np.float32(prepared.scale))
