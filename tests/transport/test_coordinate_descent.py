import ast
from pathlib import Path

import numba
import numpy as np
import pytest
import torch
from sklearn.linear_model import ElasticNet, enet_path

from src.transport import coordinate_kernels
from src.transport.coordinate_descent import descend
from tests.fixtures.elastic_net_problems import correlated_rows, from_seed


def problem_of(x, y):
    """X'X, Y'X and y'y of rows."""
    x, y = torch.from_numpy(x), torch.from_numpy(y)
    return x.T @ x, y.T @ x, y.square().sum(0)


def solve(gram, cross, square, l1, l2=0.0, max_iter=10_000, tol=1e-12, start=None):
    l1, l2 = (torch.as_tensor(each, dtype=torch.float64).expand(len(cross)) for each in (l1, l2))
    return descend(gram, cross, square, l1, l2, torch.zeros_like(cross) if start is None else start, max_iter, tol)


@pytest.mark.parametrize("l1_ratio", [1.0, 0.5, 1e-3])
def test_a_path_with_warm_starts_equals_scikit_learn(l1_ratio):
    n, d = 300, 40
    x, y = correlated_rows(n, d, 1e4)
    gram, cross, square = problem_of(x, y)
    alphas = np.abs(cross).max() / (n * l1_ratio) * np.geomspace(0.9, 1e-3, 5)
    start, how = None, {"l1_ratio": l1_ratio, "precompute": gram.numpy(), "tol": 1e-13, "max_iter": 200_000}
    paths = [enet_path(x, y[:, output], alphas=alphas, **how)[1] for output in range(0, d, 4)]
    for place, alpha in enumerate(alphas):
        start, converged = solve(gram, cross, square, n * alpha * l1_ratio, n * alpha * (1 - l1_ratio), start=start)
        assert converged.all()
        expected = np.stack([path[:, place] for path in paths])
        np.testing.assert_allclose(x @ start[::4].numpy().T, x @ expected.T, rtol=0, atol=2e-5)


def test_bits_depend_neither_on_company_nor_on_threads():
    gram, cross, square = problem_of(*correlated_rows(200, 30, 1e4))
    l1 = torch.linspace(0.1, 30, len(cross), dtype=torch.float64)
    before = torch.get_num_threads()
    found = []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            found.append(solve(gram, cross, square, l1)[0])
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*found)
    for column in (0, 17):
        one = slice(column, column + 1)
        assert torch.equal(solve(gram, cross[one], square[one], l1[one])[0], found[0][one])


def test_a_penalty_above_all_correlations_leaves_nothing():
    gram, cross, square = problem_of(*correlated_rows(200, 30, 1e4))
    strongest = cross.abs().amax(1)
    weight, converged = solve(gram, cross, square, strongest, max_iter=0)
    assert converged.all()
    assert not weight.any()
    weight, _ = solve(gram, cross, square, (1 - 1e-4) * strongest)
    assert (weight != 0).sum(1).tolist() == [1] * 30
    # from a start that uses all inputs
    weight, converged = solve(gram, cross, square, 1.001 * strongest, start=torch.ones_like(cross))
    assert converged.all()
    assert not weight.any()


@pytest.mark.parametrize("l2", [0.0, 5.0])
def test_inputs_that_occur_twice_share_what_they_explain(l2):
    x, y = correlated_rows(200, 12, 1e2)
    alone = problem_of(x, y)
    weight, converged = solve(*problem_of(np.hstack([x, x]), y), 2.0, 2 * l2)
    expected, _ = solve(*alone, 2.0, l2)
    assert converged.all()
    # two halves cost half the square of a whole
    np.testing.assert_allclose(weight[:, :12] + weight[:, 12:], expected, atol=1e-5)
    if l2:
        np.testing.assert_allclose(weight[:, :12], weight[:, 12:], atol=1e-5)


def test_inputs_without_products_keep_coefficients_of_zero():
    gram, cross, square = problem_of(*correlated_rows(200, 12, 1e2))
    expected, _ = solve(gram, cross, square, 2.0)
    gram = torch.block_diag(gram, torch.eye(1, dtype=torch.float64))
    weight, converged = solve(gram, torch.nn.functional.pad(cross, (0, 1)), square, 2.0)
    assert converged.all()
    assert not weight[:, -1].any()
    assert torch.equal(weight[:, :-1], expected)


def test_more_inputs_than_rows():
    x, y = correlated_rows(20, 50, 1e2)
    gram, cross, square = problem_of(x, y)
    weight, converged = solve(gram, cross, square, 0.5, tol=1e-9)
    assert converged.all()
    truth = ElasticNet(0.5 / 20, l1_ratio=1.0, tol=1e-12, max_iter=200_000, fit_intercept=False)
    expected = np.stack([truth.fit(x, y[:, output]).coef_ for output in range(10)])
    np.testing.assert_allclose(x @ weight[:10].numpy().T, x @ expected.T, atol=1e-3)


def test_newton_steps_spare_sweeps():
    x, y = correlated_rows(400, 80, 1e6)
    gram, cross, square = problem_of(x, y)
    l1 = 0.003 * cross.abs().amax(1)
    assert solve(gram, cross, square, l1, max_iter=300, tol=1e-8)[1].all()
    plain = ElasticNet(float(l1[5]) / 400, l1_ratio=1.0, tol=1e-8, max_iter=10_000, fit_intercept=False)
    assert plain.fit(x, y[:, 5]).n_iter_ > 1000


def test_a_goal_below_rounding_is_given_up():
    gram, cross, square = from_seed(0, 60, 10, 3, 0.9)
    _, converged = solve(gram, cross.T.contiguous(), square, 0.5, max_iter=2000, tol=-1.0)
    assert not converged.any()


def test_factors_of_dependent_rows_solve_for_the_others():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((30, 5))
    x[:, 3] = x[:, 0] - 2 * x[:, 1]
    matrix, right = x.T @ x, x.T @ rng.standard_normal(30)
    solution = right.copy()
    coordinate_kernels._solve_positive(matrix.copy(), 5, solution)
    assert solution[3] == 0
    np.testing.assert_allclose(matrix @ solution, right, atol=1e-9)


def test_numba_s_cache_is_done_without_where_nothing_can_be_written(monkeypatch):
    def compiler(**options):
        if options.pop("cache", False):
            raise RuntimeError("cannot cache function: no locator available")
        return numba.njit(**options)

    monkeypatch.setattr(coordinate_kernels, "njit", compiler)
    assert coordinate_kernels._compiled(lambda x: x + 1)(2) == 3


def test_numba_is_imported_when_something_is_solved_and_not_before():
    kernels = {"coordinate_kernels", "reduced_rips", "cocycle_kernels"}
    for path in (Path(__file__).resolve().parents[2] / "src").rglob("*.py"):
        if path.stem in kernels:
            continue
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            names = [name.name for name in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
            names += [str(node.module)] if isinstance(node, ast.ImportFrom) else []
            assert not {"numba", *kernels} & {name.rpartition(".")[2] for name in names}, path
