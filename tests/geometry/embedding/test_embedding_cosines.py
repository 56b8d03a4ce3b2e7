"""Percentiles from the histogram are within the bound that it states."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from src.geometry.embedding import cosines as cosines_module
from src.geometry.embedding.cosines import BINS, cosine_histogram
from src.geometry.embedding.rows import Rows

CPU = torch.device("cpu")


def random_rows(n, d, mean, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed)) + mean


def histogram_of(table, ids=None):
    everyone = np.arange(len(table))
    return cosine_histogram(Rows(table, everyone, CPU), everyone if ids is None else ids)


def exact(table):
    unit = torch.nn.functional.normalize(table.double(), dim=1).numpy()
    return (unit @ unit.T)[np.triu_indices(len(table), 1)]


@settings(max_examples=15, deadline=None)
@given(st.integers(2, 60), st.integers(1, 40), st.floats(-2, 2), st.integers(0, 10))
def test_percentiles_are_right_to_the_error_that_is_stated(n, d, mean, seed):
    table = random_rows(n, d, mean, seed)
    found, truth = histogram_of(table), exact(table)
    assert found.n_pairs == len(truth) == found.counts.sum()
    for percent in (0, 1, 5, 25, 50, 75, 95, 99, 100):
        wanted = np.percentile(truth, percent, method="inverted_cdf")
        assert abs(found.percentile(percent) - wanted) <= found.error
    assert found.error < 1e-4
    assert found.rank_error == 0


def test_blocks_count_each_pair_once(monkeypatch):
    table = random_rows(300, 16, 0.5)
    whole, told = histogram_of(table), []
    monkeypatch.setattr(cosines_module, "_BLOCK_ROWS", 64)
    rows = Rows(table, np.arange(300), CPU)
    parts = cosine_histogram(rows, rows.ids, told.append)
    assert np.abs(np.cumsum(whole.counts) - np.cumsum(parts.counts)).max() <= 2  # rounding at edges of bins
    assert sum(told) == whole.n_pairs == 300 * 299 // 2
    assert len(told) == 15


def test_equal_and_opposite_rows_are_counted_at_the_ends():
    row = random_rows(1, 8, 0)
    found = histogram_of(torch.cat([row, row, -row]))
    assert (found.counts[-1], found.counts[0], found.n_pairs) == (1, 2, 3)


def test_rows_of_zeros_have_no_pairs():
    table = torch.cat([random_rows(20, 8, 0), torch.zeros(4, 8)])
    assert histogram_of(table).n_pairs == 190


def test_a_sample_says_how_far_its_ranks_may_be_off():
    table = random_rows(500, 12, 0.4)
    truth = exact(table)
    rng = np.random.default_rng(0)
    misses = 0
    for _ in range(8):
        found = histogram_of(table, np.sort(rng.choice(500, 150, replace=False)))
        assert 0 < found.rank_error < 25
        for percent, (value, low, high) in found.percentiles().items():
            assert low <= value <= high
            misses += not low - found.error <= np.percentile(truth, percent) <= high + found.error
    assert misses == 0


def test_wide_bins_hold_the_same_pairs():
    found = histogram_of(random_rows(100, 12, 0.4))
    bars = found.coarse(128)
    assert sum(count for *_, count in bars) == found.n_pairs
    assert bars[0][2] > 0
    assert bars[-1][2] > 0
    assert [high for _, high, _ in bars[:-1]] == pytest.approx([low for low, *_ in bars[1:]])
    assert BINS % 128 == 0


def test_one_row_has_no_percentiles():
    found = histogram_of(random_rows(1, 4, 0))
    assert np.isnan(found.percentile(50))
    assert found.coarse(64) == []
