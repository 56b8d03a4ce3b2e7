import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from src.activations.moments import Moments
from src.errors import StrataError
from src.transport.permutation import SizeTest, permutation_test, shuffled_moments, shuffled_rows
from tests.fixtures.planted_transport import X, Y, moments_of, planted


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@settings(max_examples=30, deadline=None)
@given(lengths=st.lists(st.integers(1, 6), min_size=1, max_size=30), seed=st.integers(0, 1000))
def test_documents_stay_whole_and_in_their_group(lengths, seed):
    rng = np.random.default_rng(seed)
    document = np.repeat(rng.permutation(len(lengths)), lengths)
    group = document % 3
    rows = shuffled_rows(torch.from_numpy(group), torch.from_numpy(document), generator(seed)).numpy()
    assert sorted(rows) == list(range(len(rows)))
    np.testing.assert_array_equal(group[rows], group)
    for g in range(3):
        order = np.argsort(document[group == g], kind="stable")
        taken = rows[group == g][order]
        runs = document[taken]
        # each document of y is one run of rows in their own order
        assert len(set(runs)) == 1 + np.count_nonzero(np.diff(runs)) if len(runs) else True
        for one in set(runs):
            np.testing.assert_array_equal(taken[runs == one], np.flatnonzero(document == one))


def test_documents_of_equal_length_keep_positions_and_take_any_place():
    document = torch.arange(8).repeat_interleave(5)
    group = (document >= 4).long()
    seen = set()
    for seed in range(200):
        rows = shuffled_rows(group, document, generator(seed))
        assert torch.equal(rows % 5, torch.arange(40) % 5)
        seen.add(int(rows[0]) // 5)
    assert seen == {0, 1, 2, 3}


def dependent_rows(n_documents, length, d, size, seed):
    """Rows whose documents share an offset: the effective number of rows is near that of documents."""
    rng = np.random.default_rng(seed)
    document = np.repeat(np.arange(n_documents), length)
    x, y = planted(n_documents * length, d, size, 0.9, seed)
    for side in (x, y):
        side += 2 * side.std() * rng.standard_normal((n_documents, d))[document]
    return x, y, document, document % 5


def test_shuffled_moments_are_those_of_shuffled_rows():
    x, y, document, group = dependent_rows(30, 4, 5, 2, 0)
    moments = moments_of(x, y, group)
    rows = {X: torch.from_numpy(x), Y: torch.from_numpy(y)}
    group, document = torch.from_numpy(group), torch.from_numpy(document)
    found = list(shuffled_moments(moments, rows, group, document, X, Y, 2, seed=7))
    shared = generator(7)
    for replicate in found:
        order = shuffled_rows(group, document, shared)
        expected = moments_of(x, y[order], group)
        for fold in range(5):
            scatter = replicate.subset([fold]).scatter(X, Y)
            torch.testing.assert_close(scatter, expected.subset([fold]).scatter(X, Y), rtol=1e-10, atol=1e-9)
            torch.testing.assert_close(
                expected.subset([fold]).scatter(Y, Y), moments.subset([fold]).scatter(Y, Y), rtol=1e-10, atol=1e-9
            )
    assert not torch.equal(found[0].products[X, Y], found[1].products[X, Y])


def run_test(x, y, document, group, n_replicates=19):
    moments = moments_of(x, y, group)
    rows = {X: torch.from_numpy(x), Y: torch.from_numpy(y)}
    shuffled = shuffled_moments(
        moments, rows, torch.from_numpy(group), torch.from_numpy(document), X, Y, n_replicates, seed=1
    )
    return permutation_test(moments, shuffled, X, Y, range(5))


def test_a_planted_transport_stands_out_from_shuffled_documents():
    x, y = planted(2000, 32, 8, 0.9, 0)
    document = np.arange(2000) // 10
    found = run_test(x, y, document, document % 5)
    for test in (found.explained_dimensions, found.participation_ratio):
        assert test.p_value == pytest.approx(1 / 20)
        assert 7 * 0.8 < test.value < 9
    assert found.explained_dimensions.quantiles[0.975] < 0.1
    assert (found.observed.correlations[:8] > found.null_correlations[0.975][:8] + 0.5).all()
    assert (found.null_correlations[0.05] <= found.null_correlations[0.95]).all()


def test_p_values_of_independent_documents_are_not_small_though_tokens_depend_on_each_other():
    p_values, spread = [], []
    for seed in range(30):
        found = run_test(*dependent_rows(100, 8, 6, 0, seed))
        p_values.append(found.explained_dimensions.p_value)
        spread.append(float(found.explained_dimensions.null.std()))
    # uniform on 0.05 .. 1
    assert np.mean(p_values) == pytest.approx(0.525, abs=3 * 0.29 / np.sqrt(30))
    assert np.mean(np.array(p_values) <= 0.1) < 0.3
    # rows taken as independent would give a null this many times too narrow
    assert np.mean(spread) > 3 * np.sqrt(3 * 6) / 800


def test_the_p_value_counts_the_value_itself():
    null = torch.tensor([0.1, 0.2, 0.3, 0.4]).double()
    assert SizeTest(0.3, null).p_value == pytest.approx(3 / 5)
    assert SizeTest(9.0, null).p_value == pytest.approx(1 / 5)
    assert SizeTest(9.0, null).quantiles[0.5] == pytest.approx(0.25)


def test_other_rows_are_refused():
    x, y, document, group = dependent_rows(30, 4, 5, 2, 0)
    moments = moments_of(x, y, group)
    rows = {X: torch.from_numpy(x[:-1]), Y: torch.from_numpy(y[:-1])}
    part = torch.from_numpy(group[:-1]), torch.from_numpy(document[:-1])
    with pytest.raises(StrataError, match="give all of them"):
        next(shuffled_moments(moments, rows, *part, X, Y, 1))
    fewer = Moments.empty([(X, Y)], {X: 5, Y: 5}, 5)
    fewer.update(rows, part[0])
    with pytest.raises(StrataError, match="other rows"):
        permutation_test(moments, [fewer], X, Y, range(5))
    with pytest.raises(StrataError, match="at least one"):
        permutation_test(moments, [], X, Y, range(5))
