"""Beside a maximum: what the maximum of as many random numbers is."""

import numpy as np
import pytest

from src.multiple_tests import largest_by_chance


@pytest.mark.parametrize("n", [1, 20, 500])
def test_the_largest_of_random_numbers_is_beyond_it_half_of_the_time(n: int) -> None:
    largest = np.random.default_rng(n).standard_normal((1000, n)).max(1)
    assert (largest > largest_by_chance(n)).mean() == pytest.approx(0.5, abs=0.06)
