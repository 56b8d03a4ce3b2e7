"""Updates of the stream, and what attention and MLP have in it."""

import math

import pytest
import torch

from src.geometry.layers.updates import IncrementSums, UpdateSums
from tests.fixtures.text_blocks import text_block

CPU = torch.device("cpu")


def test_an_orthogonal_update_has_the_cosine_of_the_null():
    before = torch.tensor([[2.0, 0, 0], [0, 5.0, 0]])
    after = before + torch.tensor([[0, 1.0, 0], [0, 0, 2.5]])
    sums = UpdateSums(1, CPU)
    sums.add_pair(before, after, text_block([2]))
    found = sums.statistics()
    assert float(found.size[0]) == pytest.approx(0.5)
    assert float(found.direction[0]) == pytest.approx(0)
    assert float(found.cosine[0]) == pytest.approx(1 / math.sqrt(1.25))
    assert float(found.unrelated_cosine[0]) == pytest.approx(float(found.cosine[0]))
    assert float(found.growth[0]) == pytest.approx(math.sqrt(1.25))


def test_a_block_that_takes_away_has_a_negative_direction():
    before = torch.tensor([[2.0, 0], [0, 4.0]])
    sums = UpdateSums(1, CPU)
    sums.add_pair(before, before / 2, text_block([2]))
    found = sums.statistics()
    assert float(found.direction[0]) == pytest.approx(-1)
    assert float(found.cosine[0]) == pytest.approx(1)
    assert float(found.growth[0]) == pytest.approx(0.5)


def test_a_token_without_length_is_left_out_and_one_that_does_not_change_is_not():
    before = torch.tensor([[0.0, 0], [1.0, 1.0]])
    sums = UpdateSums(1, CPU)
    sums.add_pair(before, torch.tensor([[1.0, 0], [1.0, 1.0]]), text_block([2]))
    found = sums.statistics()
    assert float(found.cosine[0]) == pytest.approx(1)
    assert float(found.size[0]) == 0


def test_shares_of_attention_and_mlp_with_weights_of_documents():
    attention, mlp = torch.tensor([[3.0, 0], [0, 1.0]]), torch.tensor([[0, 1.0], [0, 3.0]])
    weights = torch.tensor([[1.0, 1], [0, 2]], dtype=torch.float64)
    sums = IncrementSums(2, CPU)
    sums.add_pair(attention, mlp, text_block([1, 1], weights=weights))
    found = sums.statistics()
    assert found.attention_share.tolist() == pytest.approx([0.5, 0.25])
    assert found.attention_norm.tolist() == pytest.approx([2, 1])
    assert found.mlp_norm.tolist() == pytest.approx([2, 3])
    assert found.cosine.tolist() == pytest.approx([0.5, 1])
