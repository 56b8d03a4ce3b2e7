"""The notebook's own numbers, mistakes included."""

import pytest
import torch

from src.geometry.layers.notebook import evolution, stacks


def test_texts_weigh_alike_and_one_token_has_cosine_0():
    long = torch.tensor([[1.0, 0], [0, 3.0], [2.0, 0]])
    found = evolution([[long], [torch.tensor([[5.0, 0]])]])[0]
    assert found.mean_norm == pytest.approx((2 + 5) / 2)
    assert found.std_norm == pytest.approx(torch.tensor([1.0, 3, 2]).std(correction=0).item() / 2)
    assert found.mean_cosine == pytest.approx((1 / 3 + 0) / 2)
    assert found.std_cosine == pytest.approx((2 / 9) ** 0.5 / 2)


def test_stacks_are_compared_at_equal_positions_whatever_stands_there():
    encoder = torch.eye(7)[None].repeat(3, 1, 1)
    found = stacks(list(encoder), [states.roll(1, 0) for states in encoder])
    assert found.cosines.keys() == {0, 1, 2}
    # the same tokens, one place further: the notebook calls them unrelated
    assert found.cosines[0] == [0.0] * 5
    assert found.encoder_norm == (1.0, 0.0)
