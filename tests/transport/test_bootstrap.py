import numpy as np
import pytest
import torch

from src.errors import StrataError
from src.transport.bootstrap import Band, DocumentBootstrap, Estimate


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


def replicates_with_gaps(seed=0):
    draws = np.random.default_rng(seed).standard_normal((301, 4, 3)) + 5
    draws[7:40, 0, 0] = np.nan
    draws[50, 1, 1] = np.inf
    draws[1:, 2, 2] = np.nan
    return torch.from_numpy(draws)


def test_a_band_is_the_estimate_of_every_entry():
    replicates = replicates_with_gaps()
    band = Band.of(replicates)
    for row, column in np.ndindex(4, 3):
        expected = Estimate.of(replicates[:, row, column])
        found = [float(each[row, column]) for each in (band.value, band.low, band.high)]
        np.testing.assert_allclose(found, [expected.value, expected.low, expected.high], rtol=0, atol=1e-12)
    assert band.low[2, 2].isnan()
    assert Band.of(replicates[:1]).high.isnan().all()


def test_a_centred_band_has_the_width_of_the_replicates_and_holds_the_estimate():
    replicates = torch.from_numpy(np.random.default_rng(0).standard_normal((401, 5)))
    replicates[1:] += 10  # all of them on one side
    plain, centred = Band.of(replicates), Band.of(replicates, centred=True)
    torch.testing.assert_close(centred.high - centred.low, plain.high - plain.low)
    assert (plain.low > plain.value).all()
    medians = replicates[1:].quantile(0.5, dim=0)
    torch.testing.assert_close(centred.low, plain.low - medians + replicates[0])
    assert ((centred.low < centred.value) & (centred.value < centred.high)).all()
    assert centred.at(2) == Estimate(*(float(each[2]) for each in (centred.value, centred.low, centred.high)))
