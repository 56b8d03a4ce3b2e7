"""Maps against planted truth, least squares, scikit-learn, and what the notebook got wrong."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.cross_decomposition import CCA
from sklearn.linear_model import Ridge

from src.errors import StrataError
from src.geometry.alignment.maps import (
    baselines,
    cca_map,
    component_map,
    fit,
    identity_map,
    orthogonal_map,
    ridge_map,
)
from src.geometry.alignment.rows import PairedRows
from src.geometry.alignment.scatter import Scatter
from src.geometry.alignment.scores import centred_target, held_out, score_tokens


def rotation(d: int, seed: int = 0) -> torch.Tensor:
    draws = torch.Generator().manual_seed(seed)
    return torch.linalg.qr(torch.randn(d, d, generator=draws, dtype=torch.float64))[0]


def cloud(n: int, d: int, seed: int) -> torch.Tensor:
    draws = torch.Generator().manual_seed(seed)
    return torch.randn(n, d, generator=draws, dtype=torch.float64) * torch.linspace(3, 0.5, d) + 2


def test_a_planted_rotation_is_recovered():
    x, turn = cloud(300, 20, 1), rotation(20)
    y = x @ turn + 5
    found = orthogonal_map(Scatter.of(x, y))
    assert torch.allclose(found.weight, turn, atol=1e-8)
    assert torch.allclose(found.centred(x) + found.target_centre, y, atol=1e-8)


def test_reflections_are_allowed():
    x = cloud(100, 5, 1)
    mirror = torch.diag(torch.tensor([1.0, 1, 1, 1, -1], dtype=torch.float64))
    assert torch.allclose(orthogonal_map(Scatter.of(x, x @ mirror)).weight, mirror, atol=1e-10)


def test_independent_data_fit_their_anchors_and_nothing_else():
    # spec K: n = 3,000, d = 64
    draws = torch.Generator().manual_seed(0)
    x, y = (torch.randn(4000, 64, generator=draws) for _ in range(2))
    found = orthogonal_map(Scatter.of(x[:3000], y[:3000]))
    on_anchors, on_others = (
        score_tokens(found.centred(x[part]), centred_target(y[part], found), found.target_centre).cosine.mean()
        for part in (slice(0, 3000), slice(3000, None))
    )
    assert on_anchors == pytest.approx(0.124, abs=0.01)
    assert abs(on_others) < 0.02


def test_the_scale_is_the_optimal_one_and_is_applied():
    # BUG F-1: the notebook prints a sum of singular values, and applies nothing
    x, turn = cloud(400, 8, 2), rotation(8)
    y = 0.3 * x @ turn
    scatter = Scatter.of(x, y)
    found = orthogonal_map(scatter, scaled=True)
    assert found.settings["scale"] == pytest.approx(0.3, abs=1e-10)
    assert torch.allclose(found.weight, 0.3 * turn, atol=1e-10)
    noisy = Scatter.of(x, y + 0.5 * torch.randn(y.shape, generator=torch.Generator().manual_seed(3)))
    best = orthogonal_map(noisy, scaled=True)
    # no other scale of the same rotation explains more
    assert all(noisy.explained(best.weight) > noisy.explained(best.weight * factor) for factor in (0.98, 1.02))


@given(st.integers(0, 1000), st.sampled_from([(6, 4), (5, 5), (4, 6)]))
def test_no_rotation_of_the_kept_source_fits_better(seed, widths):
    x, y = cloud(40, widths[0], seed), cloud(40, widths[1], seed + 1)
    scatter = Scatter.of(x, y)
    found = orthogonal_map(scatter)
    other = found.weight @ rotation(widths[1], seed)
    assert scatter.explained(found.weight) >= scatter.explained(other) - 1e-12
    narrow = found.weight.T @ found.weight if widths[0] >= widths[1] else found.weight @ found.weight.T
    assert torch.allclose(narrow, torch.eye(min(widths), dtype=torch.float64), atol=1e-10)


def test_a_wider_source_is_cut_to_its_principal_components():
    x = cloud(500, 12, 0)
    found = orthogonal_map(Scatter.of(x, cloud(500, 5, 1)))
    values = np.linalg.eigvalsh(np.cov(x.numpy().T))[::-1]
    assert found.settings["retained"] == pytest.approx(values[:5].sum() / values.sum())
    kept = np.linalg.svd(x.numpy() - x.numpy().mean(0), full_matrices=False)[2][:5]
    # what lies outside of them goes nowhere
    assert np.abs((np.eye(12) - kept.T @ kept) @ found.weight.numpy()).max() < 1e-10


def test_a_wider_target_gets_what_padding_with_zeros_gives():
    x, y = cloud(200, 4, 0), cloud(200, 7, 1)
    found = orthogonal_map(Scatter.of(x, y))
    padded = orthogonal_map(Scatter.of(torch.cat([x, torch.zeros(200, 3, dtype=torch.float64)], 1), y))
    assert torch.allclose(found.centred(x), (x - x.mean(0)) @ padded.weight[:4], atol=1e-8)


def test_too_few_anchors_for_a_rotation_are_refused_and_ridge_goes_on():
    scatter, val = (Scatter.of(cloud(n, 16, n), cloud(n, 16, n + 1)) for n in (12, 11))
    for method in ("orthogonal", "scaled"):
        with pytest.raises(StrataError, match=r"^12 anchors do not determine .* 16 dimensions .*method=ridge"):
            fit(method, scatter, val, [0.1])
    assert fit("ridge", scatter, val, [0.1]).weight.isfinite().all()
    assert fit("cca", scatter, val, [0.1]).weight.isfinite().all()


def test_ridge_is_scikit_learns_with_the_alpha_that_validates_best():
    x, noise = cloud(150, 10, 0), cloud(150, 4, 1)
    y = x @ torch.randn(10, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64) + 3 * noise
    train = Scatter.of(x[:100], y[:100])
    val = Scatter.of(x[100:], y[100:], centres=(train.source_centre, train.target_centre))
    alphas = [1e-3, 1e-1, 1.0, 10.0]
    found = ridge_map(train, val, alphas)
    unit = float(train.xx.trace()) / 10
    scores = {}
    for alpha in alphas:
        reference = Ridge(alpha=alpha * unit).fit(x[:100].numpy(), y[:100].numpy())
        error = ((reference.predict(x[100:].numpy()) - y[100:].numpy()) ** 2).sum()
        scores[alpha] = (error, reference.coef_.T)
    best = min(scores, key=lambda alpha: scores[alpha][0])
    assert found.settings["alpha"] == best
    np.testing.assert_allclose(found.weight.numpy(), scores[best][1], rtol=1e-8, atol=1e-10)


def test_cca_with_all_components_is_least_squares_and_finds_scikit_learns_correlation():
    x, noise = cloud(300, 6, 0), cloud(300, 4, 1)
    y = x[:, :4] @ rotation(4) + noise
    scatter = Scatter.of(x, y)
    found = cca_map(scatter, scatter, [1e-12])
    expected = np.linalg.lstsq(x.numpy() - x.numpy().mean(0), y.numpy() - y.numpy().mean(0), rcond=None)[0]
    assert found.settings["components"] == 4
    np.testing.assert_allclose(found.weight.numpy(), expected, atol=1e-8)
    scores = CCA(1, max_iter=5000, tol=1e-12).fit(x.numpy(), y.numpy()).transform(x.numpy(), y.numpy())
    correlation = np.corrcoef(scores[0][:, 0], scores[1][:, 0])[0, 1]
    assert found.settings["first_correlation"] == pytest.approx(correlation, abs=1e-6)


def test_cca_takes_as_many_components_as_validate_best():
    # one shared direction, and much that is not shared
    draws = torch.Generator().manual_seed(4)
    shared = torch.randn(80, 1, generator=draws, dtype=torch.float64)
    x, y = (torch.cat([shared, torch.randn(80, 9, generator=draws, dtype=torch.float64)], 1) for _ in range(2))
    train = Scatter.of(x[:50], y[:50])
    val = Scatter.of(x[50:], y[50:], centres=(train.source_centre, train.target_centre))
    found = cca_map(train, val, [1e-6])
    assert found.settings["components"] <= 2
    assert val.explained(found.weight) > 0.05


def test_baselines_know_what_they_may():
    x = cloud(300, 6, 0)
    scatter = Scatter.of(x, x + 1)
    assert [found.name for found in baselines(scatter)] == ["identity", "components", "mean"]
    assert torch.allclose(identity_map(scatter).centred(x), x - x.mean(0))
    # principal components of equal clouds are the same, whatever their signs
    mirrored = component_map(Scatter.of(x, -x))
    assert torch.allclose(mirrored.centred(x), -(x - x.mean(0)), atol=1e-8)
    assert [found.name for found in baselines(Scatter.of(x, x[:, :3]))] == ["components", "mean"]


def test_moments_about_other_centres_and_without_a_pair_are_those_of_the_rows():
    x, y = cloud(50, 4, 0), cloud(50, 3, 1)
    whole = Scatter.of(x, y)
    moved = whole.about(torch.ones(4, dtype=torch.float64), torch.zeros(3, dtype=torch.float64))
    direct = Scatter.of(x, y, centres=(torch.ones(4, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)))
    rest, fresh = whole.without(x[7], y[7]), Scatter.of(*(torch.cat([side[:7], side[8:]]) for side in (x, y)))
    for got, expected in ((moved, direct), (rest, fresh)):
        for name in ("source_centre", "target_centre", "xx", "xy", "yy", "source_sum", "target_sum"):
            assert torch.allclose(getattr(got, name), getattr(expected, name), atol=1e-9), name


def test_half_precision_tables_are_summed_in_float64():
    x = (cloud(400, 6, 0) + 100).bfloat16()
    scatter = Scatter.of(x, x)
    exact = x.double() - x.double().mean(0)
    assert torch.allclose(scatter.xx, exact.T @ exact, rtol=1e-10)
    rows = PairedRows(x, x, np.zeros(400, np.int8), np.arange(400), [""] * 400)
    predicted, true = held_out(rows, orthogonal_map(scatter))
    assert torch.allclose(predicted, true, atol=1e-8)
