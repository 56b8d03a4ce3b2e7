import math

import numpy as np
import pytest
from gudhi.representations import BettiCurve, Entropy, Landscape
from hypothesis import given
from hypothesis import strategies as st

from src.topology.homology.persistence import Bars
from src.topology.measures.summaries import (
    bar_statistics,
    betti_curve,
    count_longer,
    landscape_norm,
    largest_ratio,
    persistence_entropy,
    phi,
    survival_curve,
    survival_rate,
)

# lifetimes 4, 2, 2, 1
FOUR = Bars(1, np.array([1.0, 1.0, 2.0, 5.0]), np.array([5.0, 3.0, 4.0, 6.0]))
COMPONENTS = Bars(0, np.zeros(3), np.array([np.inf, 3.0, 1.0]))
NONE = Bars(1, np.empty(0), np.empty(0))

# small integers: thresholds meet births, deaths and lifetimes
some_bars = st.lists(st.tuples(st.integers(0, 6), st.integers(1, 6)), max_size=12).map(
    lambda pairs: Bars(1, np.array([float(b) for b, _ in pairs]), np.array([float(b + length) for b, length in pairs]))
)


def test_bars_are_counted_strictly_and_the_infinite_one_with_them():
    assert [count_longer(FOUR, length) for length in (0.5, 1, 2, 4)] == [4, 3, 1, 0]
    assert count_longer(COMPONENTS, 1) == 2
    assert survival_rate(FOUR, 1) == 0.75
    assert math.isnan(survival_rate(NONE, 1))


@given(some_bars)
def test_curves_count_bars_at_every_threshold(bars):
    grid = np.arange(0, 14, 0.5)
    assert survival_curve(bars, grid).tolist() == [count_longer(bars, length) for length in grid]
    alive = [int(((bars.birth <= scale) & (scale < bars.death)).sum()) for scale in grid]
    assert betti_curve(bars, grid).tolist() == alive


def test_betti_curves_are_those_of_gudhi_and_end_with_one_component():
    grid = np.linspace(0, 7, 50)
    assert betti_curve(FOUR, grid).tolist() == BettiCurve(predefined_grid=grid)(FOUR.diagram).tolist()
    assert betti_curve(COMPONENTS, np.array([0.0, 1.0, 2.9, 3.0, 99.0])).tolist() == [3, 2, 2, 1, 1]


def test_entropy_of_equal_bars_is_the_logarithm_of_their_number_and_gudhi_agrees():
    assert persistence_entropy(np.full(7, 0.3)) == pytest.approx(math.log(7))
    assert persistence_entropy(FOUR.lifetimes) == pytest.approx(Entropy()(FOUR.diagram)[0], rel=1e-12)
    assert math.isnan(persistence_entropy(NONE.lifetimes))


def test_summaries_leave_the_infinite_bar_out_and_count_it():
    found = bar_statistics(COMPONENTS, scale=2.0)
    assert (found["h0_count"], found["h0_infinite"]) == (2, 1)
    assert (found["h0_total"], found["h0_max"], found["h0_mean"]) == (4, 3, 2)
    assert (found["h0_total_scaled"], found["h0_max_scaled"], found["h0_mean_scaled"]) == (2, 1.5, 1)
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert found["h0_entropy"] == pytest.approx(entropy)
    assert found["h0_entropy_normalised"] == pytest.approx(entropy / math.log(2))
    assert found["h0_landscape_norm_scaled"] == pytest.approx(math.sqrt((1.5**3 + 0.5**3) / 12))


def test_summaries_of_no_bars_and_of_one():
    nothing = bar_statistics(NONE, scale=1.0)
    assert (nothing["h1_count"], nothing["h1_total"], nothing["h1_max"]) == (0, 0, 0)
    assert all(math.isnan(nothing[f"h1_{name}"]) for name in ("mean", "entropy", "entropy_normalised"))
    one = bar_statistics(Bars(1, np.array([1.0]), np.array([3.0])), scale=0.0)
    assert one["h1_entropy"] == 0
    assert math.isnan(one["h1_entropy_normalised"])
    assert math.isnan(one["h1_total_scaled"])


def test_ratios():
    assert largest_ratio(FOUR) == 5
    assert math.isnan(largest_ratio(COMPONENTS))
    assert phi(0.412, 0.512) == 0.412 / 0.512
    assert math.isnan(phi(0.5, 0.0))
    assert math.isnan(phi(0.5, float("nan")))


@pytest.mark.parametrize("p", [1, 2, 3])
def test_the_norm_of_landscapes_is_their_integral(p):
    sampled = Landscape(num_landscapes=4, resolution=20001, sample_range=[0, 7])(FOUR.diagram) / np.sqrt(2)
    integral = (sampled**p).sum() * 7 / 20000
    assert landscape_norm(FOUR.lifetimes, p) == pytest.approx(integral ** (1 / p), rel=1e-4)


def test_the_highest_landscape_is_half_the_longest_bar():
    assert landscape_norm(FOUR.lifetimes, np.inf) == 2
    assert landscape_norm(NONE.lifetimes) == 0
