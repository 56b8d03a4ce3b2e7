import numpy as np
import pytest

from src.errors import StrataError
from src.transport.baselines import fit_baseline
from tests.fixtures.residual_streams import X, Y, moments_of, residual_stream


def test_baselines_predict_what_they_are_named_for():
    data = residual_stream(90, 5)
    group = np.arange(90) % 3
    train = group != 2
    moments = moments_of(data, group)
    expected = {
        "identity": data[X],
        "identity_shift": data[X] + (data[Y][train] - data[X][train]).mean(0),
        "mean": np.broadcast_to(data[Y][train].mean(0), data[X].shape),
    }
    for name, prediction in expected.items():
        fit = fit_baseline(moments, X, [Y], [0, 1], name)[Y]
        np.testing.assert_allclose(data[X] @ fit.weight.numpy() + fit.bias.numpy(), prediction, rtol=1e-12, atol=1e-9)
        assert fit.alpha is None


def test_the_identity_needs_equal_widths_and_the_mean_does_not():
    rng = np.random.default_rng(0)
    moments = moments_of({X: rng.standard_normal((30, 4)), Y: rng.standard_normal((30, 5))}, np.zeros(30, np.int64))
    with pytest.raises(StrataError, match=r"identity_shift needs equal widths"):
        fit_baseline(moments, X, [Y], [0], "identity_shift")
    assert fit_baseline(moments, X, [Y], [0], "mean")[Y].weight.shape == (4, 5)
