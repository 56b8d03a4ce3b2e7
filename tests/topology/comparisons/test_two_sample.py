"""Tests of the union, against enumeration, closed forms, plain loops, and planted structure."""

from itertools import combinations

import numpy as np
import pytest
from scipy.stats import kstest

from src.errors import StrataError
from src.topology.comparisons.overlap import overlap_verdict, union_counts
from src.topology.comparisons.two_sample import (
    centre_distance,
    permutation_variance,
    standardised,
    two_sample_tests,
    unordered_tree,
)
from src.topology.homology.distances import Distances
from src.topology.homology.persistence import persistence
from src.topology.inference.relabelling import half_of_units, relabellings, shuffled_rows


def gauss(n, d, seed, shift=0.0):
    return np.random.default_rng(seed).normal(size=(n, d)) + shift


def union_of(*clouds):
    return Distances.from_points(np.concatenate(clouds))


def test_the_moments_of_cross_edges_are_those_of_all_relabellings():
    for n_first, n_second in ((3, 4), (2, 5), (4, 4)):
        n = n_first + n_second
        tree = unordered_tree(Distances.from_points(gauss(n, 2, n)))
        counts = []
        for chosen in combinations(range(n), n_first):
            is_first = np.isin(np.arange(n), chosen)
            counts.append((is_first[tree[:, 0]] != is_first[tree[:, 1]]).sum())
        assert np.mean(counts) == pytest.approx(2 * n_first * n_second / n)
        assert np.var(counts) == pytest.approx(permutation_variance(tree, n_first, n_second))


def test_units_of_one_point_are_no_restriction():
    union = union_of(gauss(20, 3, 0), gauss(15, 3, 1))
    free, single = (two_sample_tests(union, 20, draws=99, units=units) for units in (None, np.arange(35)))
    assert single.friedman_rafsky == free.friedman_rafsky
    assert single.friedman_rafsky.expected == pytest.approx(2 * 20 * 15 / 35)


def test_statistics_are_their_definitions():
    first, second = gauss(7, 3, 0), gauss(9, 3, 1, 0.5)
    found = two_sample_tests(union_of(first, second), 7, draws=9)

    def mean(x, y, of):
        return np.mean([of(a, b) for a in x for b in y])

    def distance(a, b):
        return np.linalg.norm(a - b)

    between = 2 * mean(first, second, distance)
    energy = between - mean(first, first, distance) - mean(second, second, distance)
    assert found.energy.value == pytest.approx(energy)
    assert found.energy.coefficient == pytest.approx(energy / between)

    both = np.concatenate([first, second])
    sigma = np.median([distance(a, b) for a, b in combinations(both, 2)])
    assert found.mmd.bandwidth == pytest.approx(sigma)

    def kernel(a, b):
        return np.exp(-(distance(a, b) ** 2) / (2 * sigma**2))

    within = [np.mean([kernel(a, b) for a, b in combinations(cloud, 2)]) for cloud in (first, second)]
    assert found.mmd.squared == pytest.approx(sum(within) - 2 * mean(first, second, kernel))


def test_the_tree_is_minimal_and_copies_of_one_cloud_are_not_tied_together_first():
    points = gauss(30, 2, 3)
    distances = Distances.from_points(points)
    tree = unordered_tree(distances)
    deaths = persistence(distances).bars[0].finite[:, 1]
    np.testing.assert_allclose(np.sort(distances.matrix[tree[:, 0], tree[:, 1]]), np.sort(deaths), rtol=1e-6)
    same = Distances.from_points(np.zeros((200, 3)))
    found = two_sample_tests(same, 100, draws=99)
    assert abs(found.friedman_rafsky.z) < 3
    assert found.energy.value == 0
    assert found.energy.p == found.mmd.p == 1


def test_clouds_of_one_distribution_give_uniform_p():
    ps = []
    for seed in range(120):
        found = two_sample_tests(union_of(gauss(20, 3, 2 * seed), gauss(15, 3, 2 * seed + 1)), 20, draws=99, seed=seed)
        ps.append([found.energy.p, found.mmd.p, found.friedman_rafsky.p])
    energy, mmd, tree = np.array(ps).T
    assert kstest(energy, "uniform").pvalue > 0.01
    assert kstest(mmd, "uniform").pvalue > 0.01
    assert (tree <= 0.05).mean() <= 0.1


def test_what_is_planted_is_told_apart():
    near = gauss(60, 4, 0)
    tests = {
        name: two_sample_tests(union_of(near, other), 60, draws=199)
        for name, other in {
            "apart": gauss(60, 4, 1, 20.0),
            "partly overlapping": gauss(60, 4, 1, 1.2),
            "mixed, yet different": gauss(60, 4, 1, 0.6),
            "no difference found": gauss(60, 4, 1),
        }.items()
    }
    assert {name: overlap_verdict(found) for name, found in tests.items()} == {name: name for name in tests}
    apart = tests["apart"]
    assert apart.friedman_rafsky.cross_edges == 1
    assert apart.friedman_rafsky.p == apart.energy.p == apart.mmd.p == 1 / 200
    # the same clouds, about one centre and at one size
    aligned = two_sample_tests(union_of(standardised(near), standardised(5 * gauss(60, 4, 1, 20.0))), 60, draws=199)
    assert overlap_verdict(aligned) == "no difference found"


