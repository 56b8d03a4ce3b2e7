"""Norms by running sums: against NumPy on all tokens at once."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from src.geometry.layers.histogram import COARSE, FINE, RELATIVE_ERROR, bin_of, edges, n_bins, quantile, share_above
from src.geometry.layers.norms import NormSums
from src.text import Keep
from tests.fixtures.text_blocks import text_block


@given(st.lists(st.floats(1e-9, 1e9), min_size=1, max_size=50), st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]))
def test_a_quantile_is_off_by_a_bin_at_most(values, probability):
    counts = torch.bincount(bin_of(torch.tensor(values, dtype=torch.float64), FINE), minlength=n_bins(FINE))
    found = float(quantile(counts, probability, FINE))
    low, high = (np.quantile(values, probability, method=method) for method in ("lower", "higher"))
    # where the rank falls between two values, any number between them is a quantile
    assert low * (1 - 2 * RELATIVE_ERROR) <= found <= high * (1 + 2 * RELATIVE_ERROR)


@pytest.mark.parametrize("bits", [COARSE, FINE])
def test_values_lie_within_the_edges_of_their_bins(bits):
    values = torch.logspace(-11, 11, 997, dtype=torch.float64)
    place, ends = bin_of(values, bits), edges(bits)
    assert bool((ends[place] <= values * (1 + 1e-6)).all())
    assert bool((values <= ends[place + 1] * (1 + 1e-6)).all())
    assert float((ends[1:] / ends[:-1]).max()) <= 1 + 2.0**-bits + 1e-12


def test_share_above_a_value():
    counts = torch.bincount(bin_of(torch.arange(1.0, 101.0), FINE), minlength=n_bins(FINE))
    assert share_above(counts, 90.5, FINE) == pytest.approx(0.10, abs=1e-6)


def measured(blocks, norms, n_positions=4):
    sums = NormSums(len(blocks[0].weights), n_positions, torch.device("cpu"))
    for block, of_block in zip(blocks, norms, strict=True):
        sums.add(of_block, block)
    return sums.statistics()


def test_statistics_are_over_counted_tokens_of_all_blocks_and_others_stand_apart():
    draws = torch.Generator().manual_seed(0)
    lengths = [[5, 1, 7], [3, 9]]
    keeps = [torch.zeros(sum(some), dtype=torch.int64) for some in lengths]
    for keep, some in zip(keeps, lengths, strict=True):
        keep[np.concatenate([[0], np.cumsum(some)[:-1]])] = int(Keep.BOS)
    keeps[1][-1] = int(Keep.NON_FINITE)
    blocks = [text_block(some, keep) for some, keep in zip(lengths, keeps, strict=True)]
    norms = [torch.rand(sum(some), generator=draws, dtype=torch.float64) * 10 + 1 for some in lengths]
    norms[0][0] = 500.0
    norms[1][-1] = torch.nan
    found = measured(blocks, norms)
    counted = torch.cat([values[keep == 0] for values, keep in zip(norms, keeps, strict=True)]).numpy()
    assert found.n == len(counted) == 19
    assert float(found.mean[0]) == pytest.approx(counted.mean(), rel=1e-12)
    assert float(found.std[0]) == pytest.approx(counted.std(), rel=1e-10)
    assert np.sort(counted)[8] * 0.999 <= float(found.median[0]) <= np.sort(counted)[10] * 1.001
    bos = torch.cat([values[keep == int(Keep.BOS)] for values, keep in zip(norms, keeps, strict=True)]).numpy()
    assert found.left_out.keys() == {"bos"}
    assert found.left_out["bos"].mean == pytest.approx(bos.mean())
    assert found.left_out["bos"].std == pytest.approx(bos.std())
    assert found.left_out["bos"].largest == 500
    assert found.left_out["bos"].ratio == pytest.approx(bos.mean() / float(found.median[0]))
    # every token of position 1 that is a number, in four of the five texts
    second = torch.cat([values[block.position == 1] for values, block in zip(norms, blocks, strict=True)])
    assert float(found.by_position[0, 1]) == pytest.approx(float(second.nanmean()))
    assert float(found.by_position[0, 0]) == pytest.approx(bos.mean())
    largest = sorted(counted, reverse=True)[:10]
    assert [each.norm for each in found.largest] == pytest.approx(largest)


def test_replicates_are_what_repeated_documents_would_give():
    norms = torch.tensor([1.0, 2.0, 30.0, 4.0, 50.0], dtype=torch.float64)
    block = text_block([2, 2, 1], weights=torch.tensor([[1.0, 1, 1], [2, 0, 1]], dtype=torch.float64))
    found = measured([block], [norms])
    repeated = np.array([1.0, 2, 1, 2, 50])
    assert float(found.mean[1]) == pytest.approx(repeated.mean())
    assert float(found.std[1]) == pytest.approx(repeated.std())
    assert float(found.median[1]) == pytest.approx(2, rel=0.08)
    assert float(found.by_position[1, 0]) == pytest.approx((1 + 1 + 50) / 3)


def test_sinks_are_counted_beyond_ten_times_the_median():
    norms = torch.ones(200, dtype=torch.float64)
    norms[3], norms[77] = 41.0, 40.0
    found = measured([text_block([200])], [norms])
    assert found.sink_share == pytest.approx(0.01)
    assert [each.position for each in found.largest[:2]] == [3, 77]
