"""Tables of positions against brute force over all pairs, and planted ones."""

import numpy as np
import pytest
import torch

from src.geometry.embedding.positions import describe_positions
from src.geometry.embedding.relative_bias import relative_bias

CPU = torch.device("cpu")


def test_sums_over_diagonals_are_those_of_all_pairs():
    table = torch.randn(37, 6, generator=torch.Generator().manual_seed(0)) + 0.4
    found = describe_positions(table, CPU, np.random.default_rng(0), n_draws=9)
    unit = torch.nn.functional.normalize(table.double(), dim=1)
    cosines = (unit @ unit.T).numpy()
    np.testing.assert_allclose(found.cosine_by_offset, [np.diag(cosines, k).mean() for k in range(37)], atol=1e-10)
    above = np.triu_indices(37, 1)
    assert found.pearson == pytest.approx(np.corrcoef(above[1] - above[0], cosines[above])[0, 1], abs=1e-10)
    eigenvalues = np.linalg.eigvalsh(np.cov(table.double().numpy().T, bias=True))
    assert found.participation == pytest.approx(eigenvalues.sum() ** 2 / np.square(eigenvalues).sum())
    assert found.norms.mean == pytest.approx(float(table.double().norm(dim=1).mean()))


def test_positions_along_a_curve_are_in_order_and_random_ones_are_not():
    steps = torch.linspace(0, 2, 64)
    curve = torch.stack([steps.cos(), steps.sin()], 1)
    found = describe_positions(curve, CPU, np.random.default_rng(0), n_draws=99)
    assert found.pearson < -0.95
    assert found.p == 0.01
    noise = torch.randn(64, 16, generator=torch.Generator().manual_seed(1))
    p = [describe_positions(noise[:, k:], CPU, np.random.default_rng(k), n_draws=19).p for k in range(4)]
    assert max(p) > 0.05


def test_equal_positions_have_no_order():
    found = describe_positions(torch.ones(20, 4), CPU, np.random.default_rng(0), n_draws=3)
    assert np.isnan(found.pearson)
    assert np.isnan(found.p)


def test_biases_head_by_head():
    table = torch.tensor([[0.0, 1.0], [2.0, 1.0], [4.0, 1.0]])
    found = relative_bias("encoder", table)
    assert found.head_means.tolist() == [2.0, 1.0]
    assert found.head_ranges.tolist() == [4.0, 0.0]
    assert found.head_stds == pytest.approx([np.sqrt(8 / 3), 0])
