import math

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.metrics.pairwise import cosine_similarity

from src.errors import StrataError
from src.topology.measures.anisotropy import anisotropy, principal_variances
from src.topology.measures.catalogue import OF_POINTS


def cloud(n=60, d=8, offset=1.0):
    return np.random.default_rng(0).normal(size=(n, d)) * np.linspace(0.5, 3, d) + offset


def isoscore_in_steps(points):
    """Rudman et al. 2022, algorithm 1, as printed."""
    n = points.shape[1]
    variances = np.diag(np.cov(PCA().fit_transform(points).T))
    normed = math.sqrt(n) * variances / np.linalg.norm(variances)
    defect = np.linalg.norm(normed - 1) / math.sqrt(2 * (n - math.sqrt(n)))
    share = (n - defect**2 * (n - math.sqrt(n))) ** 2 / n**2
    return (n * share - 1) / (n - 1)


@pytest.mark.parametrize(("n", "d"), [(60, 8), (12, 30), (40, 40)])
def test_principal_variances(n, d):
    points = cloud(n, d)
    truth = PCA().fit(points).explained_variance_ * (n - 1) / n
    np.testing.assert_allclose(principal_variances(points)[: len(truth)], truth, atol=1e-12)


def test_statistics_are_what_they_say():
    points = cloud()
    found = anisotropy(points)
    cosines = cosine_similarity(points)[~np.eye(60, dtype=bool)]
    shares = PCA().fit(points).explained_variance_ratio_
    assert tuple(found) == OF_POINTS
    assert found["mean_cosine"] == pytest.approx(cosines.mean())
    spread = np.sqrt(np.square(points - points.mean(axis=0)).sum(axis=1).mean())
    assert found["offset"] == pytest.approx(np.linalg.norm(points.mean(axis=0)) / spread)
    assert found["first_component_share"] == pytest.approx(shares[0])
    assert found["participation_ratio"] == pytest.approx(shares.sum() ** 2 / (shares**2).sum())
    assert found["effective_rank"] == pytest.approx(np.exp(-(shares * np.log(shares)).sum()))
    assert found["isoscore"] == pytest.approx(isoscore_in_steps(points))
    assert anisotropy(points * 1000) == pytest.approx(found)


def test_ends_of_the_scale():
    line = np.outer(np.arange(10.0), [1, 2, 2])
    found = anisotropy(line)
    assert (found["participation_ratio"], found["effective_rank"]) == (pytest.approx(1), pytest.approx(1))
    assert found["isoscore"] == pytest.approx(0, abs=1e-12)
    cross = np.concatenate([np.eye(5), -np.eye(5)])
    found = anisotropy(cross)
    assert (found["participation_ratio"], found["effective_rank"]) == (pytest.approx(5), pytest.approx(5))
    assert (found["isoscore"], found["offset"]) == (pytest.approx(1), pytest.approx(0, abs=1e-15))
    assert found["mean_cosine"] == pytest.approx(-1 / 9)  # each has one opposite among nine others


def test_rows_of_zeros_have_no_cosine():
    points = np.array([[1.0, 0.0], [0.0, 0.0], [0.0, 2.0]])
    assert anisotropy(points)["mean_cosine"] == 0


@pytest.mark.parametrize("value", [1.0, 0.1])  # the mean of seven 0.1 is not 0.1
def test_one_point_many_times_has_no_variance(value):
    found = anisotropy(np.full((7, 3), value))
    assert found["mean_cosine"] == pytest.approx(1)
    assert all(math.isnan(found[name]) for name in OF_POINTS if name != "mean_cosine")


def test_one_dimension_has_no_isoscore():
    assert math.isnan(anisotropy(np.array([[1.0], [2.0], [4.0]]))["isoscore"])


def test_bad_points_are_refused():
    with pytest.raises(StrataError, match="not finite"):
        anisotropy(np.array([[1.0, np.nan], [0.0, 1.0], [2.0, 2.0]]))
