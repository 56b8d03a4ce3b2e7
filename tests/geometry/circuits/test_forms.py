import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings

from src.geometry.circuits.forms import FormStatistics, form_statistics, symmetries, top_directions
from src.geometry.circuits.notebook import pooled_form, unit_products


def heads(n: int, d_head: int, d_model: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    draws = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(n, d_head, d_model, generator=draws, dtype=torch.float64) for _ in range(2))


def dense(q: torch.Tensor, k: torch.Tensor) -> dict[str, list[float]]:
    """By the d_model x d_model matrix of each head."""
    found: dict[str, list[float]] = {name: [] for name in FormStatistics.__dataclass_fields__}
    for form in q.mT @ k:
        eigenvalues = torch.linalg.eigvalsh((form + form.T) / 2)
        eigenvalues = eigenvalues[eigenvalues.abs() > 1e-6 * eigenvalues.abs().max()]
        energy = torch.linalg.svdvals(form) ** 2
        positive = eigenvalues[eigenvalues > 0]
        found["positive_mass"].append(float(positive.sum() / eigenvalues.abs().sum()))
        found["positive_fraction"].append(len(positive) / len(eigenvalues))
        found["symmetry"].append(float(torch.trace(form @ form) / (form**2).sum()))
        found["stable_rank"].append(float(energy.sum() / energy[0]))
        found["energy_rank"].append(int((energy.cumsum(0) < 0.9 * energy.sum()).sum()) + 1)
        found["norm"].append(float(form.norm()))
    return found


@pytest.mark.parametrize(("d_head", "d_model"), [(4, 30), (6, 12), (8, 12)])  # also where 2 d_head > d_model
def test_statistics_are_those_of_the_dense_form(d_head, d_model):
    q, k = heads(3, d_head, d_model, seed=d_head)
    found = form_statistics(q, k).by_name()
    for name, expected in dense(q, k).items():
        torch.testing.assert_close(found[name], torch.tensor(expected, dtype=torch.float64), atol=1e-9, rtol=1e-9)


def test_symmetries_of_all_pairs_of_heads():
    q, k = heads(3, 4, 20, seed=1)
    found = symmetries(q, k[:2])
    for i in range(3):
        for j in range(2):
            expected = dense(q[i : i + 1], k[j : j + 1])["symmetry"][0]
            assert float(found[i, j]) == pytest.approx(expected, abs=1e-12)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 6))
def test_no_statistic_changes_with_the_basis_of_a_head(seed, d_head):
    """Spec K: Q -> B Q, K -> B^-T K."""
    q, k = heads(2, d_head, 15, seed)
    draws = torch.Generator().manual_seed(seed + 1)
    basis = torch.eye(d_head).double() + 0.3 * torch.randn(2, d_head, d_head, generator=draws).double() / d_head
    turned = form_statistics(basis @ q, torch.linalg.inv(basis).mT @ k).by_name()
    for name, expected in form_statistics(q, k).by_name().items():
        torch.testing.assert_close(turned[name], expected, rtol=1e-6, atol=1e-9)


def test_the_notebooks_products_of_units_do_change_with_the_basis():
    """BUG E-6: its positive fraction and its symmetry are no functions of what the model computes."""
    q, k = heads(4, 8, 32, seed=3)
    k = q + 0.5 * k
    draws = torch.Generator().manual_seed(4)
    basis = torch.eye(8).double() + 0.5 * torch.randn(4, 8, 8, generator=draws).double()
    q_turned, k_turned = basis @ q, torch.linalg.inv(basis).mT @ k
    before, after = (
        unit_products(*(factor.flatten(0, 1) for factor in both)) for both in ((q, k), (q_turned, k_turned))
    )
    assert before is not None
    assert after is not None
    assert abs(before["positive_fraction"] - after["positive_fraction"]) > 0.05
    assert abs(before["symmetry_deviation"] - after["symmetry_deviation"]) > 0.1
    ours, turned = pooled_form(q, k), pooled_form(q_turned, k_turned)
    assert turned["positive_fraction"] == ours["positive_fraction"]
    assert turned["symmetry_deviation"] == pytest.approx(ours["symmetry_deviation"], rel=1e-9)


def test_the_notebook_stops_at_grouped_queries_and_its_matrix_has_the_size_of_heads():
    assert unit_products(torch.randn(32, 24), torch.randn(8, 24)) is None
    products = unit_products(torch.randn(16, 24), torch.randn(16, 24))
    assert products is not None
    assert products["n_positive"] + products["n_negative"] == 16  # not d_model = 24


def test_pooling_hides_what_single_heads_do():
    """BUG E-7: a head that attracts and a head that repels, of equal size, make a pooled form of neither."""
    q, _ = heads(2, 4, 24, seed=5)
    k = torch.stack([q[0], -q[1]])
    assert form_statistics(q, k).positive_mass.tolist() == pytest.approx([1.0, 0.0], abs=1e-12)
    assert pooled_form(q, k)["positive_fraction"] == 0.5


def test_counts_of_eigenvalues_tell_nothing_of_a_head():
    """Sylvester: as many positive as negative ones wherever Q and K share no direction; their mass does tell."""
    q, k = heads(1, 4, 24, seed=9)
    found = form_statistics(q, q + 0.3 * k)
    assert float(found.positive_fraction) == 0.5
    assert float(found.positive_mass) > 0.9


def test_symmetric_and_antisymmetric_forms():
    q, k = heads(1, 3, 12, seed=6)
    attracting = form_statistics(q, q)
    assert float(attracting.symmetry) == pytest.approx(1)
    assert float(attracting.positive_mass) == pytest.approx(1)
    # [Q; K]' and [K; -Q] make Q'K - K'Q
    twisted = form_statistics(torch.cat([q, k], 1), torch.cat([k, -q], 1))
    assert float(twisted.symmetry) == pytest.approx(-1)


def test_a_head_of_zeros_has_no_statistics():
    q, k = heads(2, 3, 12, seed=7)
    k[1] = 0
    found = form_statistics(q, k)
    assert found.norm[1] == 0
    for name in ("positive_mass", "positive_fraction", "symmetry", "stable_rank", "energy_rank"):
        assert found.by_name()[name].isfinite().tolist() == [True, False]


def test_the_top_direction_of_a_planted_form():
    d_model = 20
    direction = torch.nn.functional.normalize(torch.randn(d_model, generator=torch.Generator().manual_seed(8)), dim=0)
    other = torch.eye(d_model)[0] - direction[0] * direction
    q = torch.stack([3 * direction, other / other.norm()])[None]
    k = torch.stack([-direction, other / other.norm()])[None]
    share, found = top_directions(q, k)
    assert float(share) == pytest.approx(-0.75, abs=1e-6)
    assert abs(float(found[0] @ direction.double())) == pytest.approx(1, abs=1e-6)
