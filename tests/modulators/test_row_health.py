"""Health of tables of vectors."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from src.modulators.health import residual_health
from src.modulators.residual import ResidualModulator
from src.modulators.row_health import RowHealth


def _normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@given(st.integers(2, 30), st.integers(0, 50))
def test_all_pairs_by_brute_force(n: int, seed: int) -> None:
    """Spec A3: sums in blocks are the mean and standard deviation over all pairs."""
    rows = _normal(n, 5, seed=seed) + 0.5
    found = RowHealth.of(rows.split(7), 5)
    units = (rows / rows.norm(dim=1, keepdim=True)).numpy()
    cosines = (units @ units.T)[np.triu_indices(n, 1)]
    assert (found.cosine_mean, found.cosine_sd) == pytest.approx((cosines.mean(), cosines.std()), abs=1e-7)
    lengths = rows.norm(dim=1).numpy()
    assert (found.length_mean, found.length_sd) == pytest.approx((lengths.mean(), lengths.std()))
    values = np.linalg.eigvalsh(np.cov(rows.numpy().T))
    assert found.participation_seen == pytest.approx(values.sum() ** 2 / np.square(values).sum())


def test_few_isotropic_rows_take_all_dimensions() -> None:
    found = RowHealth.of([_normal(200, 100)], 100)
    assert found.participation == pytest.approx(100, rel=0.1)
    assert found.participation_seen < 70


@pytest.mark.parametrize("seed", range(4))
def test_no_more_dimensions_than_there_are(seed: int) -> None:
    """Without its bias the ratio of isotropic rows lies on both sides of their width; no report says 64.08 of 64."""
    assert RowHealth.of([_normal(400, 16, seed=seed)], 16).participation <= 16


def test_rows_of_zeros_are_told() -> None:
    rows = torch.cat([_normal(10, 4), torch.zeros(3, 4, dtype=torch.float64)])
    assert RowHealth.of([rows], 4).zeros == 3
    assert np.isnan(RowHealth.of([], 4).cosine_mean)


def test_tokens_that_are_not_known_take_no_part() -> None:
    """G6: with unmatched random rows every table looks spread out, whatever its geometry is."""
    table = _normal(500, 8).float()
    known = torch.arange(500) >= 450
    table[known] = torch.tensor([1.0, 2, 3, 4, 0, 0, 0, 0]) + 0.01 * table[known]
    modulator = ResidualModulator(table, _normal(6, 8).float(), known, [1, 4], alpha=0.2)
    found = residual_health(modulator)
    assert (found.n_known, found.d_vocab, found.vectors.n) == (50, 500, 50)
    assert found.vectors.cosine_mean > 0.99
    assert found.alphas == pytest.approx({1: 0.2, 4: 0.2})
    assert found.targets.width == 6
    assert modulator.health_numbers()["mean cosine of vectors"] == pytest.approx(found.vectors.cosine_mean)
