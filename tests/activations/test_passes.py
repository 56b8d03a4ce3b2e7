"""Passes over a store against the same sums over all rows at once."""

from types import SimpleNamespace

import numpy as np
import psutil
import pytest
import torch

from src.activations.moments import Moments
from src.activations.passes import accumulate_moments, count_rows, rows_by_part, store_hashes
from src.errors import StrataError
from src.hook_points import HookPoint
from src.text import Keep, content_hashes
from tests.fixtures.stores import make_store

A, B, C = (HookPoint("resid_post", layer) for layer in range(3))
LENGTHS = [5, 3, 1, 6, 2, 8, 4]
N_TOKENS = sum(LENGTHS)
SEQUENCE = np.repeat(range(len(LENGTHS)), LENGTHS)
DOCUMENT = np.array([10, 10, 11, 13, 13, 13, 14])  # parts hold two sequences, so 13 lies in two of them
GROUPS = np.array([0, 2, 1, 0, 2, 1, 0], np.int8)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def rows():
    draws = np.random.default_rng(0)
    return {point: (draws.standard_normal((N_TOKENS, 6)) + 40 * point.layer).astype(np.float32) for point in (A, B, C)}


@pytest.fixture(scope="module")
def keep():
    first = np.concatenate([[0], np.cumsum(LENGTHS)[:-1]])
    keep = np.zeros(N_TOKENS, np.uint8)
    keep[first] = Keep.BOS
    keep[first[1]] = Keep.FIRST
    keep[first[2]] = Keep.SPECIAL  # BERT's [CLS]
    keep[first[4]] = Keep.SINK
    keep[first[5]] = Keep.NON_FINITE
    keep[[7, 12]] = Keep.SPECIAL
    keep[20] = Keep.SINK
    return keep


@pytest.fixture(scope="module")
def store(tmp_path_factory, rows, keep):
    return make_store(
        tmp_path_factory.mktemp("artifacts"), rows, LENGTHS, keep, sequences_per_part=2, document=DOCUMENT
    )


def test_rows_of_the_wanted_groups_in_the_order_of_the_store(store, rows, keep):
    found = list(rows_by_part(store, [A, C, A], GROUPS, [0, 2]))
    wanted = np.isin(GROUPS[SEQUENCE], [0, 2])
    assert list(found[0].activations) == [A, C]
    for point in (A, C):
        assert np.array_equal(torch.cat([part.activations[point] for part in found]).numpy(), rows[point][wanted])
    for name, expected in {
        "document": DOCUMENT[SEQUENCE][wanted],
        "group": GROUPS[SEQUENCE][wanted],
        "is_counted": keep[wanted] == Keep.COUNTED,
    }.items():
        assert torch.cat([getattr(part, name) for part in found]).tolist() == expected.tolist()


def test_first_tokens_are_those_at_position_0_whatever_their_role_but_not_a_number(store):
    found = torch.cat([part.is_first for part in rows_by_part(store, [A], GROUPS, [0, 1, 2])])
    expected = np.zeros(N_TOKENS, bool)
    expected[np.concatenate([[0], np.cumsum(LENGTHS)[:-1]])] = True
    expected[sum(LENGTHS[:5])] = False  # NaN
    assert found.tolist() == expected.tolist()


def test_first_tokens_that_count_are_not_scored_twice(tmp_path, rows):
    counted = make_store(tmp_path, rows, LENGTHS, np.zeros(N_TOKENS, np.uint8))
    assert not any(part.is_first.any() for part in rows_by_part(counted, [A], GROUPS, [0, 1, 2]))


def test_a_part_without_a_wanted_sequence_is_not_read(store, monkeypatch):
    read = []
    part_type = type(next(iter(store)))
    original = part_type.activations
    monkeypatch.setattr(part_type, "activations", lambda part, point: read.append(part.index) or original(part, point))
    groups = np.array([0, 0, 0, 0, 1, 0, 0])
    assert len(list(rows_by_part(store, [A], groups, [1]))) == 1
    assert read == [2]


