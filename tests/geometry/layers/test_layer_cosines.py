"""Mean cosines within and across texts: against all pairs, one by one."""

import math

import pytest
import torch

from src.geometry.layers.cosines import CosineSums
from src.text import Keep
from tests.fixtures.text_blocks import text_block


def measured(block, rows):
    sums = CosineSums(len(block.weights), rows.shape[1], torch.device("cpu"))
    counted = rows[block.counted]
    sums.add(counted, counted.double().norm(dim=-1), block)
    return sums.statistics()


def by_pairs(rows, text, same):
    """The mean cosine of all pairs of one text, or of different texts."""
    unit = torch.nn.functional.normalize(rows.double(), dim=-1)
    cosines = [float(unit[i] @ unit[j]) for i in range(len(unit)) for j in range(i) if (text[i] == text[j]) == same]
    return sum(cosines) / len(cosines)


def test_means_are_those_of_all_pairs():
    rows = torch.randn(23, 6, generator=torch.Generator().manual_seed(1)) + 1
    block = text_block([7, 1, 10, 5])
    found = measured(block, rows)
    assert float(found.within[0]) == pytest.approx(by_pairs(rows, block.text, True), abs=1e-12)
    assert float(found.across[0]) == pytest.approx(by_pairs(rows, block.text, False), abs=1e-12)
    assert found.n_within_pairs == 21 + 45 + 10
    assert found.n_across_pairs == 23 * 22 // 2 - 76


def test_texts_of_one_token_have_no_cosine_within():
    # spec C, edge case: the notebook calls it 0
    found = measured(text_block([1, 1, 1]), torch.randn(3, 4, generator=torch.Generator().manual_seed(0)))
    assert math.isnan(float(found.within[0]))
    assert found.n_within_pairs == 0
    assert math.isfinite(float(found.across[0]))


def test_one_text_has_no_cosine_across():
    found = measured(text_block([4]), torch.randn(4, 4, generator=torch.Generator().manual_seed(0)))
    assert math.isnan(float(found.across[0]))


def test_tokens_that_are_left_out_or_have_no_length_are_in_no_pair():
    rows = torch.randn(6, 3, generator=torch.Generator().manual_seed(2))
    rows[4] = 0
    keep = torch.tensor([int(Keep.BOS), 0, 0, 0, 0, 0])
    block = text_block([6], keep)
    found = measured(block, rows)
    chosen = [1, 2, 3, 5]
    assert float(found.within[0]) == pytest.approx(by_pairs(rows[chosen], block.text[chosen], True), abs=1e-12)
    assert found.n_zero == 1


def test_a_replicate_pairs_no_text_with_its_own_copy():
    rows = torch.randn(9, 4, generator=torch.Generator().manual_seed(3))
    weights = torch.tensor([[1.0, 1, 1], [2, 0, 3]], dtype=torch.float64)
    block = text_block([4, 2, 3], weights=weights)
    found = measured(block, rows)
    unit = torch.nn.functional.normalize(rows.double(), dim=-1)
    a, c = unit[:4], unit[6:]
    # of texts drawn twice and three times, only the pairs of the one with the other are across texts
    assert float(found.across[1]) == pytest.approx(float((a @ c.T).mean()), abs=1e-12)
    within = 2 * (a @ a.T).tril(-1).sum() + 3 * (c @ c.T).tril(-1).sum()
    assert float(found.within[1]) == pytest.approx(float(within) / (2 * 6 + 3 * 3), abs=1e-12)
