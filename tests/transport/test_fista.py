import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings

from src.transport import fista
from src.transport.fista import solve_elastic_nets

problems = st.tuples(
    st.integers(0, 10**6),  # seed
    st.integers(2, 40),  # rows
    st.integers(1, 12),  # inputs
    st.integers(1, 5),  # columns
    st.floats(0.01, 1.2),  # l1, of the largest correlation
    st.sampled_from([0.0, 0.1, 10.0]),  # l2
    st.sampled_from([0.0, 0.9]),  # correlation of the inputs
)


def make(seed, n, d, m, correlation):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, d)) + correlation * 3 * rng.standard_normal((n, 1))
    x *= 10.0 ** rng.uniform(-2, 2, d)
    x, y = torch.from_numpy(x - x.mean(0)), torch.from_numpy(rng.standard_normal((n, m)))
    y = y - y.mean(0)
    return x.T @ x, x.T @ y, y.square().sum(0)


@settings(deadline=None, max_examples=60)
@given(problems)
def test_solutions_meet_the_optimality_conditions(problem):
    """KKT: X'(y - Xb) - l2 b is l1 sign(b) where b is not 0, and at most l1 in size elsewhere."""
    seed, n, d, m, share, l2, correlation = problem
    gram, cross, square = make(seed, n, d, m, correlation)
    l1 = share * cross.abs().amax(0)
    penalty = torch.full((m,), l2, dtype=torch.float64)
    solution = solve_elastic_nets(gram, cross, square, l1, penalty, None, 100_000, 1e-14)
    assert solution.converged.all()
    weight = solution.weight
    # in units in which every input has length 1; the gap bounds the square of the error
    length = gram.diagonal().sqrt()[:, None]
    pull = (cross - gram @ weight - l2 * weight) / length
    threshold = l1 / length
    tolerance = 1e-5 * square.sqrt()
    assert (pull.abs() <= threshold + tolerance).all()
    used = weight != 0
    assert torch.where(used, (pull - threshold * weight.sign()).abs() <= tolerance, True).all()
    if share >= 1:
        assert not used.any()


def test_columns_do_not_depend_on_their_company(monkeypatch):
    gram, cross, square = make(0, 60, 10, 23, 0.9)
    l1 = torch.linspace(0.01, 5, 23, dtype=torch.float64)
    l2 = torch.linspace(0, 3, 23, dtype=torch.float64)
    together = solve_elastic_nets(gram, cross, square, l1, l2, None, 10_000, 1e-13).weight
    monkeypatch.setattr(fista, "_COLUMNS_CPU", 4)
    apart = solve_elastic_nets(gram, cross, square, l1, l2, None, 10_000, 1e-13).weight
    torch.testing.assert_close(apart, together, rtol=1e-7, atol=1e-9)


def test_a_solution_is_its_own_warm_start():
    gram, cross, square = make(1, 60, 10, 3, 0.9)
    l1, l2 = torch.full((3,), 0.5, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    solution = solve_elastic_nets(gram, cross, square, l1, l2, None, 10_000, 1e-12)
    again = solve_elastic_nets(gram, cross, square, l1, l2, solution.weight, 0, 1e-12)
    assert again.converged.all()
    assert torch.equal(again.weight, solution.weight)
    cold = solve_elastic_nets(gram, cross, square, l1, l2, None, 0, 1e-12)
    assert not cold.converged.any()


@pytest.mark.parametrize("l2", [0.0, 2.0])
def test_the_gap_bounds_the_excess_of_the_objective(l2):
    gram, cross, square = make(2, 60, 10, 4, 0.9)
    l1, ridge = torch.full((4,), 0.5, dtype=torch.float64), torch.full((4,), l2, dtype=torch.float64)

    def objective(weight):
        squares = square - 2 * (weight * cross).sum(0) + (weight * (gram @ weight)).sum(0)
        return squares / 2 + (l1 * weight.abs() + ridge / 2 * weight.square()).sum(0)

    best = objective(solve_elastic_nets(gram, cross, square, l1, ridge, None, 3000, 1e-14).weight)
    for tol in (1e-1, 1e-3, 1e-6):
        excess = objective(solve_elastic_nets(gram, cross, square, l1, ridge, None, 10_000, tol).weight) - best
        assert (excess <= tol * square).all()
