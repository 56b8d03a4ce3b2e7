import numpy as np
import pytest
import torch
from sklearn.metrics import mean_squared_error, r2_score

from src.transport.closed_form import identity_errors, score_identity, squared_errors
from tests.fixtures.residual_streams import X, Y, moments_of, residual_stream


@pytest.fixture(scope="module")
def stream():
    data = {point: rows for point, rows in residual_stream(400, 5).items() if point in (X, Y)}
    return data, moments_of(data, np.arange(400) % 3)


def test_errors_are_those_of_the_rows(stream):
    data, moments = stream
    rng = np.random.default_rng(1)
    weight, bias = rng.standard_normal((5, 5)), rng.standard_normal(5)
    chosen = np.arange(400) % 3 == 2
    errors = data[Y][chosen] - data[X][chosen] @ weight - bias
    found = squared_errors(moments.subset([2]), X, Y, torch.from_numpy(weight), torch.from_numpy(bias))
    np.testing.assert_allclose(found, (errors**2).sum(0), rtol=1e-9)


@pytest.mark.parametrize("shift", [0.0, 3.0])
def test_the_identity_is_scored_without_a_weight(stream, shift):
    data, moments = stream
    shifted_by = torch.full((5,), shift, dtype=torch.float64)
    chosen = np.arange(400) % 3 != 1
    x, y = data[X][chosen] + shift, data[Y][chosen]
    statistics = moments.subset([0, 2])
    errors = identity_errors(statistics, X, Y, shifted_by=shifted_by)
    np.testing.assert_allclose(errors, ((y - x) ** 2).sum(0), rtol=1e-9)
    score = score_identity(statistics, X, Y, shifted_by=shifted_by)
    assert score.r2_uniform == pytest.approx(r2_score(y, x), abs=1e-9)
    weighted = r2_score(y, x, multioutput="variance_weighted")
    assert score.r2_variance_weighted == pytest.approx(weighted, abs=1e-9)
    assert score.mse == pytest.approx(mean_squared_error(y, x), rel=1e-9)
