"""Neurons and gains with planted faults."""

import numpy as np
import pytest
import torch

from src.geometry.weights.neurons import gaussian_importance_dispersion, neurons
from src.geometry.weights.norms import Gains, shared_outliers


def _mlp(n: int = 400, d: int = 64, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    up, gate = (torch.randn(n, d, generator=generator) for _ in range(2))
    return up, torch.randn(d, n, generator=generator), gate


@pytest.mark.parametrize("gated", [True, False])
def test_random_neurons_are_alive_and_as_uneven_as_chance_has_it(gated: bool) -> None:
    up, down, gate = _mlp(4000)
    numbers = neurons(up, down, gate if gated else None).numbers()
    assert (numbers["dead"], numbers["weak"], numbers["n_neurons"]) == (0, 0, 4000)
    assert numbers["dispersion"] == pytest.approx(gaussian_importance_dispersion(64, gated), rel=0.05)


def test_importance_is_the_product_of_norms() -> None:
    up, down, gate = _mlp(5, 3)
    expected = [up[j].norm() * down[:, j].norm() * gate[j].norm() for j in range(5)]
    np.testing.assert_allclose(neurons(up, down, gate).importance, expected, rtol=1e-6)


def test_a_dead_gate_is_seen_though_other_norms_are_large() -> None:
    """BUG E-2: gated MLPs count, with their gates; a factor near zero hides behind a large one in the product."""
    up, down, gate = _mlp()
    gate[7] *= 1e-3
    up[7] *= 50
    found = neurons(up, down, gate)
    assert found.relative[7] > 0.01
    assert found.weakest_factor[7] < 0.01
    assert found.numbers()["dead_in_a_factor"] == 1
    assert found.numbers()["dead"] == 0


def test_a_few_large_neurons_do_not_kill_the_others() -> None:
    """Relative to the mean, as the notebook has it, all others would be dead."""
    up, down, _ = _mlp()
    up[:3] *= 500
    down[:, :3] *= 500
    numbers = neurons(up, down, None).numbers()
    assert (numbers["dead"], numbers["weak"]) == (0, 0)
    assert numbers["dead_of_mean"] == 397


def test_zero_neurons_are_dead() -> None:
    up, down, gate = _mlp()
    down[:, 5:9] = 0
    assert neurons(up, down, gate).numbers()["dead"] == 4
    assert neurons(up, 0 * down, gate).numbers()["dead"] == 400


def test_gains_and_shared_outliers() -> None:
    generator = np.random.default_rng(0)
    norms = []
    for layer in range(10):
        values = 1 + 0.05 * generator.standard_normal(256)
        values[17] = 9.0
        if layer < 7:
            values[30] = -4.0  # in 70 % only
        values[layer * 3] = 6.0  # in one only
        norms.append(Gains(values))
    shared = shared_outliers(norms)
    assert shared.dims == (17,)
    assert shared.shares == (1.0,)
    assert shared.expected < 1e-6
    assert norms[0].numbers()["outliers"] == 3
    assert norms[0].numbers()["above_1.5"] == 2


def test_outliers_by_chance() -> None:
    """Poisson binomial: of 3 norms with half of the dimensions each, an eighth is in all."""
    generator = np.random.default_rng(0)
    norms = []
    for _ in range(3):
        values = np.ones(4000) + 1e-3 * generator.standard_normal(4000)
        values[generator.permutation(4000)[:800]] = 5.0
        norms.append(Gains(values))
    shared = shared_outliers(norms)
    assert shared.expected == pytest.approx(4000 * 0.2**3, rel=0.01)
    assert len(shared.dims) == pytest.approx(32, abs=20)


def test_equal_gains_have_no_outliers() -> None:
    values = np.ones(100)
    values[3] += 1e-6
    assert Gains(values).numbers()["outliers"] == 0
