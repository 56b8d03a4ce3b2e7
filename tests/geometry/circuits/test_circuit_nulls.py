import numpy as np
import pytest
import torch

from src.geometry.circuits.forms import form_statistics
from src.geometry.circuits.nulls import compare, gaussian_forms, own_and_others, pairing, permuted_means, rejected
from src.geometry.circuits.output import gaussian_copying, output_statistics


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_matrices_without_alignment_have_as_much_positive_as_negative():
    """Spec K: 0.5 +- 0.01; a symmetry of 0."""
    found = gaussian_forms(d_model=128, d_head=16, n=400, rng=rng())
    assert float(found.positive_fraction.mean()) == pytest.approx(0.5, abs=0.01)
    assert float(found.positive_mass.mean()) == pytest.approx(0.5, abs=0.01)
    assert float(found.symmetry.mean()) == pytest.approx(0, abs=0.01)


@pytest.mark.parametrize(("d_model", "d_head"), [(40, 5), (12, 8)])
def test_triangular_draws_are_distributed_as_gaussian_matrices(d_model, d_head):
    draws = torch.Generator().manual_seed(0)
    q, k = (torch.randn(600, d_head, d_model, generator=draws, dtype=torch.float64) for _ in range(2))
    direct, drawn = form_statistics(q, k).by_name(), gaussian_forms(d_model, d_head, 600, rng()).by_name()
    for name, values in direct.items():
        both = torch.stack([values, drawn[name]])
        error = float((both.var(1) / 600).sum().sqrt())
        if error == 0:  # the positive fraction of 2 d_head <= d_model
            assert bool((both == 0.5).all()), name
            continue
        assert abs(float(both[0].mean() - both[1].mean())) < 4 * error, name
        assert float(both[1].std() / both[0].std()) == pytest.approx(1, abs=0.2), name


def test_copying_of_gaussian_draws():
    draws = torch.Generator().manual_seed(0)
    v, o = (torch.randn(500, 6, 40, generator=draws, dtype=torch.float64) for _ in range(2))
    direct, drawn = output_statistics(v, o.mT).copying, gaussian_copying(40, 6, 500, rng())
    assert abs(float(direct.mean() - drawn.mean())) < 4 * float((direct.var() / 500 + drawn.var() / 500).sqrt())
    assert float(drawn.std() / direct.std()) == pytest.approx(1, abs=0.2)


def test_p_counts_draws_as_far_from_the_mean():
    drawn = torch.tensor([-3.0, -1.0, 1.0, 3.0], dtype=torch.float64)
    found = compare(torch.tensor([0.0, 1.0, -3.0, 5.0, torch.nan]), drawn)
    assert [each.p for each in found[:4]] == [1.0, 1.0, 3 / 5, 1 / 5]
    assert np.isnan(found[4].p)
    assert found[3].z == pytest.approx(5 / float(drawn.std()))


@pytest.mark.parametrize(("n_heads", "n_kv_heads", "most"), [(6, 6, 8), (6, 3, 8), (10, 10, 4), (8, 1, 8)])
def test_pairs_hold_each_heads_own_key_and_others_of_its_block(n_heads, n_kv_heads, most):
    paired = pairing(n_heads, n_kv_heads, most, rng())
    assert paired.own.tolist() == [head // (n_heads // n_kv_heads) for head in range(n_heads)]
    marked = paired.matrix(torch.arange(len(paired.query_head), dtype=torch.float64))
    own, others = own_and_others(marked, paired)
    assert bool(own.isfinite().all())
    per_row = marked.isfinite().sum(1)
    assert int(per_row.max()) <= most
    assert len(others) == int(per_row.sum()) - n_heads
    if n_kv_heads <= most:
        assert bool(marked.isfinite().all())


def test_dealing_queries_anew_finds_a_planted_match_and_nothing_else():
    paired = pairing(8, 8, 8, rng())
    noise = torch.from_numpy(rng(1).normal(size=(8, 8)))
    planted = noise + 3 * torch.eye(8)
    for matrix, lowest, highest in ((noise, 0.05, 1.0), (planted, 0.0, 0.01)):
        means = permuted_means(matrix, paired, 999, rng(2))
        assert means is not None
        assert float(means.mean()) == pytest.approx(float(matrix.mean()), abs=0.1)
        assert lowest < compare(matrix.diagonal().mean()[None], means)[0].p <= highest


def test_dealing_stays_inside_of_blocks_and_uses_every_query_once():
    paired = pairing(8, 8, 4, rng(3))
    heads = torch.arange(8, dtype=torch.float64)[:, None].expand(8, 8)
    inside = torch.where(paired.block[:, None] == paired.block[None], heads, torch.nan)
    means = permuted_means(inside, paired, 50, rng(4))
    assert means is not None
    assert means.tolist() == [3.5] * 50  # the mean of 0..7, and never a pair that is not there


def test_one_key_for_all_queries_leaves_nothing_to_deal():
    assert permuted_means(torch.ones(4, 1, dtype=torch.float64), pairing(4, 1, 8, rng()), 9, rng()) is None


def test_false_discovery_rate_over_hypotheses_that_are_defined():
    # Benjamini and Hochberg: 0.01 <= 0.05 * 1/3, 0.03 <= 0.05 * 2/3, 0.2 > 0.05
    assert rejected({("a",): 0.01, ("b",): 0.03, ("c",): 0.2, ("d",): float("nan")}, 0.05) == {
        ("a",): True,
        ("b",): True,
        ("c",): False,
        ("d",): False,
    }
