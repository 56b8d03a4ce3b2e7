"""Time of the lasso and the elastic net with many outputs against scikit-learn's loop over outputs.

    python -m benchmarks.bench_lasso            # d = 128, 256 and 512 (about 20 minutes)
    python -m benchmarks.bench_lasso --quick    # d = 64, half a minute

Both start from the same standardised float64 rows in memory, whose inputs are correlated as residual streams are (the
eigenvalues of their covariance fall geometrically to 1 / condition of the largest), fit every output, and stop at the
same relative duality gap. The time includes the second moments (Strata) or one Gram matrix (scikit-learn). Alphas are
those that leave about 99.9, 98, 90 and 50 % (10 % too, at 1e4) of the coefficients at 0: one at a time from zeros, and
as a path with warm starts on both sides (sklearn: ElasticNet(precompute=gram, warm_start=True), coordinate descent in
compiled code, output by output). The contenders take turns, and medians are shown; above 1x Strata is faster. What
Strata compiles at the first call on a machine is timed apart, and said above the table.
"""

import argparse
import statistics
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import ElasticNet
from threadpoolctl import threadpool_limits

from src.activations.moments import Moments
from src.hook_points import HookPoint
from src.transport.sparse_solvers import solve_elastic_nets

ZEROS = (0.999, 0.98, 0.9, 0.5)
FEW = (0.1,)  # coordinate descent takes minutes for these at a condition number of 1e6
TOL, MAX_ITER = 1e-7, 500_000
X, Y = HookPoint("resid_post", 0), HookPoint("resid_post", 1)

Weights = list[np.ndarray]


@dataclass(frozen=True)
class Data:
    """Standardised rows before and after a block."""

    x: np.ndarray
    y: np.ndarray

    @classmethod
    def of(cls, n: int, d: int, condition: float) -> "Data":
        """Targets x + 0.6 tanh(x W) + noise, for x of the given condition number of the covariance."""
        generator = torch.Generator().manual_seed(0)

        def normal(*shape: int) -> torch.Tensor:
            return torch.randn(shape, generator=generator, dtype=torch.float64)

        spectrum = torch.logspace(0, -np.log10(condition) / 2, d, dtype=torch.float64)
        x = normal(n, d) * spectrum @ torch.linalg.qr(normal(d, d))[0]
        x = x / x.std()
        y = x + 0.6 * torch.tanh(x @ normal(d, d) / d**0.5) + 0.15 * normal(n, d)
        return cls(*(((rows - rows.mean(0)) / rows.std(0, correction=0)).numpy() for rows in (x, y)))

    def alphas(self, l1_ratio: float, zeros: Sequence[float]) -> list[float]:
        """Those that leave about these shares of the coefficients at 0."""
        solver, found = _Solver(self, tol=1e-3), []
        start, largest = None, np.abs(self.x.T @ self.y).max() / (len(self.x) * l1_ratio)
        for alpha in largest * np.geomspace(0.9, 1e-5, 60):
            start = solver(alpha, l1_ratio, start)
            found.append((float((start == 0).double().mean()), alpha))
            if found[-1][0] < min(zeros):
                break
        return [min(found, key=lambda each: abs(each[0] - share))[1] for share in zeros]

    def objective(self, weight: np.ndarray, alpha: float, l1_ratio: float) -> np.ndarray:
        """scikit-learn's, per output, in units of that of a weight of 0."""
        residual = ((self.y - self.x @ weight) ** 2).sum(0) / (2 * len(self.x))
        penalty = alpha * (l1_ratio * np.abs(weight).sum(0) + (1 - l1_ratio) / 2 * (weight**2).sum(0))
        return (residual + penalty) / ((self.y**2).sum(0) / (2 * len(self.x)))


class _Solver:
    """Strata: moments, and what is solved from them."""

    def __init__(self, data: Data, tol: float = TOL) -> None:
        n, self.tol = len(data.x), tol
        moments = Moments.empty([(X, X), (X, Y)], {X: data.x.shape[1], Y: data.y.shape[1]}, 1, precision="float64")
        moments.update({X: torch.from_numpy(data.x), Y: torch.from_numpy(data.y)}, torch.zeros(n, dtype=torch.int64))
        total = moments.subset([0])
        self.n, self.sums = n, (total.scatter(X, X), total.scatter(X, Y), total.square_scatter(Y))

    def __call__(self, alpha: float, l1_ratio: float, start: torch.Tensor | None) -> torch.Tensor:
        l1 = torch.full_like(self.sums[2], alpha * l1_ratio * self.n)
        l2 = torch.full_like(self.sums[2], alpha * (1 - l1_ratio) * self.n)
        solution = solve_elastic_nets(*self.sums, l1, l2, start, MAX_ITER, self.tol)
        assert solution.converged.all()
        return solution.weight


