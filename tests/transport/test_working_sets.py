import numpy as np
import pytest
import torch
from sklearn.linear_model import ElasticNet

from src.transport import working_sets
from src.transport.working_sets import solve_on_working_sets
from tests.fixtures.elastic_net_problems import correlated_rows, from_seed


def test_columns_do_not_depend_on_their_company(monkeypatch):
    gram, cross, square = from_seed(0, 60, 10, 23, 0.9)
    l1 = torch.linspace(0.01, 5, 23, dtype=torch.float64)
    l2 = torch.linspace(0, 3, 23, dtype=torch.float64)
    problems = (gram, cross.T, square, l1, l2, torch.zeros_like(cross.T), 10_000, 1e-13)
    together, _ = solve_on_working_sets(*problems)
    monkeypatch.setattr(working_sets, "_BLOCK", 4)
    apart, _ = solve_on_working_sets(*problems)
    torch.testing.assert_close(apart, together, rtol=1e-7, atol=1e-9)


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


def test_the_sparse_are_solved_on_sets_of_their_own_and_others_together(solved_on):
    x, y = (torch.from_numpy(rows) for rows in correlated_rows(400, 80, 1e4))
    cross, square = x.T @ y, y.square().sum(0)
    l1 = cross.abs().amax(0) * torch.logspace(-0.05, -3, 80, dtype=torch.float64)
    zeros = torch.zeros_like(cross.T)
    _, converged = solve_on_working_sets(x.T @ x, cross.T, square, l1, 0 * l1, zeros, 20_000, 1e-7)
    assert converged.all()
    assert {width for _, width in solved_on["shared"]} == {80}
    assert all(width <= 20 for _, width in solved_on["own"])
    assert sum(count for count, _ in solved_on["shared"]) < 80


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
    start = torch.zeros_like(cross.T)
    weight = solve_on_working_sets(
        rows.T @ rows, cross.T, output.square().sum(0), l1, torch.zeros_like(l1), start, 50_000, 1e-12
    )[0][0]
    assert len(solved_on["own"]) > 1
    expected = ElasticNet(0.5 / 500, l1_ratio=1.0, tol=1e-12, max_iter=200_000, fit_intercept=False).fit(x, y[:, 0])
    np.testing.assert_allclose(weight.numpy(), expected.coef_, atol=1e-4)
    assert weight[40] > 1 > -1 > weight[41]
