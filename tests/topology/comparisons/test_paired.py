"""CKA, RSA and Procrustes of paired clouds, against definitions, SciPy, and planted structure."""

import numpy as np
import pytest
from scipy.spatial import procrustes
from scipy.spatial.distance import pdist
from scipy.stats import spearmanr

from src.errors import StrataError
from src.topology.comparisons.layer_matrices import cka_matrices, rsa_matrix
from src.topology.comparisons.paired import compare_paired, linear_cka, procrustes_distance, similarity_correlation
from src.topology.homology.distances import Distances


def gauss(n, d, seed):
    return np.random.default_rng(seed).normal(size=(n, d))


def rotation(d, seed):
    return np.linalg.qr(gauss(d, d, seed))[0]


def unbiased_hsic(first, second):
    """Song et al. 2012, eq. 5, term by term."""
    n = len(first)
    k, m = (gram - np.diag(gram.diagonal()) for gram in (first, second))
    one = np.ones(n)
    sums = one @ k @ one * (one @ m @ one) / ((n - 1) * (n - 2))
    return (np.trace(k @ m) + sums - 2 / (n - 2) * one @ k @ m @ one) / (n * (n - 3))


def test_cka_is_its_definition():
    x, y = gauss(20, 6, 0), gauss(20, 9, 1)
    y[:, :3] += x[:, :3]
    centred = x - x.mean(0), y - y.mean(0)
    norm = np.linalg.norm
    plain = norm(centred[1].T @ centred[0]) ** 2 / norm(centred[0].T @ centred[0]) / norm(centred[1].T @ centred[1])
    grams = x @ x.T, y @ y.T
    debiased = unbiased_hsic(*grams) / np.sqrt(unbiased_hsic(grams[0], grams[0]) * unbiased_hsic(grams[1], grams[1]))
    assert linear_cka(x, y) == pytest.approx((plain, debiased))


def test_rsa_and_procrustes_agree_with_scipy():
    x, y = gauss(15, 4, 0), gauss(15, 4, 1)
    y += x
    distances = Distances.from_points(x), Distances.from_points(y)
    assert similarity_correlation(*distances) == pytest.approx(spearmanr(pdist(x), pdist(y)).statistic)
    # SciPy also finds the best scale s, where the squared distance is 1 - s^2: s is the nuclear norm
    disparity = procrustes(x, y)[2]
    assert procrustes_distance(x, y) == pytest.approx(np.sqrt(2 - 2 * np.sqrt(1 - disparity)))


def test_rotation_scale_and_shift_change_nothing():
    x = gauss(30, 5, 0)
    y = 7 * x @ rotation(5, 1) + 100
    found = compare_paired(x, y, draws=19, halves=5)
    assert [found.cka.value, found.debiased_cka.value, found.rsa.value] == pytest.approx([1, 1, 1])
    assert found.procrustes.value == pytest.approx(0, abs=1e-6)
    assert found.cka.p == found.debiased_cka.p == found.rsa.p == found.procrustes.p == 1 / 20
    padded = np.concatenate([x, np.zeros((30, 50))], axis=1) @ rotation(55, 2)
    assert procrustes_distance(x, padded) == pytest.approx(0, abs=1e-6)


def test_unrelated_clouds_of_many_dimensions_only_fool_what_is_biased():
    found = compare_paired(gauss(40, 300, 0), gauss(40, 300, 1), draws=99, halves=30)
    assert found.cka.value > 0.8
    assert found.cka.null == pytest.approx(found.cka.value, abs=0.02)
    assert abs(found.debiased_cka.value) < 0.1
    assert abs(found.debiased_cka.null) < 0.02
    assert min(found.cka.p, found.debiased_cka.p, found.rsa.p, found.procrustes.p) > 0.01


def test_p_is_uniform_without_correspondence():
    ps = [
        [measure.p for measure in (found.cka, found.debiased_cka, found.rsa, found.procrustes)]
        for found in (
            compare_paired(gauss(12, 3, 2 * seed), gauss(12, 3, 2 * seed + 1), draws=19, halves=0, seed=seed)
            for seed in range(150)
        )
    ]
    rejected = (np.array(ps) <= 0.1).mean(axis=0)
    assert (rejected >= 0.03).all()
    assert (rejected <= 0.18).all()


