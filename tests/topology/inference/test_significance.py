"""Significance of loops: the universal law and corrections by hand, exactness under the null, planted loops found."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import gumbel_l

from src.errors import StrataError
from src.multiple_tests import holm
from src.topology.homology.distances import Distances
from src.topology.homology.persistence import Bars, persistence
from src.topology.inference.nulls import grouped_gaussian
from src.topology.inference.significance import (
    MIN_BARS,
    benjamini_hochberg,
    death_over_birth,
    null_largest_ratios,
    null_p_values,
    significant_loops,
    universal_p_values,
)

CIRCLE_IN = 64


def bars(ratios, dimension=1):
    return Bars(dimension, np.ones(len(ratios)), np.array(ratios, dtype=float))


def loops_of(points):
    return persistence(Distances.from_points(points)).bars[1]


def circle(random, n, noise):
    angle = random.uniform(0, 2 * np.pi, n)
    points = noise / np.sqrt(CIRCLE_IN) * random.standard_normal((n, CIRCLE_IN))
    points[:, :2] += np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return points


def test_universal_law_by_hand():
    ratios = np.exp([0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, np.e**8 * 0.1])
    # r is ln 0.1 seven times and ln 0.1 + 8, so that l + gamma is -1 seven times and 7
    expected = [np.exp(-np.exp(-1 - np.euler_gamma))] * 7 + [np.exp(-np.exp(7 - np.euler_gamma))]
    assert universal_p_values(bars(ratios)) == pytest.approx(expected, rel=1e-9)


def test_universal_p_values_are_uniform_if_the_law_holds():
    # left-skewed Gumbel values are ln ln of the ratios, at any place
    r = gumbel_l.rvs(size=4000, random_state=3) - 4.0
    p = universal_p_values(bars(np.exp(np.exp(r))))
    assert np.abs(np.sort(p) - (np.arange(4000) + 0.5) / 4000).max() < 0.03


def test_universal_law_fits_bars_of_a_gaussian_cloud():
    points = np.random.default_rng(0).standard_normal((300, 3))
    p = universal_p_values(loops_of(points))
    assert len(p) > 100
    # an asymptotic law: 0.13 would be a KS distance that 150 bars reject at 0.01
    assert np.abs(np.sort(p) - (np.arange(len(p)) + 0.5) / len(p)).max() < 0.13


def test_universal_law_is_scale_free():
    few = np.random.default_rng(0).uniform(1.01, 1.5, 30)
    scaled = Bars(1, np.full(30, 7.0), 7.0 * few)
    assert universal_p_values(bars(few)) == pytest.approx(universal_p_values(scaled))


def test_bars_without_a_ratio_are_not_tested_and_do_not_count():
    ratios = np.random.default_rng(1).uniform(1.01, 1.5, 20)
    whole = bars(ratios)
    odd = Bars(1, np.append(whole.birth, [0.0, 1.0]), np.append(whole.death, [2.0, np.inf]))
    p = universal_p_values(odd)
    assert p[:20] == pytest.approx(universal_p_values(whole))
    assert np.isnan(p[20:]).all()
    assert np.isnan(null_p_values(odd, np.ones(19))[20:]).all()
    assert not significant_loops(odd, np.ones(19)).significant[20:].any()


def test_few_bars_have_no_universal_p_but_the_null_model_decides():
    few = bars([3.0] + [1.1] * (MIN_BARS - 2))
    assert np.isnan(universal_p_values(few)).all()
    found = significant_loops(few, np.full(19, 1.5))
    assert found.significant.tolist() == [True] + [False] * (MIN_BARS - 2)
    assert not significant_loops(few, None).significant.any()


def test_components_are_refused():
    with pytest.raises(StrataError, match="components are all born at 0"):
        universal_p_values(bars([2.0], dimension=0))


def test_benjamini_hochberg_by_hand():
    p = np.array([0.01, 0.04, np.nan, 0.03, 0.005])
    # sorted 0.005 0.01 0.03 0.04: times 4 / rank 0.02 0.02 0.04 0.04
    assert benjamini_hochberg(p) == pytest.approx([0.02, 0.04, np.nan, 0.04, 0.02], nan_ok=True)


@given(st.lists(st.floats(1e-9, 1.0), min_size=1, max_size=30))
def test_benjamini_hochberg_rejects_as_its_definition(values):
    p, level = np.array(values), 0.1
    ranked = np.sort(p)
    passing = np.flatnonzero(ranked * len(p) / np.arange(1, len(p) + 1) <= level)
    rejected = p <= ranked[passing[-1]] if len(passing) else np.zeros(len(p), dtype=bool)
    assert (benjamini_hochberg(p) <= level).tolist() == rejected.tolist()


@given(st.lists(st.floats(1e-9, 1.0), min_size=1, max_size=30))
def test_holm_rejects_as_its_definition(values):
    p, level = np.array(values), 0.1
    rejected = np.zeros(len(p), dtype=bool)
    for place, bar in enumerate(np.argsort(p, kind="stable")):
        if p[bar] * (len(p) - place) > level:
            break
        rejected[bar] = True
    assert (holm(p) <= level).tolist() == rejected.tolist()


def test_no_p_values_of_no_bars():
    nothing = significant_loops(bars([]), np.full(19, np.nan))
    assert len(nothing.significant) == len(nothing.p_null) == len(nothing.q_universal) == 0


def test_null_p_values_count_draws_and_are_never_zero():
    p = null_p_values(bars([3.0, 2.0, 1.5, 1.01]), np.array([1.2, 2.0, np.nan, 1.6]))
    assert p == pytest.approx([1 / 5, 2 / 5, 3 / 5, 4 / 5])  # a draw without loops counts for none


def test_too_few_draws_for_the_level_are_refused():
    with pytest.raises(StrataError, match="draw 19 or more"):
        significant_loops(bars([2.0]), np.ones(18))
    with pytest.raises(StrataError, match="draw 99 or more"):
        significant_loops(bars([2.0]), np.ones(98), level=0.01)
    assert significant_loops(bars([2.0]), np.ones(19)).significant.all()


def test_a_loop_is_significant_by_both_tests():
    large = np.append(np.random.default_rng(2).uniform(1.01, 1.05, 40), 3.0)
    assert significant_loops(bars(large), np.full(19, 2.0)).significant.tolist() == [False] * 40 + [True]
    assert significant_loops(bars(large), None).significant.tolist() == [False] * 40 + [True]
    # not beyond the null model's
    assert not significant_loops(bars(large), np.full(19, 4.0)).significant.any()
    # beyond the null model's, but like the cloud's other bars
    alike = np.random.default_rng(2).uniform(1.3, 1.5, 40)
    found = significant_loops(bars(alike), np.full(19, 1.1))
    assert (found.p_null <= 0.05).all()
    assert not found.significant.any()


def test_p_of_the_largest_loop_is_uniform_on_gaussian_clouds():
    random = np.random.default_rng(11)
    smallest = []
    for cloud in range(60):
        d = (3, 16, 40)[cloud % 3]
        points = random.standard_normal((25, d)) * np.arange(1, d + 1) ** -0.5 + 5.0
        p = null_p_values(loops_of(points), null_largest_ratios(points, draws=19, seed=cloud))
        smallest.append(p.min() if len(p) else 1.0)
    # exact: multiples of 1 / 20, each equally likely
    smallest = np.sort(smallest)
    assert np.mean(smallest <= 0.05) <= 0.12
    grid = np.arange(1, 21) / 20
    # KS distance, whose 1 % point for 60 is 0.21
    assert np.abs(np.searchsorted(smallest, grid, side="right") / 60 - grid).max() < 0.21


def test_gaussian_clouds_have_no_loops_by_default():
    random = np.random.default_rng(7)
    found = [
        significant_loops(loops_of(points), null_largest_ratios(points, draws=19, seed=cloud)).significant.any()
        for cloud in range(30)
        for points in [random.standard_normal((40, 2 ** (1 + cloud % 6)))]
    ]
    assert sum(found) <= 2


def test_a_circle_in_noise_is_one_loop():
    random = np.random.default_rng(5)
    counts = [
        int(significant_loops(loops_of(points), null_largest_ratios(points, draws=19, seed=k)).significant.sum())
        for k in range(10)
        for points in [circle(random, 80, 0.8)]
    ]
    assert counts.count(1) >= 9


def test_clusters_are_not_loops():
    random = np.random.default_rng(6)
    found = []
    for k in range(10):
        label = random.integers(12, size=80)
        points = random.standard_normal((12, 32))[label] + 0.1 * random.standard_normal((80, 32))
        found.append(significant_loops(loops_of(points), null_largest_ratios(points, draws=19, seed=k)))
    assert sum(each.significant.any() for each in found) <= 1


def test_seven_class_means_on_a_circle_are_a_loop():
    random = np.random.default_rng(9)
    angle = 2 * np.pi * np.arange(7) / 7
    points = 0.05 * random.standard_normal((7, 16))
    points[:, 0] += np.cos(angle)
    points[:, 1] += np.sin(angle)
    found = significant_loops(loops_of(points), null_largest_ratios(points, draws=199))
    assert found.significant.tolist() == [True]
    assert found.p_null[0] < 0.05
    # and so are their copies, which are rearranged as groups
    copies = np.repeat(points, 5, axis=0) + 0.01 * random.standard_normal((35, 16))
    null = null_largest_ratios(copies, grouped_gaussian(np.repeat(np.arange(7), 5)), 99)
    assert significant_loops(loops_of(copies), null).significant.sum() == 1


def test_one_seed_one_answer_whatever_the_number_of_draws_and_threads():
    points = np.random.default_rng(0).standard_normal((30, 5))
    once = null_largest_ratios(points, draws=6, seed=4)
    assert np.array_equal(once, null_largest_ratios(points, draws=9, seed=4)[:6], equal_nan=True)
    assert np.array_equal(once, null_largest_ratios(points, draws=6, seed=4, workers=2), equal_nan=True)
    assert not np.array_equal(once, null_largest_ratios(points, draws=6, seed=5), equal_nan=True)


def test_ratios_belong_to_their_bars():
    found = loops_of(np.random.default_rng(0).standard_normal((50, 4)))
    assert death_over_birth(found) == pytest.approx(found.death / found.birth)
