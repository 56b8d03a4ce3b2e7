import numpy as np
import pytest

from src.activations.sampling import sample_tokens
from src.errors import StrataError
from src.hook_points import HookPoint
from src.text import Keep
from tests.fixtures.stores import make_store

LENGTHS = [5, 3, 1, 6, 2, 8, 4]
SEQUENCE = np.repeat(range(len(LENGTHS)), LENGTHS)
POSITION = np.concatenate([np.arange(length) for length in LENGTHS])
GROUPS = np.array([1, 0, 1, 1, 0, 1, 1], np.int8)
DOCUMENTS = np.array([3, 0, 2, 1, 4, 3, 0])  # 3 lies in two parts
KEEP = np.where(POSITION == 0, Keep.BOS, Keep.COUNTED).astype(np.uint8)
COUNTED = np.isin(SEQUENCE, np.flatnonzero(GROUPS == 1)) & (KEEP == 0)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    rows = {HookPoint("resid_post", 0): np.zeros((len(SEQUENCE), 2), np.float32)}
    return make_store(tmp_path_factory.mktemp("artifacts"), rows, LENGTHS, KEEP, sequences_per_part=3)


def draw(store, n, seed=0, groups=GROUPS):
    return sample_tokens(store, groups, [1], DOCUMENTS, n, seed)


def test_only_counted_tokens_of_the_wanted_groups_each_with_its_own_sequence(store):
    sample = draw(store, 1000)
    assert len(sample) == COUNTED.sum() == 19
    ids = np.concatenate([part.token_ids for part in store])
    start = np.concatenate([[0], np.cumsum(LENGTHS)])
    expected = sorted(
        (int(DOCUMENTS[s]), tuple(ids[start[s] : start[s + 1]].tolist()), int(p))
        for s, p in zip(SEQUENCE[COUNTED], POSITION[COUNTED], strict=True)
    )
    sequences = [tuple(sequence.tolist()) for sequence in sample.sequences]
    found = list(zip(sample.document.tolist(), sequences, sample.position.tolist(), strict=True))
    assert sorted(found) == expected
    assert (np.diff(sample.document) >= 0).all()


def test_one_token_of_each_stratum_and_none_is_out_of_reach(store):
    def tokens(sample):
        lengths = [len(sequence) for sequence in sample.sequences]
        return list(zip(sample.document.tolist(), lengths, sample.position.tolist(), strict=True))

    everything = tokens(draw(store, 19))
    places = np.array([[everything.index(token) for token in tokens(draw(store, 6, seed))] for seed in range(30)])
    edges = [0, 3, 6, 9, 12, 15, 19]
    for stratum in range(6):
        assert set(places[:, stratum]) == set(range(edges[stratum], edges[stratum + 1]))


def test_the_seed_decides(store):
    first, again, other = draw(store, 6, 1), draw(store, 6, 1), draw(store, 6, 2)
    assert np.array_equal(first.position, again.position)
    assert not np.array_equal(first.position, other.position)


def test_no_token_is_an_error(store):
    with pytest.raises(StrataError, match="no counted token"):
        draw(store, 5, groups=np.zeros(7, np.int8))
