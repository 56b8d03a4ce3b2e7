"""Which rows are paired, and which are left out, before anything is fitted."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from src.geometry.alignment.pairing import candidates, pair_by_id, pair_by_text
from src.geometry.alignment.rows import Group, split_tokens
from src.geometry.embedding.clumps import clumped_rows
from src.geometry.embedding.rows import Rows


def all_of(texts: tuple[str, ...]):
    return candidates(len(texts), {})


def pairs_of(ours: tuple[str, ...], theirs: tuple[str, ...]) -> dict[str, str]:
    found = pair_by_text(all_of(ours), ours, all_of(theirs), theirs)
    return {ours[s]: theirs[t] for s, t in zip(found.source.tolist(), found.target.tolist(), strict=True)}


def test_texts_go_together_exactly_and_then_in_lower_case():
    ours, theirs = (" Cat", " cat", "cat", " Dog", "x"), (" dog", "cat", " cat", " Cat", "y")
    assert pairs_of(ours, theirs) == {" Cat": " Cat", " cat": " cat", "cat": "cat", " Dog": " dog"}
    found = pair_by_text(all_of(ours), ours, all_of(theirs), theirs)
    assert found.exact.tolist() == [True, True, True, False]
    assert found.no_partner == (1, 1)


def test_a_text_that_two_rows_have_names_none_of_them():
    # byte-fallback tokens that decode alike
    assert pairs_of(("a", "a", "b"), ("a", "b")) == {"b": "b"}
    # in lower case there are two candidates: neither is taken
    assert pairs_of(("The", "tHe"), ("the",)) == {}


@given(st.lists(st.sampled_from("aAbBcC d"), max_size=8), st.lists(st.sampled_from("aAbBcC d"), max_size=8))
def test_pairing_is_one_to_one_and_of_the_same_text(ours, theirs):
    found = pair_by_text(all_of(tuple(ours)), tuple(ours), all_of(tuple(theirs)), tuple(theirs))
    assert len(set(found.source.tolist())) == len(set(found.target.tolist())) == len(found)
    for s, t, exact in zip(found.source.tolist(), found.target.tolist(), found.exact.tolist(), strict=True):
        assert ours[s] == theirs[t] if exact else ours[s].strip().lower() == theirs[t].strip().lower()
    assert len(found) + found.no_partner[0] == len(ours)


def test_no_pair_is_of_a_row_that_is_left_out():
    # BUG F-2: padding and unused rows took part in the notebook's scores
    padding = np.array([False, False, False, True, True])
    special = np.array([True, False, False, True, False])
    ours = candidates(5, {"padding": padding, "special": special})
    assert ours.left_out == {"padding": 2, "special": 1}
    found = pair_by_id(ours, candidates(4, {}))
    assert found.source.tolist() == found.target.tolist() == [1, 2]
    assert found.no_partner == (0, 2)


def test_tokens_of_ordered_sets_are_in_no_split():
    ordered = np.zeros(100, bool)
    ordered[10:20] = True
    group = split_tokens(100, (0.7, 0.1, 0.2), 3, ordered)
    assert (group[ordered] == Group.ORDERED).all()
    assert np.bincount(group).tolist() == [63, 9, 18, 10]
    assert (group == split_tokens(100, (0.7, 0.1, 0.2), 3, ordered)).all()
    assert (group != split_tokens(100, (0.7, 0.1, 0.2), 4, ordered)).any()


def clumped(n: int, size: int, d: int = 32) -> torch.Tensor:
    draws = torch.Generator().manual_seed(0)
    table = torch.randn(n, d, generator=draws) + 1
    table[:size] = 4 * torch.randn(1, d, generator=draws) + 0.2 * torch.randn(size, d, generator=draws)
    return table


def test_untrained_rows_lie_in_one_direction():
    marked = clumped_rows(Rows(clumped(400, 20), np.arange(400), torch.device("cpu")))
    assert np.flatnonzero(marked).tolist() == list(range(20))
    # a few near copies are synonyms, perhaps
    assert not clumped_rows(Rows(clumped(400, 3), np.arange(400), torch.device("cpu"))).any()
    assert clumped_rows(Rows(clumped(3, 3), np.arange(3), torch.device("cpu"))).sum() == 0


def test_in_a_large_table_clumps_are_found_from_a_sample(monkeypatch):
    monkeypatch.setattr("src.geometry.embedding.clumps._PROBES", 300)
    marked = clumped_rows(Rows(clumped(3000, 200), np.arange(3000), torch.device("cpu")))
    assert np.flatnonzero(marked).tolist() == list(range(200))
