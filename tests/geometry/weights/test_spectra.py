"""Ranks against numpy's singular values and closed forms; both kinds of rank90 (BUG E-4)."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from src.geometry.weights.spectra import Spectrum, random_spectra, spectrum, top_eigenvectors

CPU = torch.device("cpu")


def _draw(rows: int, columns: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


@settings(max_examples=25, deadline=None)
@given(rows=st.integers(2, 40), columns=st.integers(2, 40), seed=st.integers(0, 100), half=st.booleans())
def test_singular_values_are_numpys(rows: int, columns: int, seed: int, half: bool) -> None:
    matrix = _draw(rows, columns, seed).to(torch.float16 if half else torch.float32)
    found = spectrum(matrix, CPU)
    expected = np.linalg.svd(matrix.double().numpy(), compute_uv=False)
    np.testing.assert_allclose(found.values, expected, rtol=1e-6, atol=1e-10 * expected[0])
    assert found.condition == pytest.approx(expected[0] / expected[-1], rel=1e-4)
    assert found.rms == pytest.approx(float(matrix.double().square().mean().sqrt()))


def test_numbers_by_hand() -> None:
    found = spectrum(torch.diag(torch.tensor([4.0, 2.0, 1.0, 1.0])), CPU)
    assert found.stable_rank == pytest.approx(22 / 16)
    assert found.energy_participation == pytest.approx(22**2 / (256 + 16 + 1 + 1))
    assert found.nuclear_participation == pytest.approx(64 / 22)
    p = np.array([0.5, 0.25, 0.125, 0.125])
    assert found.effective_rank == pytest.approx(math.exp(-(p * np.log(p)).sum()))
    assert (found.energy_rank(0.9), found.nuclear_rank(0.9)) == (2, 4)  # 20 / 22; 7 / 8 is less than 0.9
    assert found.energy_rank(1.0) == 4
    assert found.condition == pytest.approx(4)
    assert found.edge == pytest.approx(math.sqrt(22 / 16) * 4)


def test_shares_are_of_energies_and_not_of_singular_values() -> None:
    """The Gaussian 512 x 512 of the spec: 344 by s, 261 by s^2; participation 369 and 256."""
    found = spectrum(_draw(512, 512), CPU)
    assert found.nuclear_rank(0.9) == pytest.approx(344, abs=4)
    assert found.energy_rank(0.9) == pytest.approx(261, abs=4)
    assert found.nuclear_participation == pytest.approx(369, abs=4)
    assert found.energy_participation == pytest.approx(256, abs=4)


@pytest.mark.parametrize("shape", [(60, 90), (90, 60)])
def test_condition_beyond_what_a_gram_matrix_holds(shape: tuple[int, int]) -> None:
    generator = np.random.default_rng(0)
    left, right = (np.linalg.qr(generator.standard_normal((side, 60)))[0] for side in shape)
    wanted = np.logspace(0, -10, 60)
    found = spectrum(torch.from_numpy(left * wanted @ right.T), CPU)
    np.testing.assert_allclose(found.values, wanted, rtol=1e-4)
    assert found.condition == pytest.approx(1e10, rel=1e-4)


def test_zero_and_constant_matrices() -> None:
    zero = spectrum(torch.zeros(5, 3), CPU)
    assert zero.is_zero
    assert (zero.stable_rank, zero.energy_rank(0.9), zero.effective_rank, zero.above_edge) == (0, 0, 0, 0)
    assert math.isnan(zero.condition)
    constant = spectrum(torch.ones(20, 30), CPU)
    assert constant.stable_rank == pytest.approx(1)
    assert (constant.energy_rank(0.99), constant.above_edge) == (1, 1)
    assert constant.energy_above_edge == pytest.approx(1)


def test_a_planted_direction_is_beyond_the_edge_and_noise_is_not() -> None:
    noise = _draw(300, 200, 1)
    assert spectrum(noise, CPU).above_edge <= 1  # about one draw in six is a little beyond it
    planted = noise + 3 * math.sqrt(200) * torch.outer(_draw(300, 1)[:, 0], _draw(200, 1, 2)[:, 0]) / math.sqrt(60000)
    found = spectrum(planted, CPU)
    assert 1 <= found.above_edge <= 2
    assert found.energy_above_edge > 0.01


@pytest.mark.parametrize("shape", [(30, 300), (300, 30), (64, 64)])
def test_random_matrices_are_those_of_gaussian_entries(shape: tuple[int, int]) -> None:
    """Triangles by Bartlett against matrices that are drawn whole, in every number."""
    drawn = random_spectra(shape, 0)
    whole = [spectrum(_draw(*shape, seed), CPU) for seed in range(40)]
    for name in ("stable_rank", "energy_participation", "nuclear_participation", "effective_rank", "energy_rank_90"):
        mine, theirs = ([each.numbers()[name] for each in spectra] for spectra in (drawn, whole))
        spread = np.std(theirs) * math.sqrt(1 / len(mine) + 1 / len(theirs))
        assert np.mean(mine) == pytest.approx(np.mean(theirs), abs=4 * spread + 1e-9), name
    m, n = shape
    # E (tr)^2 / E tr^2 of a Wishart matrix
    assert np.mean([each.energy_participation for each in drawn]) == pytest.approx(m * n / (m + n + 1), rel=0.05)
    assert drawn[0].rms == pytest.approx(1, abs=0.05)
    assert drawn[0].shape == shape


def test_top_eigenvectors() -> None:
    matrix = _draw(50, 20).double()
    found = top_eigenvectors(matrix.T @ matrix, 4)
    expected = torch.linalg.svd(matrix).Vh[:4].T
    torch.testing.assert_close((found * expected).sum(0).abs(), torch.ones(4, dtype=torch.float64))


def test_scale_changes_nothing_but_the_scale() -> None:
    matrix = _draw(40, 30)
    one, other = (spectrum(scale * matrix, CPU).numbers() for scale in (1, 1e-3))
    for name in set(one) - {"largest", "smallest", "edge"}:
        assert other[name] == pytest.approx(one[name], rel=1e-4), name
    assert isinstance(spectrum(matrix, CPU), Spectrum)


@pytest.mark.parametrize("shape", [(64, 64), (40, 160), (160, 40)])
def test_random_matrices_lie_beyond_the_edge_now_and_then_and_do_not_stand_out(shape: tuple[int, int]) -> None:
    draws = torch.Generator().manual_seed(5)
    found = [spectrum(torch.randn(shape, generator=draws), CPU) for _ in range(150)]
    beyond = sum(each.above_edge > 0 for each in found)
    assert 5 < beyond < 45  # Tracy-Widom: 1 in 6 at most
    assert sum(each.stands_out for each in found) <= 1
    weak = torch.randn(shape, generator=draws)
    weak += (
        2.2
        * (shape[0] * shape[1]) ** 0.25
        * torch.outer(*(torch.randn(n, generator=draws) for n in shape))
        / ((shape[0] * shape[1]) ** 0.5)
    )
    assert spectrum(weak, CPU).stands_out
