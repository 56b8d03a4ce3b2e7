import numpy as np
import pytest
from scipy.linalg import orthogonal_procrustes
from scipy.stats import ortho_group

from src.errors import StrataError
from src.transport.orthogonal import fit_procrustes
from tests.fixtures.residual_streams import X, Y, Z, moments_of, residual_stream


def plain():
    rng = np.random.default_rng(0)
    return {h: rng.standard_normal((200, 8)) + 3 for h in (X, Y, Z)}


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("data", [plain, lambda: residual_stream(200, 8)], ids=["plain", "outlier"])
def test_procrustes_is_scipy_s(data, scaled):
    data = data()
    fits = fit_procrustes(moments_of(data, np.arange(200) % 2), X, [Y, Z], [0, 1], scaled=scaled)
    x = data[X] - data[X].mean(0)
    for target in (Y, Z):
        rotation, total = orthogonal_procrustes(x, data[target] - data[target].mean(0))
        scale = total / (x**2).sum() if scaled else 1.0
        fit = fits[target]
        np.testing.assert_allclose(fit.weight, scale * rotation, rtol=0, atol=1e-6)
        np.testing.assert_allclose(fit.bias, data[target].mean(0) - data[X].mean(0) @ fit.weight.numpy(), atol=1e-8)
        assert fit.details["scale"] == pytest.approx(scale, rel=1e-9)
        assert (fit.alpha, fit.rank) == (None, 8)


def test_a_planted_rotation_with_scale_and_shift_is_found():
    rng = np.random.default_rng(0)
    rotation = ortho_group.rvs(6, random_state=0)
    x = rng.standard_normal((100, 6)) * [1, 1, 1, 300, 1, 1] + [0, 0, 0, 2000, 0, 0]
    moments = moments_of({X: x, Y: 2.5 * x @ rotation + 7}, np.zeros(100, dtype=np.int64))
    fit = fit_procrustes(moments, X, [Y], [0], scaled=True)[Y]
    np.testing.assert_allclose(fit.weight, 2.5 * rotation, atol=1e-6)
    np.testing.assert_allclose(fit.bias, 7.0, atol=1e-4)


def test_unfit_hook_points_are_refused():
    rng = np.random.default_rng(0)
    group = np.zeros(30, dtype=np.int64)
    moments = moments_of({X: rng.standard_normal((30, 4)), Y: rng.standard_normal((30, 5))}, group)
    with pytest.raises(StrataError, match=r"Procrustes needs equal widths, and resid_post.0 has 4"):
        fit_procrustes(moments, X, [Y], [0], scaled=False)
    constant = moments_of({X: np.ones((30, 4)), Y: rng.standard_normal((30, 4))}, group)
    with pytest.raises(StrataError, match=r"the same in all 30 rows"):
        fit_procrustes(constant, X, [Y], [0], scaled=False)
