"""What every solver of elastic nets must hold to: compiled coordinate descent, and FISTA on working sets."""

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from sklearn.linear_model import ElasticNet

from src.transport import sparse_solvers
from src.transport.coordinate_descent import descend
from src.transport.sparse_solvers import solve_elastic_nets
from src.transport.working_sets import solve_on_working_sets
from tests.fixtures.elastic_net_problems import correlated_rows, from_seed

SOLVERS = {"coordinate_descent": descend, "fista": solve_on_working_sets}
both_solvers = pytest.mark.parametrize("solver", SOLVERS.values(), ids=SOLVERS)


def solve(solver, gram, cross, square, l1, l2, max_iter, tol, start=None):
    """Weights [d_in, column], and which columns converged."""
    start = torch.zeros_like(cross) if start is None else start
    weight, converged = solver(gram, cross.T, square, l1, l2, start.T, max_iter, tol)
    return weight.T, converged


problems = st.tuples(
    st.integers(0, 10**6),  # seed
    st.integers(2, 40),  # rows
    st.integers(1, 12),  # inputs
    st.integers(1, 5),  # columns
    st.floats(0.01, 1.2),  # l1, of the largest correlation
    st.sampled_from([0.0, 0.1, 10.0]),  # l2
    st.sampled_from([0.0, 0.9]),  # correlation of the inputs
)


@both_solvers
@settings(deadline=None, max_examples=50)
@given(problem=problems)
def test_solutions_meet_the_optimality_conditions(solver, problem):
    """KKT: X'(y - Xb) - l2 b is l1 sign(b) where b is not 0, and at most l1 in size elsewhere."""
    seed, n, d, m, share, l2, correlation = problem
    gram, cross, square = from_seed(seed, n, d, m, correlation)
    l1 = share * cross.abs().amax(0)
    penalty = torch.full((m,), l2, dtype=torch.float64)
    weight, converged = solve(solver, gram, cross, square, l1, penalty, 100_000, 1e-12)
    assert converged.all()
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


@both_solvers
def test_a_solution_is_its_own_warm_start(solver):
    gram, cross, square = from_seed(1, 60, 10, 3, 0.9)
    l1, l2 = torch.full((3,), 0.5, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    weight, _ = solve(solver, gram, cross, square, l1, l2, 10_000, 1e-12)
    before = weight.clone()
    again, converged = solve(solver, gram, cross, square, l1, l2, 0, 1e-12, start=weight)
    assert converged.all()
    assert torch.equal(again, before)
    assert torch.equal(weight, before)
    _, converged = solve(solver, gram, cross, square, l1, l2, 0, 1e-12)
    assert not converged.any()


@both_solvers
@pytest.mark.parametrize("l2", [0.0, 2.0])
def test_the_gap_bounds_the_excess_of_the_objective(solver, l2):
    gram, cross, square = from_seed(2, 60, 10, 4, 0.9)
    l1, ridge = torch.full((4,), 0.5, dtype=torch.float64), torch.full((4,), l2, dtype=torch.float64)

    def objective(weight):
        squares = square - 2 * (weight * cross).sum(0) + (weight * (gram @ weight)).sum(0)
        return squares / 2 + (l1 * weight.abs() + ridge / 2 * weight.square()).sum(0)

    best = objective(solve(solver, gram, cross, square, l1, ridge, 3000, 1e-14)[0])
    for tol in (1e-1, 1e-3, 1e-6):
        excess = objective(solve(solver, gram, cross, square, l1, ridge, 10_000, tol)[0]) - best
        assert (excess <= tol * square).all()


@both_solvers
@pytest.mark.parametrize("condition", [1e4, 1e6])
@pytest.mark.parametrize("l1_ratio", [1.0, 0.5])
def test_correlated_inputs_at_every_sparsity_equal_scikit_learn(solver, condition, l1_ratio):
    """Penalties from one that leaves hardly anything to one that leaves most, side by side in one call."""
    n, d = 400, 80
    x, y = correlated_rows(n, d, condition)
    rows, outputs = torch.from_numpy(x), torch.from_numpy(y)
    cross = rows.T @ outputs
    alpha = cross.abs().amax(0) / (n * l1_ratio) * torch.logspace(-0.05, -3, d, dtype=torch.float64)
    l1, l2 = n * alpha * l1_ratio, n * alpha * (1 - l1_ratio)
    weight, converged = solve(solver, rows.T @ rows, cross, outputs.square().sum(0), l1, l2, 20_000, 1e-10)
    assert converged.all()
    weight = weight.numpy()
    zero_share = (weight == 0).mean(0)
    assert zero_share.max() > 0.95
    assert zero_share.min() < 0.5
    for output in range(0, d, 4):
        penalty = float(alpha[output])
        truth = ElasticNet(penalty, l1_ratio=l1_ratio, tol=1e-10, max_iter=100_000, fit_intercept=False)
        expected = truth.fit(x, y[:, output]).coef_

        def objective(b, output=output, penalty=penalty):
            squares = ((y[:, output] - x @ b) ** 2).sum() / (2 * n)
            return squares + penalty * (l1_ratio * np.abs(b).sum() + (1 - l1_ratio) / 2 * (b**2).sum())

        assert abs(objective(weight[:, output]) - objective(expected)) < 1e-8
        error = x @ (weight[:, output] - expected)
        assert np.sqrt((error**2).mean()) < 1e-4


@both_solvers
def test_an_output_that_nothing_explains_and_one_that_is_0(solver):
    gram, cross, square = from_seed(3, 40, 6, 3, 0.0)
    cross[:, 1], square[1] = 0, 0
    cross[:, 2] = 0
    for l1 in (0.0, 0.5):
        penalty = torch.full((3,), l1, dtype=torch.float64)
        weight, converged = solve(solver, gram, cross, square, penalty, 0 * penalty, 1000, 1e-6)
        assert converged[1:].all()
        assert not weight[:, 1:].any()


def test_the_device_chooses_the_solver(monkeypatch):
    gram, cross, square = from_seed(4, 40, 6, 3, 0.0)
    penalty = 0.1 * square
    solution = solve_elastic_nets(gram, cross, square, penalty, penalty, None, 1000, 1e-6)
    weight, converged = solve(descend, gram, cross, square, penalty, penalty, 1000, 1e-6)
    assert torch.equal(solution.weight, weight)
    assert torch.equal(solution.converged, converged)
    assert solution.weight.is_contiguous()  # it is saved, and safetensors wants it so
    monkeypatch.setattr(sparse_solvers, "solve_on_working_sets", lambda gram, cross, *_: (cross, "elsewhere"))
    elsewhere = [x.to("meta") for x in (gram, cross, square, penalty, penalty)]
    solution = solve_elastic_nets(*elsewhere, None, 1000, 1e-6)
    assert solution.converged == "elsewhere"
    assert solution.weight.shape == cross.shape
