"""Two tables of the same tokens against each other."""

import numpy as np
import pytest
import torch

from src.geometry.embedding import rows as rows_module
from src.geometry.embedding.input_output import compare_input_output
from src.geometry.embedding.rows import Rows

CPU = torch.device("cpu")


def rows_of(table):
    return Rows(table, np.arange(len(table)), CPU)


def test_cosines_and_norms_are_those_of_the_rows(monkeypatch):
    monkeypatch.setattr(rows_module, "_BLOCK_BYTES", 8 * 12 * 7)
    draws = torch.Generator().manual_seed(0)
    first = torch.randn(50, 12, generator=draws) + 1
    second = 0.5 * first + torch.randn(50, 12, generator=draws)
    found = compare_input_output(rows_of(first), rows_of(second))
    a, b = first.double(), second.double()
    truth = torch.nn.functional.cosine_similarity(a, b)
    np.testing.assert_allclose(found.cosines, truth.numpy(), atol=1e-12)
    assert found.relative == pytest.approx(float((a - b).norm() / a.norm()))
    crossed = torch.nn.functional.normalize(a, dim=1) @ torch.nn.functional.normalize(b, dim=1).T
    others = crossed[~torch.eye(50, dtype=torch.bool)]
    assert found.unpaired == pytest.approx(float(others.mean()), abs=1e-12)
    assert not found.equal


def test_equal_numbers_in_two_places_are_equal():
    table = torch.randn(20, 4)
    found = compare_input_output(rows_of(table), rows_of(table.clone()))
    assert found.equal
    assert found.difference == 0
    assert found.cosines == pytest.approx(np.ones(20))


def test_tables_of_different_width_are_refused():
    with pytest.raises(ValueError, match="20 x 4 against 20 x 5"):
        compare_input_output(rows_of(torch.randn(20, 4)), rows_of(torch.randn(20, 5)))