def strata(data: Data, alphas: Sequence[float], l1_ratio: float) -> Weights:
    solver, start, weights = _Solver(data), None, []
    for alpha in alphas:
        start = solver(alpha, l1_ratio, start)
        weights.append(start.numpy())
    return weights


def scikit_learn(data: Data, alphas: Sequence[float], l1_ratio: float) -> Weights:
    # a dict, since scikit-learn's type of precompute is read as bool alone
    how: dict[str, Any] = {"precompute": data.x.T @ data.x, "fit_intercept": False, "warm_start": True}
    model = ElasticNet(l1_ratio=l1_ratio, tol=TOL, max_iter=MAX_ITER, **how)
    return [model.set_params(alpha=alpha).fit(data.x, data.y).coef_.T.copy() for alpha in alphas]


def compare(
    table: Table, n: int, d: int, condition: float, l1_ratio: float, zeros: Sequence[float], repeats: int
) -> None:
    """Add a row for every alpha alone, and one for the path."""
    data = Data.of(n, d, condition)
    alphas = data.alphas(l1_ratio, zeros)
    for chosen in (*([alpha] for alpha in alphas), alphas):
        contenders: tuple[Callable[..., Weights], ...] = (strata, scikit_learn)
        cpu, wall, found = ({each: [] for each in contenders} for _ in range(3))
        for turn in range(repeats):
            for contender in contenders[:: -1 if turn % 2 else 1]:
                wall_start, cpu_start = time.perf_counter(), time.process_time()
                found[contender] = contender(data, chosen, l1_ratio)
                cpu[contender].append(time.process_time() - cpu_start)
                wall[contender].append(time.perf_counter() - wall_start)
        difference = max(
            np.abs(data.objective(mine, alpha, l1_ratio) - data.objective(peer, alpha, l1_ratio)).max()
            for alpha, mine, peer in zip(chosen, found[strata], found[scikit_learn], strict=True)
        )
        assert difference < 1e-6, f"objectives differ by {difference}"
        seconds = [statistics.median(clock[each]) for clock in (cpu, wall) for each in contenders]
        zero_share = f"{(found[strata][0] == 0).mean():.1%}"
        table.add_row(
            *(f"{d}", f"{condition:.0e}", f"{l1_ratio:g}", zero_share if len(chosen) == 1 else "path"),
            *(f"{value:.3f}" for value in seconds),
            *(f"{theirs / mine:.2f}x" for mine, theirs in (seconds[:2], seconds[2:])),
            f"{difference:.0e}",
            end_section=len(chosen) > 1,
        )


def first_call() -> float:
    """Seconds of the smallest problem, the first time."""
    start, one = time.perf_counter(), torch.ones(1, dtype=torch.float64)
    solve_elastic_nets(one[None], one[None], one, one / 2, 0 * one, None, MAX_ITER, TOL)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small sizes: does it run, not how fast is it")
    parser.add_argument("--repeats", type=int, default=3, help="times that each contender runs (default: 3)")
    parser.add_argument("--width", type=int, choices=[128, 256, 512, 768], help="only this d")
    parser.add_argument("--threads", type=int, default=1, help="of both contenders (default: 1)")
    arguments = parser.parse_args()
    rows = {64: 2000} if arguments.quick else {128: 4000, 256: 8000, 512: 6000}
    widths = [arguments.width] if arguments.width else list(rows)
    console, threads = Console(), arguments.threads
    torch.set_num_threads(threads)
    console.print(
        f"First call in this process, which loads numba, and compiles if no cache is found: {first_call():.1f} s"
    )
    table = Table(title=f"All outputs, duality gap {TOL:g}, {threads} thread(s), medians of {arguments.repeats} turns")
    columns = ("d", "condition", "l1 ratio", "zeros", "Strata CPU s", "sklearn CPU s", "Strata s", "sklearn s")
    for column in (*columns, "CPU time ratio", "time ratio", "max objective diff"):
        table.add_column(column, justify="right")
    warnings.simplefilter("error", ConvergenceWarning)
    with threadpool_limits(threads), console.status("fitting") as status:
        for d in widths:
            for condition, l1_ratio, zeros in ((1e4, 1.0, ZEROS + FEW), (1e6, 1.0, ZEROS), (1e6, 0.5, ZEROS)):
                status.update(f"d = {d}, condition {condition:.0e}, l1_ratio = {l1_ratio}")
                compare(table, rows.get(d, 6000), d, condition, l1_ratio, zeros, arguments.repeats)
    console.print(table)


if __name__ == "__main__":
    main()
