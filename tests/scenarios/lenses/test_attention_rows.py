"""Attention: entropies in closed form, sinks, windows, and which message is read."""

import math

import pytest
import torch

from src.scenarios.attended_places import attention_to_places
from src.scenarios.lenses.attention_rows import normalised_entropy, sink_share, visible_keys


def rows(*weights):
    """[1 layer, row, 1 head, key]."""
    return torch.tensor(weights)[None, :, None, :]


def test_entropy_is_1_for_all_alike_0_for_one_key_and_none_where_there_is_one():
    attention = rows([0.25, 0.25, 0.25, 0.25], [0.0, 1.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0], [0.5, 0.5, 0.0, 0.0])
    found = normalised_entropy(attention, torch.tensor([[4, 4, 1, 4]]))[0, :, 0]
    assert found[[0, 1, 3]].tolist() == pytest.approx([1, 0, 0.5])
    assert math.isnan(found[2])


def test_equal_attention_to_what_can_be_seen_has_entropy_1_at_any_length():
    for n in (2, 3, 17):
        attention = torch.zeros(1, 1, 2, 20)
        attention[..., :n] = 1 / n
        assert normalised_entropy(attention, torch.tensor([[n]])).flatten().tolist() == pytest.approx([1, 1])


def test_weights_that_do_not_sum_to_1_are_brought_there_for_the_entropy():
    attention = rows([0.3, 0.1, 0.0])
    p = torch.tensor([0.75, 0.25])
    expected = float(-(p * p.log()).sum()) / math.log(3)
    assert float(normalised_entropy(attention, torch.tensor([[3]]))) == pytest.approx(expected, rel=1e-5)


def test_a_window_hides_the_first_keys_and_a_zero_in_one_head_does_not():
    attention = torch.zeros(2, 1, 2, 6)
    attention[0, 0, :, 3:5] = 0.5  # keys 0..2 are hidden, and the row's token is key 4
    attention[1, 0, 0, 0], attention[1, 0, 1, 4] = 1, 1
    assert visible_keys(attention, torch.tensor([5])).tolist() == [[2], [5]]


def test_the_sink_is_the_first_token():
    attention = torch.tensor([[[[0.9, 0.1], [0.2, 0.8]]]])
    assert sink_share(attention)[0, 0].tolist() == pytest.approx([0.9, 0.2])


def test_attention_to_places_sums_over_their_keys_and_leaves_out_what_has_none():
    attention = torch.softmax(torch.randn(2, 2, 3, 5), -1)
    place_of_key = torch.tensor([[0, 1, 1, 2, 2], [0, 1, 2, -1, -1]])
    found = attention_to_places(attention, place_of_key, 3)
    assert found.shape == (2, 2, 3, 3)
    torch.testing.assert_close(found[:, 0, :, 1], attention[:, 0, :, 1] + attention[:, 0, :, 2])
    torch.testing.assert_close(found[:, 0].sum(-1), torch.ones(2, 3))
    torch.testing.assert_close(found[:, 1].sum(-1), attention[:, 1, :, :3].sum(-1))