@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_moments_are_sums_over_counted_rows_by_group(store, rows, keep, precision):
    done = []
    moments = accumulate_moments(store, [(A, A), (A, C)], GROUPS, 3, precision, CPU, done.append)
    assert done == [8, 7, 10, 4]
    for group in range(3):
        counted = (keep == Keep.COUNTED) & (GROUPS[SEQUENCE] == group)
        x, y = (rows[point][counted].astype(np.float64) for point in (A, C))
        found = moments.subset([group])
        assert found.n == len(x)
        np.testing.assert_allclose(found.mean(C).numpy(), y.mean(0), rtol=1e-6)
        expected = (x - x.mean(0)).T @ (y - y.mean(0))
        tolerance = 1e-9 if precision == "float64" else 1e-4
        np.testing.assert_allclose(found.scatter(A, C).numpy(), expected, rtol=tolerance, atol=tolerance)


def test_moments_do_not_depend_on_how_the_store_is_cut(tmp_path, store, rows, keep):
    pairs = [(A, A), (A, B)]
    whole = make_store(tmp_path, rows, LENGTHS, keep, sequences_per_part=100)
    one, many = (accumulate_moments(each, pairs, GROUPS, 3, "float64", CPU, lambda _n: None) for each in (whole, store))
    assert torch.equal(one.count, many.count)
    for a, b in pairs:
        torch.testing.assert_close(
            one.subset([0, 2]).scatter(a, b), many.subset([0, 2]).scatter(a, b), rtol=1e-9, atol=1e-9
        )


def test_tokens_that_are_not_counted_may_hold_anything(tmp_path, rows, keep):
    spoilt = {point: values.copy() for point, values in rows.items()}
    for values in spoilt.values():
        values[keep != Keep.COUNTED] = np.nan
    store = make_store(tmp_path, spoilt, LENGTHS, keep)
    moments: Moments = accumulate_moments(store, [(A, B)], GROUPS, 3, "float64", CPU, lambda _n: None)
    assert int(moments.count.sum()) == int((keep == Keep.COUNTED).sum())
    assert bool(moments.subset([0, 1, 2]).scatter(A, B).isfinite().all())


def test_sequences_of_further_groups_are_left_out(store, rows, keep):
    all_groups = accumulate_moments(store, [(A, B)], GROUPS, 3, "float64", CPU, lambda _n: None)
    done = []
    moments = accumulate_moments(store, [(A, B)], GROUPS, 2, "float64", CPU, done.append)
    assert moments.n_groups == 2
    assert done == [8, 7, 10, 4]  # a progress bar counts them all
    assert moments.count.tolist() == all_groups.count[:2].tolist()
    for groups in ([0], [1], [0, 1]):
        ours, expected = moments.subset(groups).scatter(A, B), all_groups.subset(groups).scatter(A, B)
        torch.testing.assert_close(ours, expected, rtol=1e-9, atol=1e-9)


def test_moments_that_do_not_fit_into_memory_are_refused_before_any_work(store, monkeypatch):
    size = 8 * 3 * 2 * 6 * 6  # groups, pairs, d_model squared; and as much again when they are saved

    def accumulate(available):
        monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=available))
        return accumulate_moments(store, [(A, A), (A, B), (A, A)], GROUPS, 3, None, CPU, seen.append)

    seen = []
    with pytest.raises(StrataError, match=r"2 pairs of hook points \(width 6, 3 groups.*fewer pairs.*fewer folds"):
        accumulate(2 * size - 1)
    assert not seen
    assert accumulate(2 * size).n_groups == 3


def test_a_layer_that_was_not_collected_is_refused(store):
    with pytest.raises(StrataError, match=r"has no resid_post\.7"):
        accumulate_moments(store, [(A, HookPoint("resid_post", 7))], GROUPS, 3, None, CPU, lambda _n: None)


def test_hashes_are_those_of_the_documents_first_token_ids(store):
    ids = np.concatenate([part.token_ids for part in store])
    hashes = content_hashes(np.split(ids, np.cumsum(LENGTHS)[:-1]), seed=5)
    assert store_hashes(store, seed=5).tolist() == hashes[[0, 0, 2, 3, 3, 3, 6]].tolist()
    assert store_hashes(store, seed=6).tolist() != store_hashes(store, seed=5).tolist()


def rows_by_loop(keep, offsets, accepted=(Keep.COUNTED,), *, first_too=False):
    """The tokens whose neighbours at all offsets are in their sequence and accepted, one sequence after another."""
    found, start = [], 0
    for length in LENGTHS:
        for place in range(length):
            there = [place + offset for offset in (0, *offsets)]
            if all(0 <= other < length for other in there) and all(
                keep[start + other] in accepted or (first_too and other == 0 and keep[start] != Keep.NON_FINITE)
                for other in there
            ):
                found.append(start + place)
        start += length
    return np.array(found, int)


