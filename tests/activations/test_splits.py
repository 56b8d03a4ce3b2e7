import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.activations.splits import document_hashes, split_groups
from src.errors import StrataError
from src.text import content_hashes

hash_arrays = st.lists(st.integers(0, 2**64 - 1) | st.integers(0, 5), min_size=1, max_size=150).map(
    lambda values: np.array(values, np.uint64)
)
positive = st.floats(0.05, 1)


@given(hashes=hash_arrays, weights=st.tuples(positive, positive, positive), n_folds=st.integers(1, 6))
def test_groups_are_exact_and_part_no_duplicates(hashes, weights, n_folds):
    fractions = tuple(np.array(weights) / sum(weights))
    n = len(set(hashes.tolist()))
    try:
        groups = split_groups(hashes, fractions, n_folds)
    except StrataError:
        quotas = np.array([fractions[0] / n_folds, fractions[1], fractions[2]]) * n
        assert min(quotas) < 1  # refused only where some group has no whole sequence by right
        return

    group_of = dict(zip(hashes.tolist(), groups.tolist(), strict=True))
    assert [group_of[value] for value in hashes.tolist()] == groups.tolist()
    sizes = np.bincount(list(group_of.values()), minlength=n_folds + 2)
    assert len(sizes) == n_folds + 2
    assert sizes.min() >= 1
    assert np.ptp(sizes[:n_folds]) <= 1
    cut = np.array([sizes[:n_folds].sum(), *sizes[n_folds:]])
    assert cut.sum() == n
    assert np.all(np.abs(cut - n * np.array(fractions)) < 1)


@given(n=st.integers(60, 150), n_folds=st.integers(1, 8), n_test_groups=st.integers(1, 8))
def test_test_is_dealt_to_groups_and_train_val_and_test_stay_what_they_are(n, n_folds, n_test_groups):
    hashes = np.arange(n, dtype=np.uint64) * 7919
    plain = split_groups(hashes, (0.5, 0.2, 0.3), 1)
    groups = split_groups(hashes, (0.5, 0.2, 0.3), n_folds, n_test_groups)
    assert np.digitize(groups, [n_folds, n_folds + 1]).tolist() == plain.tolist()
    sizes = np.bincount(groups, minlength=n_folds + 1 + n_test_groups)
    assert len(sizes) == n_folds + 1 + n_test_groups
    assert np.ptp(sizes[n_folds + 1 :]) <= 1


def test_folds_of_a_multiple_are_parts_of_folds():
    hashes = np.arange(200, dtype=np.uint64) * 7919
    few, many = (split_groups(hashes, (0.6, 0.2, 0.2), n_folds) for n_folds in (5, 20))
    train = few < 5
    assert (many[train] % 5).tolist() == few[train].tolist()


def test_groups_of_test_have_limits():
    hashes = np.arange(100, dtype=np.uint64)
    with pytest.raises(StrataError, match=r"n_test_groups=8 is not within 1 to 7"):
        split_groups(hashes, (0.6, 0.2, 0.2), 120, 8)
    with pytest.raises(StrataError, match=r"3 folds of train, val and 21 groups of test .*: 105 are enough; .*groups"):
        split_groups(hashes, (0.6, 0.2, 0.2), 3, 21)
    assert split_groups(np.arange(105, dtype=np.uint64), (0.6, 0.2, 0.2), 3, 21).max() == 24


def test_round_numbers_are_split_to_the_sequence():
    groups = split_groups(np.arange(1000, dtype=np.uint64), (0.7, 0.2, 0.1), 5)
    assert np.bincount(groups).tolist() == [140] * 5 + [200, 100]
    assert groups.dtype == np.int8


def test_what_rounding_leaves_goes_to_the_largest_remainders():
    groups = split_groups(np.arange(9, dtype=np.uint64), (0.5, 0.3, 0.2), 1)  # quotas 4.5, 2.7, 1.8
    assert np.bincount(groups).tolist() == [4, 3, 2]


@given(st.permutations(range(40)))
def test_group_of_a_sequence_does_not_depend_on_the_order(order):
    hashes = np.arange(40, dtype=np.uint64) * 7919
    groups = split_groups(hashes, (0.6, 0.2, 0.2), 3)
    assert split_groups(hashes[order], (0.6, 0.2, 0.2), 3).tolist() == groups[order].tolist()


