"""Means over tokens with clustered errors."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from src.features.clustered import FEWEST_DOCUMENTS, ClusteredSums, document_windows

RNG = np.random.default_rng(0)


def test_mean_and_error_are_those_of_the_ratio_estimator():
    values, counts = RNG.normal(size=(40, 3)), RNG.integers(1, 30, size=(40, 1)).astype(float)
    sums = ClusteredSums(3)
    for rows in (slice(0, 15), slice(15, 40)):
        sums.add(torch.from_numpy(values[rows]), torch.from_numpy(counts[rows]))
    mean = values.sum(0) / counts.sum()
    residual = values - mean * counts
    error = np.sqrt((residual**2).sum(0) * 40 / 39) / counts.sum()
    assert sums.mean().numpy() == pytest.approx(mean, rel=1e-12)
    assert sums.standard_error().numpy() == pytest.approx(error, rel=1e-10)


def test_the_error_covers_the_truth_as_often_as_it_says_where_tokens_of_a_document_are_alike():
    covered, n_trials = 0, 400
    for _ in range(n_trials):
        sizes = RNG.integers(5, 15, size=60)
        of_document = RNG.normal(size=60)  # every token of a document has the same value: the true mean is 0
        sums = ClusteredSums(1)
        sums.add(torch.from_numpy((of_document * sizes)[:, None]), torch.from_numpy(sizes[:, None].astype(float)))
        covered += abs(float(sums.mean())) < 1.96 * float(sums.standard_error())
    assert 0.90 < covered / n_trials < 0.98


def test_few_documents_have_no_error():
    sums = ClusteredSums(2)
    sums.add(torch.ones(1, 2), torch.ones(1, 1))
    assert sums.standard_error().isnan().all()
    assert sums.mean().tolist() == [1, 1]


def test_the_documents_of_a_mean_over_firings_are_those_with_firings():
    """A feature that fires in one of 60 documents is known from one document, and its error is not 0."""
    fires_in = {0: 1, 1: FEWEST_DOCUMENTS - 1, 2: FEWEST_DOCUMENTS, 3: 60}
    counts = torch.zeros(60, 4)
    for feature, n in fires_in.items():
        counts[:n, feature] = 3
    sums = ClusteredSums(4)
    sums.add(counts * torch.rand(60, 4), counts)
    error = sums.standard_error()
    assert error[:2].isnan().all()
    assert (error[2:] > 0).all()


@given(st.lists(st.integers(0, 8), max_size=40), st.integers(1, 12))
def test_windows_part_no_document_and_leave_nothing_out(documents, size):
    windows = list(document_windows(np.array(documents, dtype=np.int64), size))
    assert sorted(index for window in windows for index in window) == list(range(len(documents)))
    held = [{documents[index] for index in window} for window in windows]
    assert sum(map(len, held)) == len(set(documents))
    assert all(len(window) >= size for window in windows[:-1])
    assert all(len(window) < size + documents.count(documents[window[-1]]) for window in windows)
