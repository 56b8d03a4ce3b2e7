"""Rows that training never moved are found; rows that are only short are candidates."""

import numpy as np
import torch

from src.geometry.embedding.rows import Rows
from src.geometry.embedding.untrained import untrained_rows

CPU = torch.device("cpu")


def trained(n=400, d=16):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(0))


def look(table, n_tokens):
    padding = np.arange(len(table)) >= n_tokens
    return untrained_rows(Rows(table, np.arange(n_tokens), CPU), padding)


def test_rows_like_the_padding_rows_are_untrained():
    table = trained()
    start = torch.linspace(-1, 1, 16)
    table[390:] = start + 0.01 * trained(10)
    table[7] = 1.3 * start + 0.01 * trained()[7]
    found = look(table, 390)
    assert np.flatnonzero(found.like_padding).tolist() == [7]
    assert found.untrained[7]
    assert found.padding_cosine > 0.99


def test_without_padding_rows_none_is_like_them():
    found = look(trained(), 400)
    assert not found.untrained.any()
    assert np.isnan(found.padding_cosine)
    assert found.low_norm.sum() == 4  # the lowest 1 %, whatever they are


def test_padding_rows_that_cancel_say_nothing():
    table = trained()
    table[398], table[399] = table[5], -table[5]
    found = look(table, 398)
    assert not found.like_padding.any()
    assert found.copy[5], "it is equal to a padding row"


def test_copies_and_zeros_are_untrained():
    table = trained()
    table[20], table[30], table[31] = table[10], 0, 1e-8
    found = look(table.to(torch.bfloat16), 400)
    assert np.flatnonzero(found.copy).tolist() == [10, 20]
    assert np.flatnonzero(found.zero).tolist() == [30, 31]
    assert np.flatnonzero(found.untrained).tolist() == [10, 20, 30, 31]
