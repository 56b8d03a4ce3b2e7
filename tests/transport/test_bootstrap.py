import numpy as np
import pytest
import torch

from src.errors import StrataError
from src.transport.bootstrap import DocumentBootstrap


def test_weights_are_poisson_and_belong_to_the_sequence():
    bootstrap = DocumentBootstrap(400, seed=3)
    weights = bootstrap.weights(torch.arange(500))
    assert weights.shape == (401, 500)
    assert weights[0].eq(1).all()
    assert weights[1:].mean().item() == pytest.approx(1, abs=0.01)
    assert weights[1:].var().item() == pytest.approx(1, abs=0.02)
    assert abs(np.corrcoef(weights[1:, 0], weights[1:, 1])[0, 1]) < 0.2
    alone = DocumentBootstrap(400, seed=3).weights(torch.tensor([77, 5]))
    assert torch.equal(alone, weights[:, [77, 5]])
    assert not torch.equal(DocumentBootstrap(400, seed=4).weights(torch.tensor([77, 5])), alone)


def test_no_sequences_and_no_replicates_have_weights_too():
    assert DocumentBootstrap(3, 0).weights(torch.arange(0)).shape == (4, 0)
    assert DocumentBootstrap(0, 0).weights(torch.arange(5)).tolist() == [[1.0] * 5]


def test_negative_numbers_are_refused():
    for numbers in ((-1, 0), (1, -1)):
        with pytest.raises(StrataError, match="must not be negative"):
            DocumentBootstrap(*numbers)
