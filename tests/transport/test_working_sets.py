import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from sklearn.linear_model import ElasticNet

from src.transport import working_sets
from src.transport.working_sets import solve_elastic_nets

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
    monkeypatch.setattr(working_sets, "_BLOCK_CPU", 4)
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


def correlated_rows(n, d, condition, seed=0):
    """Standardised rows whose covariance has eigenvalues that fall to 1 / condition, and noisy sums of a few inputs."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, d)) * np.logspace(0, -np.log10(condition) / 2, d)
    x = x @ np.linalg.qr(rng.standard_normal((d, d)))[0]
    x = (x - x.mean(0)) / x.std(0)
    weight = rng.standard_normal((d, d)) * (rng.random((d, d)) < 0.1)
    y = x @ weight + 0.5 * rng.standard_normal((n, d))
    return x, (y - y.mean(0)) / y.std(0)


@pytest.fixture
def solved_on(monkeypatch):
    """How many inputs each call of FISTA saw, and how many problems, by whether the Gram matrix was shared."""
    seen = {"own": [], "shared": []}

    def spy(problems, *arguments):
        seen["shared" if problems.gram.ndim == 2 else "own"].append(problems.cross.shape)
        return fista(problems, *arguments)

    fista = working_sets.fista
    monkeypatch.setattr(working_sets, "fista", spy)
    return seen


@pytest.mark.parametrize("condition", [1e4, 1e6])
@pytest.mark.parametrize("l1_ratio", [1.0, 0.5])
def test_correlated_inputs_at_every_sparsity_equal_scikit_learn(condition, l1_ratio, solved_on):
    """Penalties from one that leaves hardly anything to one that leaves most, side by side in one call."""
    n, d = 400, 80
    x, y = correlated_rows(n, d, condition)
    rows, outputs = torch.from_numpy(x), torch.from_numpy(y)
    cross = rows.T @ outputs
    alpha = cross.abs().amax(0) / (n * l1_ratio) * torch.logspace(-0.05, -3, d, dtype=torch.float64)
    l1, l2 = n * alpha * l1_ratio, n * alpha * (1 - l1_ratio)
    solution = solve_elastic_nets(rows.T @ rows, cross, outputs.square().sum(0), l1, l2, None, 20_000, 1e-10)
    assert solution.converged.all()
    weight = solution.weight.numpy()
    zero_share = (weight == 0).mean(0)
    assert zero_share.max() > 0.95
    assert zero_share.min() < 0.5
    assert {width for _, width in solved_on["shared"]} == {d}
    assert all(width <= d / 4 for _, width in solved_on["own"])
    assert sum(count for count, _ in solved_on["shared"]) < d  # the sparse ones were solved on working sets
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


def test_inputs_that_the_first_working_set_misses_are_found(solved_on):
    """The difference of two like inputs: neither correlates with it as 40 decoys do, and no decoy belongs to it."""
    rng = np.random.default_rng(0)
    common, apart = rng.standard_normal((500, 1)), rng.standard_normal((500, 1))
    pair = np.hstack([common + 0.1 * apart, common - 0.1 * apart])
    decoys = apart + 2 * rng.standard_normal((500, 40))
    x = np.hstack([decoys, pair, rng.standard_normal((500, 258))])
    x = (x - x.mean(0)) / x.std(0)
    y = (apart - apart.mean()) / apart.std()
    rows, output = torch.from_numpy(x), torch.from_numpy(y)
    cross = rows.T @ output
    first_set = cross[:, 0].abs().topk(16).indices
    assert first_set.max() < 40
    l1 = torch.tensor([0.5], dtype=torch.float64)
    weight = solve_elastic_nets(
        rows.T @ rows, cross, output.square().sum(0), l1, torch.zeros_like(l1), None, 50_000, 1e-12
    ).weight[:, 0]
    assert len(solved_on["own"]) > 1
    expected = ElasticNet(0.5 / 500, l1_ratio=1.0, tol=1e-12, max_iter=200_000, fit_intercept=False).fit(x, y[:, 0])
    np.testing.assert_allclose(weight.numpy(), expected.coef_, atol=1e-4)
    assert weight[40] > 1 > -1 > weight[41]