def test_units_are_exchanged_as_wholes():
    """Rows of a sequence are alike: exchanged one by one they pretend to be many, and find what is not there."""
    random = np.random.default_rng(0)
    rejected = {"rows": 0, "units": 0}
    for seed in range(30):
        centres = random.normal(size=(12, 3))
        points = np.repeat(centres, 6, axis=0) + 0.1 * random.normal(size=(72, 3))
        union, units = Distances.from_points(points), np.repeat(np.arange(12), 6)
        rejected["rows"] += two_sample_tests(union, 36, draws=99, seed=seed).energy.p <= 0.05
        rejected["units"] += two_sample_tests(union, 36, draws=99, seed=seed, units=units).energy.p <= 0.05
    assert rejected["rows"] >= 20
    assert rejected["units"] <= 5


def test_pairs_swap_between_the_clouds_and_see_a_shift_that_others_drown():
    prompts = 10 * gauss(40, 3, 5)
    first, second = prompts, prompts + 0.5
    union = union_of(first, second)
    paired = two_sample_tests(union, 40, draws=199, paired=True)
    unpaired = two_sample_tests(union, 40, draws=199)
    assert paired.energy.p == 1 / 200
    assert unpaired.energy.p > 0.5
    labels = relabellings(4, 4, 50, 0, paired=True)
    assert labels[0].tolist() == [True] * 4 + [False] * 4
    assert (labels[:, :4] != labels[:, 4:]).all()
    assert len(np.unique(labels, axis=0)) > 10


def test_relabellings_keep_units_whole_and_their_number():
    units = np.array([0, 0, 1, 2, 2, 2, 3, 3, 4])
    labels = relabellings(6, 3, 200, 1, units)
    for unit in range(5):
        of_unit = labels[:, units == unit]
        assert (of_unit == of_unit[:, :1]).all()
    firsts = np.stack([labels[:, np.flatnonzero(units == unit)[0]] for unit in range(5)], axis=1)
    assert (firsts.sum(axis=1) == 3).all()
    assert len(np.unique(firsts, axis=0)) == 10
    both = np.array([0, 0, 1, 1, 0, 1, 1])
    swapped = relabellings(4, 3, 100, 1, both, paired=True)
    assert len(np.unique(swapped, axis=0)) == 4


def test_shuffles_and_halves_keep_units_whole():
    random = np.random.default_rng(0)
    units = np.array([5, 5, 7, 7, 7, 9, 9, 4])
    seen = {tuple(shuffled_rows(units, 8, random)) for _ in range(50)}
    assert seen == {(0, 1, 2, 3, 4, 5, 6, 7), (5, 6, 2, 3, 4, 0, 1, 7)}
    for _ in range(20):
        half = half_of_units(units, 8, random)
        assert len(set(units[half])) == 2
        assert set(half) == set(np.flatnonzero(np.isin(units, units[half])))
    assert len(half_of_units(None, 9, random)) == 4


@pytest.mark.parametrize(
    ("sizes", "units", "paired", "message"),
    [
        ((4, 5), None, True, "no pairs of points"),
        ((4, 4), [0, 1, 2, 3, 0, 1, 2, 9], True, "2 of 5 units have points in one of the clouds only .the first is 3"),
        ((3, 3), [0, 1, 2, 2, 3, 4], False, "1 of 5 units have points in both clouds .the first is 2"),
        ((3, 3), [0, 0, 0, 1, 2, 3], False, "2 or more units"),
        ((3, 3), [0, 1], False, "2 units were named for 6 points"),
    ],
)
def test_designs_that_do_not_fit_are_refused(sizes, units, paired, message):
    with pytest.raises(StrataError, match=message):
        relabellings(*sizes, 9, 0, None if units is None else np.array(units), paired)


def test_centres_are_compared_in_units_of_a_scale():
    first, second = gauss(10, 3, 0), gauss(12, 3, 1)
    second += first.mean(0) - second.mean(0) + np.array([3.0, 4.0, 0.0])
    assert centre_distance(first, second, 2.0) == pytest.approx((5.0, 2.5))
    assert centre_distance(first, first, 0.0) == (0.0, 0.0)


def test_a_cloud_of_one_place_has_the_shape_of_a_point():
    assert not standardised(np.full((7, 3), 0.1)).any()


def test_counts_of_bars_at_different_scales_give_no_verdict():
    bars = [persistence(Distances.from_points(gauss(30, 2, seed))).bars[1] for seed in range(3)]
    with pytest.raises(StrataError, match=r"no verdict on overlap.*above 0\.1, of the second above 0\.2"):
        union_counts(*bars, thresholds=(0.1, 0.2, 0.1))
    found = union_counts(*bars, thresholds=(0.1, 0.1, 0.1))
    assert (found.first, found.second, found.union) == tuple((each.lifetimes > 0.1).sum() for each in bars)


def test_the_published_union_result_is_refuted():
    """actopo's example clouds: one cross edge of 1199; 259 when only their shapes are compared."""
    data = pytest.importorskip("actopo.data")
    base, instruct = (data.load_example_cloud(name).astype(np.float64) for name in ("base", "instruct"))
    found = two_sample_tests(union_of(base, instruct), 600, draws=99, paired=True)
    tree = found.friedman_rafsky
    assert (tree.cross_edges, tree.n_edges) == (1, 1199)
    assert two_sample_tests(union_of(base, instruct), 600, draws=9).friedman_rafsky.expected == 600
    assert overlap_verdict(found) == "apart"
    shapes = two_sample_tests(union_of(standardised(base), standardised(instruct)), 600, draws=99)
    assert shapes.friedman_rafsky.cross_edges == 259
    assert overlap_verdict(shapes) == "partly overlapping"
    assert centre_distance(base, instruct, 1.0)[0] == pytest.approx(8.412507, rel=1e-6)
