"""The split of a store: what the user is told of it."""

from types import SimpleNamespace

import numpy as np
import pytest

from src.config.stages import SplitConfig
from src.stage.stores import Split, warn_if_lopsided

WANTED = SplitConfig(train=0.6, val=0.2, test=0.2)


@pytest.mark.parametrize(("sizes", "is_told"), [((3, 3, 2, 2), False), ((1, 1, 7, 1), True)])
def test_shares_that_are_far_from_what_was_asked_are_told(sizes, is_told):
    groups = np.repeat(np.arange(4, dtype=np.int8), sizes)  # two folds, val, test
    split = Split(groups, np.arange(10), 2, WANTED, seed=0)
    told: list[str] = []
    warn_if_lopsided(SimpleNamespace(warn=told.append), split)  # type: ignore[arg-type]
    assert bool(told) == is_told
    if told:
        assert "20%, 70%, 10% of the sequences" in told[0]


def test_groups_of_test_are_one_share():
    groups = np.array([0, 1, 0, 1, 2, 3, 4, 4], np.int8)
    documents = np.array([0, 1, 2, 3, 4, 5, 6, 6])
    split = Split(groups, documents, 2, SplitConfig(train=0.5, val=0.1, test=0.4), seed=0, n_test_groups=2)
    assert (split.train, split.val, split.test_groups, split.n_groups) == ([0, 1], 2, [3, 4], 5)
    assert split.shares() == (0.5, 0.125, 0.375)
    assert split.documents_per_group().tolist() == [2, 2, 1, 1, 1]
    assert split.n_test_documents == 2
    assert split.identity() != Split(groups, documents, 2, split.wanted, seed=0).identity()


def test_documents_of_the_test_share_are_counted_once():
    split = Split(np.array([0, 1, 2, 3, 3, 3], np.int8), np.array([0, 1, 2, 3, 3, 4]), 2, WANTED, seed=0)
    assert split.n_test_documents == 2