OFFSETS = [(1,), (-1,), (0, 2), (-1, 0, 2), (4,), (3, -3)]


@pytest.mark.parametrize("offsets", OFFSETS)
def test_rows_with_offsets_are_those_of_a_loop_over_sequences(store, rows, keep, offsets):
    points = [A, *(C.at(offset) for offset in offsets)]
    found = list(rows_by_part(store, points, GROUPS, [0, 1, 2]))
    of_rows = rows_by_loop(keep, offsets, tuple(Keep))
    counted, first_too = rows_by_loop(keep, offsets), rows_by_loop(keep, offsets, first_too=True)
    assert len(counted) or offsets in [(4,), (3, -3)]
    for point in points:
        expected = rows[point.at(0)][of_rows + point.offset]
        assert np.array_equal(torch.cat([part.activations[point] for part in found]).numpy(), expected)
    for name, expected in {
        "document": DOCUMENT[SEQUENCE][of_rows],
        "group": GROUPS[SEQUENCE][of_rows],
        "is_counted": np.isin(of_rows, counted),
        "is_first": np.isin(of_rows, np.setdiff1d(first_too, counted)),
    }.items():
        assert torch.cat([getattr(part, name) for part in found]).tolist() == expected.tolist()


@pytest.mark.parametrize("offsets", [(1,), (-1, 0, 2)])
def test_moments_with_offsets_are_sums_over_the_rows_of_the_loop(store, rows, keep, offsets):
    pairs = [(A, A), *((A, C.at(offset)) for offset in offsets)]
    moments = accumulate_moments(store, pairs, GROUPS, 3, "float64", CPU, lambda _n: None)
    tokens = rows_by_loop(keep, offsets)
    assert moments.count.tolist() == np.bincount(GROUPS[SEQUENCE][tokens], minlength=3).tolist()
    assert moments.count.tolist() == count_rows(store, GROUPS, 3, offsets).tolist()
    every = moments.subset([0, 1, 2])
    x = rows[A][tokens].astype(float)
    for offset in offsets:
        y = rows[C][tokens + offset].astype(float)
        expected = (x - x.mean(0)).T @ (y - y.mean(0))
        np.testing.assert_allclose(every.scatter(A, C.at(offset)).numpy(), expected, rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(every.mean(C.at(offset)).numpy(), y.mean(0), rtol=1e-9)


def test_offsets_that_are_named_decide_the_rows_of_points_that_have_none(store, rows, keep):
    tokens = rows_by_loop(keep, (-1, 2))
    moments = accumulate_moments(store, [(A, C)], GROUPS, 3, "float64", CPU, lambda _n: None, offsets=[-1, 2])
    assert int(moments.count.sum()) == len(tokens)
    found = list(rows_by_part(store, [A, C], GROUPS, [0, 1, 2], offsets=[-1, 2]))
    counted = torch.cat([part.activations[C][part.is_counted] for part in found])
    assert np.array_equal(counted.numpy(), rows[C][tokens])


def test_offsets_beyond_every_sequence_leave_no_rows(store, rows):
    assert count_rows(store, GROUPS, 3, [100]).tolist() == [0, 0, 0]
    assert list(rows_by_part(store, [A, C.at(-100)], GROUPS, [0, 1, 2])) == []
    moments = accumulate_moments(store, [(A, C.at(8))], GROUPS, 3, "float64", CPU, lambda _n: None)
    assert moments.count.sum() == 0


def test_an_array_is_read_once_for_all_its_offsets(store, monkeypatch):
    read = []
    part_type = type(next(iter(store)))
    original = part_type.activations
    monkeypatch.setattr(part_type, "activations", lambda part, point: read.append(point) or original(part, point))
    points = [A, C, B, C.at(1), A.at(-1), C.at(1)]
    (first, *_) = rows_by_part(store, points, GROUPS, [0, 1, 2])
    assert read[:3] == [A, C, B]
    assert len(read) == 3 * len(list(store))
    assert set(first.activations) == set(points)


def test_a_part_has_no_array_of_a_shifted_point(store):
    with pytest.raises(StrataError, match=r"resid_post\.0@\+1: an offset"):
        next(iter(store)).activations(A.at(1))
    store.require([A.at(1), C.at(-2)])
    with pytest.raises(StrataError, match=r"has no resid_post\.7:"):
        store.require([HookPoint("resid_post", 7, 1)])