@pytest.mark.parametrize(
    ("fractions", "n_folds"), [((0.6, 0.2, 0.2), 5), ((0.98, 0.01, 0.01), 3), ((0.1, 0.1, 0.8), 4)]
)
def test_too_few_sequences_says_how_many_are_enough(fractions, n_folds):
    with pytest.raises(StrataError, match=r"2 different documents cannot be split into") as caught:
        split_groups(np.array([4, 4, 4, 9], np.uint64), fractions, n_folds)
    enough = int(str(caught.value).split(": ")[1].split(" are enough")[0])
    groups = split_groups(np.arange(enough, dtype=np.uint64), fractions, n_folds)
    assert set(groups.tolist()) == set(range(n_folds + 2))


def test_one_fold_is_not_spoken_of_as_folds():
    with pytest.raises(StrataError, match=r"^1 different document cannot be split into train, val and test") as caught:
        split_groups(np.zeros(3, np.uint64), (0.6, 0.2, 0.2), 1)
    assert "fold" not in str(caught.value)


@pytest.mark.parametrize("fractions", [(0.6, 0.2, 0.1), (0.8, 0.0, 0.2), (1.2, -0.1, -0.1)])
def test_fractions_must_be_positive_and_sum_to_one(fractions):
    with pytest.raises(StrataError, match=r"must be positive and sum to 1, not \["):
        split_groups(np.arange(100, dtype=np.uint64), fractions, 5)


@given(st.lists(st.integers(0, 9), min_size=1, max_size=60).map(sorted), st.data())
def test_documents_that_share_a_sequence_share_a_hash_and_no_others_do(document, data):
    hashes = np.array(
        data.draw(st.lists(st.integers(0, 30), min_size=len(document), max_size=len(document))), np.uint64
    )
    found = document_hashes(hashes, np.array(document))
    assert found.dtype == np.uint64
    clusters = [{each} for each in set(document)]  # merged, one shared sequence after the other
    for value in set(hashes.tolist()):
        holders = {each for each, held in zip(document, hashes.tolist(), strict=True) if held == value}
        touched = [cluster for cluster in clusters if cluster & holders]
        clusters = [cluster for cluster in clusters if not cluster & holders] + [set().union(*touched)]
    for cluster in clusters:
        expected = min(int(hashes[document.index(each)]) for each in cluster)
        assert {int(found[i]) for i, each in enumerate(document) if each in cluster} == {expected}


def test_documents_are_never_parted_nor_their_copies_even_when_cut_off():
    draws = np.random.default_rng(0)
    pieces = draws.integers(1, 6, 200)  # sequences of each document
    contents = [[f"{index}.{piece}" for piece in range(count)] for index, count in enumerate(pieces)]
    contents += [contents[7], contents[8][:1]]  # a copy, and a copy that num_tokens has cut off
    document = np.repeat(np.arange(len(contents)), [len(each) for each in contents])
    ids = [np.frombuffer(piece.encode().ljust(12), np.int32) for each in contents for piece in each]
    groups = split_groups(document_hashes(content_hashes(ids, 3), document), (0.6, 0.2, 0.2), 5)
    group_of = {each: set(groups[document == each].tolist()) for each in range(len(contents))}
    assert all(len(found) == 1 for found in group_of.values())
    assert group_of[7] == group_of[200]
    assert group_of[8] == group_of[201]
    sizes = np.bincount([next(iter(group_of[each])) for each in range(200)])
    assert sizes.tolist() == [24] * 5 + [40, 40]
    # splitting a long document leaves it in the group that truncating it gives
    first = np.concatenate([[True], np.diff(document) > 0])
    truncated = content_hashes([row for row, is_first in zip(ids, first, strict=True) if is_first], 3)
    assert split_groups(truncated, (0.6, 0.2, 0.2), 5).tolist() == groups[first].tolist()


def test_number_of_folds():
    with pytest.raises(StrataError, match=r"n_folds=0 is not within"):
        split_groups(np.arange(100, dtype=np.uint64), (0.6, 0.2, 0.2), 0)
