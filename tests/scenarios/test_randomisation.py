import torch
from hypothesis import given
from hypothesis import strategies as st

from src.scenarios.comparing.randomisation import permutation_p, shuffled_labels, shuffled_spells


def test_p_counts_draws_and_the_observed_itself():
    null = torch.tensor([[0.0], [1.0], [2.0], [3.0]])
    alone, together = permutation_p(torch.tensor([2.0]), null)
    assert alone.tolist() == together.tolist() == [3 / 5]  # itself, the 2 and the 3
    assert permutation_p(torch.tensor([9.0]), null)[0].tolist() == [1 / 5]


def test_corrected_p_compares_with_the_largest_cell_of_each_draw():
    generator = torch.Generator().manual_seed(0)
    draws = torch.randn(4000, 5, generator=generator)
    observed = torch.tensor([2.0, 0.0, 0.0, 0.0, 0.0])
    alone, together = permutation_p(observed, draws * torch.tensor([1.0, 1, 10, 1, 1]))
    one = 1 - 0.97725
    assert abs(alone[0] - one) < 0.01
    assert abs(together[0] - (1 - (1 - one) ** 5)) < 0.02  # a cell of a larger scale does not drown the others
    assert (together >= alone).all()


def test_corrected_p_holds_its_level_over_all_cells():
    generator = torch.Generator().manual_seed(1)
    found = [permutation_p(draws[0], draws[1:])[1].min() for draws in torch.randn(400, 100, 6, generator=generator)]
    share = (torch.stack(found) <= 0.05).float().mean()
    assert 0.02 < share < 0.09


def test_cells_without_a_value():
    null = torch.randn(9, 3)
    null[:, 2] = float("nan")
    null[0, 1] = float("nan")
    alone, together = permutation_p(torch.tensor([9.0, 9.0, float("nan")]), null)
    assert alone.isnan().tolist() == together.isnan().tolist() == [False, False, True]
    assert alone[:2].tolist() == [0.1, 0.1]
    constant, _ = permutation_p(torch.ones(1), torch.ones(9, 1))
    assert constant.item() == 1


@given(st.lists(st.integers(-1, 3), min_size=1, max_size=12), st.integers(0, 2**31))
def test_spells_move_whole_and_labels_are_kept(labels, seed):
    found = shuffled_spells(labels, 20, torch.Generator().manual_seed(seed))
    assert found[0].tolist() == labels
    labelled = [place for place, label in enumerate(labels) if label >= 0]
    spells = [place for n, place in enumerate(labelled) if n == 0 or labels[place] != labels[labelled[n - 1]]]
    for drawn in found.tolist():
        assert [place for place, label in enumerate(drawn) if label >= 0] == labelled
        # the labels of the spells are the same, in another order
        assert sorted(drawn[place] for place in spells) == sorted(labels[place] for place in spells)
        for place, before in zip(labelled[1:], labelled, strict=False):
            if labels[place] == labels[before]:
                assert drawn[place] == drawn[before]


def test_labels_are_shuffled_within_blocks():
    truth, blocks = torch.tensor([0, 1, 2, 0, 1, 2]), torch.tensor([0, 1, 0, 1, 0, 1])
    found = shuffled_labels(truth, 200, torch.Generator().manual_seed(0), blocks)
    assert found[0].tolist() == truth.tolist()
    for block in (0, 1):
        assert (found[:, blocks == block].sort(1).values == truth[blocks == block].sort().values).all()
    assert len(found.unique(dim=0)) == 36