def test_intervals_cover_what_more_points_would_show():
    def sample(n, seed):
        x = gauss(n, 3, seed)
        return x, x + gauss(n, 3, 10_000 + seed)

    truth = 3 / np.sqrt(3 * 12)  # covariances I, 2 I, and I between them
    covered = 0
    for seed in range(40):
        found = compare_paired(*sample(60, 2 + seed), draws=0, halves=60, seed=seed).debiased_cka
        covered += found.low <= truth <= found.high
    assert covered >= 33


def test_rows_of_a_sequence_are_shuffled_together():
    """Clouds that share which sequence a row is from, but no order of sequences: rows are no evidence."""
    random = np.random.default_rng(0)
    units = np.repeat(np.arange(10), 6)
    ps = {"rows": [], "units": []}
    for seed in range(20):
        x, y = (np.repeat(random.normal(size=(10, 3)), 6, axis=0) + 0.1 * random.normal(size=(60, 3)) for _ in range(2))
        ps["rows"].append(compare_paired(x, y, draws=39, halves=0, seed=seed).debiased_cka.p)
        ps["units"].append(compare_paired(x, y, draws=39, halves=0, seed=seed, units=units).debiased_cka.p)
    assert np.mean(np.array(ps["rows"]) <= 0.05) > 0.5
    assert np.mean(np.array(ps["units"]) <= 0.05) <= 0.2


@pytest.mark.parametrize("value", [1.0, 0.1])  # the mean of ten 0.1 is not 0.1
def test_clouds_without_pairs_or_spread(value):
    with pytest.raises(StrataError, match="clouds of 10 and 9 rows are not paired"):
        compare_paired(gauss(10, 2, 0), gauss(9, 2, 0))
    with pytest.raises(StrataError, match="5 pairs of points are too few"):
        compare_paired(gauss(5, 2, 0), gauss(5, 2, 1))
    one_place = np.full((10, 3), value)
    flat = compare_paired(one_place, gauss(10, 3, 0), draws=3, halves=3)
    assert all(
        np.isnan([each.value, each.p]).all() for each in (flat.cka, flat.debiased_cka, flat.rsa, flat.procrustes)
    )
    assert np.isnan([*linear_cka(one_place, gauss(10, 3, 0)), procrustes_distance(one_place, gauss(10, 3, 0))]).all()
    assert np.isnan(cka_matrices([one_place], [gauss(10, 3, 0)])).all()


def test_matrices_hold_the_measures_of_all_pairs():
    first = [gauss(70, d, d) for d in (3, 5)]  # more rows than a block
    second = [first[0] @ rotation(3, 9), gauss(70, 4, 4), first[1][:, :2]]
    plain, debiased = cka_matrices(first, second)
    ranks = rsa_matrix(*([Distances.from_points(each) for each in side] for side in (first, second)))
    for i, x in enumerate(first):
        for j, y in enumerate(second):
            assert (plain[i, j], debiased[i, j]) == pytest.approx(linear_cka(x, y))
            assert ranks[i, j] == pytest.approx(
                similarity_correlation(Distances.from_points(x), Distances.from_points(y))
            )
    own, _ = cka_matrices(first)
    np.testing.assert_allclose(own.diagonal(), 1)
    np.testing.assert_array_equal(own, own.T)
    with pytest.raises(StrataError, match=r"these clouds have \[8, 9\]"):
        cka_matrices([gauss(8, 2, 0)], [gauss(9, 2, 0)])
    with pytest.raises(StrataError, match=r"these clouds have \[8, 9\]"):
        rsa_matrix([Distances.from_points(gauss(n, 2, 0)) for n in (8, 9)])


def test_actopos_example_clouds_correspond_row_by_row():
    """Specification 1.8 and 5: CKA 0.618 (0.046 shuffled), RSA 0.618."""
    data = pytest.importorskip("actopo.data")
    base, instruct = (data.load_example_cloud(name).astype(np.float64) for name in ("base", "instruct"))
    distances = Distances.from_points(base), Distances.from_points(instruct)
    assert linear_cka(base, instruct)[0] == pytest.approx(0.618, abs=5e-4)
    assert similarity_correlation(*distances) == pytest.approx(0.618, abs=5e-4)
    shuffled = instruct[np.random.default_rng(0).permutation(600)]
    assert linear_cka(base, shuffled)[0] == pytest.approx(0.046, abs=0.006)
