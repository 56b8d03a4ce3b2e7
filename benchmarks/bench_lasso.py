"""CPU time of lasso and elastic net with many outputs against scikit-learn's loop over outputs, one thread each.

    python -m benchmarks.bench_lasso            # d = 256 and 512 (about 10 minutes)
    python -m benchmarks.bench_lasso --quick    # d = 96, half a minute

Both start from the same standardised float64 rows in memory and fit every output with every alpha of a path. Strata
makes the moments and solves all outputs together, each alpha warm-started from the one above it. sklearn's ElasticNet
(precompute=True: one Gram matrix, then a loop of coordinate descent in compiled code over the outputs) is timed twice:
fit by fit for every alpha, as GridSearchCV would call it, and with warm_start=True along the same path.
Both stop at the same relative duality gap; the objectives are compared at the end. Coordinate descent skips zeros, so
scikit-learn wins where nearly all coefficients are 0; Strata wins on the smaller alphas, which take most of the time.
"""

import argparse
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import ElasticNet
from threadpoolctl import threadpool_limits

from src.activations.moments import Moments
from src.hook_points import HookPoint
from src.transport.fista import solve_elastic_nets

RELATIVE_ALPHAS = (0.1, 0.03, 0.01, 0.003, 0.001)
TOL, MAX_ITER = 1e-7, 20_000
X, Y = HookPoint("resid_post", 0), HookPoint("resid_post", 1)

Result = TypeVar("Result")


@dataclass(frozen=True)
class Fits:
    """CPU seconds and weight [d_in, d_out] of every alpha of a path."""

    seconds: list[float]
    weights: list[np.ndarray]


def rows_of(n: int, d: int) -> tuple[np.ndarray, np.ndarray]:
    """Standardised rows before and after a block: inputs with a power-law spectrum, y = x + 0.6 tanh(x W) + noise."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    spectrum = torch.arange(1, d + 1, dtype=torch.float64) ** -0.5
    x = 5 * normal(n, d) * spectrum @ torch.linalg.qr(normal(d, d))[0] + 0.1 * normal(n, d)
    y = x + 0.6 * torch.tanh(x @ normal(d, d) / d**0.5) + 0.15 * normal(n, d)
    x, y = ((rows - rows.mean(0)) / rows.std(0, correction=0) for rows in (x, y))
    return x.numpy(), y.numpy()


def timed(work: Callable[[], Result]) -> tuple[float, Result]:
    start = time.process_time()
    result = work()
    return time.process_time() - start, result


def ours(x: np.ndarray, y: np.ndarray, alphas: list[float], l1_ratio: float) -> tuple[float, Fits]:
    """Seconds for the moments, and the path along them."""

    def accumulate() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        moments = Moments.empty([(X, X), (X, Y)], {X: x.shape[1], Y: y.shape[1]}, 1, precision="float64")
        moments.update({X: torch.from_numpy(x), Y: torch.from_numpy(y)}, torch.zeros(len(x), dtype=torch.int64))
        total = moments.subset([0])
        return total.scatter(X, X), total.scatter(X, Y), total.square_scatter(Y)

    cost, (gram, cross, square) = timed(accumulate)
    fits, start = Fits([], []), None
    for alpha in alphas:
        l1 = torch.full_like(square, alpha * l1_ratio * len(x))
        l2 = torch.full_like(square, alpha * (1 - l1_ratio) * len(x))

        def solve(l1: torch.Tensor = l1, l2: torch.Tensor = l2, start: torch.Tensor | None = start) -> torch.Tensor:
            solution = solve_elastic_nets(gram, cross, square, l1, l2, start, MAX_ITER, TOL)
            assert solution.converged.all()
            return solution.weight

        seconds, start = timed(solve)
        fits.seconds.append(seconds)
        fits.weights.append(start.numpy())
    return cost, fits


def theirs(x: np.ndarray, y: np.ndarray, alphas: list[float], l1_ratio: float, warm: bool) -> Fits:
    fits = Fits([], [])
    model = ElasticNet(l1_ratio=l1_ratio, precompute=True, tol=TOL, max_iter=MAX_ITER, warm_start=warm)
    for alpha in alphas:
        seconds, _ = timed(lambda alpha=alpha: model.set_params(alpha=alpha).fit(x, y))
        fits.seconds.append(seconds)
        fits.weights.append(model.coef_.T.copy())
    return fits


def objective(x: np.ndarray, y: np.ndarray, weight: np.ndarray, alpha: float, l1_ratio: float) -> np.ndarray:
    """scikit-learn's, per output, in units of that of a weight of 0."""
    residual = ((y - x @ weight) ** 2).sum(0) / (2 * len(x))
    penalty = alpha * (l1_ratio * np.abs(weight).sum(0) + (1 - l1_ratio) / 2 * (weight**2).sum(0))
    return (residual + penalty) / ((y**2).sum(0) / (2 * len(x)))


def compare(table: Table, n: int, d: int, l1_ratio: float) -> None:
    """Add a row for every alpha, and one for the path."""
    x, y = rows_of(n, d)
    alphas = [relative * np.abs(x.T @ y).max() / (n * l1_ratio) for relative in RELATIVE_ALPHAS]
    moments, strata = ours(x, y, alphas, l1_ratio)
    cold, warm = (theirs(x, y, alphas, l1_ratio, warm) for warm in (False, True))
    for place, alpha in enumerate(alphas):
        weights = (strata.weights[place], cold.weights[place], warm.weights[place])
        found, *peers = (objective(x, y, weight, alpha, l1_ratio) for weight in weights)
        difference = max(np.abs(found - peer).max() for peer in peers)
        assert difference < 1e-6, f"objectives differ by {difference}"
        seconds = (strata.seconds[place], cold.seconds[place], warm.seconds[place])
        table.add_row(
            *(f"{d}", f"{n:,}", f"{l1_ratio:g}", f"{RELATIVE_ALPHAS[place]:g}"),
            f"{(weights[0] == 0).mean():.1%}",
            *(f"{value:.2f}" for value in seconds),
            *(f"{value / seconds[0]:.1f}x" for value in seconds[1:]),
            f"{difference:.0e}",
        )
    totals = (moments + sum(strata.seconds), sum(cold.seconds), sum(warm.seconds))
    table.add_row(
        *(f"{d}", f"{n:,}", f"{l1_ratio:g}", "all, with moments", ""),
        *(f"{value:.2f}" for value in totals),
        *(f"{value / totals[0]:.1f}x" for value in totals[1:]),
        end_section=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small sizes")
    sizes = [(4000, 96)] if parser.parse_args().quick else [(8000, 256), (6000, 512)]
    console = Console()
    table = Table(title=f"Lasso and elastic net, all outputs, duality gap {TOL:g}: CPU seconds on one thread")
    columns = ("d", "rows", "l1 ratio", "relative alpha", "zeros", "Strata", "sklearn", "sklearn warm")
    for column in (*columns, "sklearn / Strata", "warm / Strata", "max objective diff"):
        table.add_column(column, justify="right")
    torch.set_num_threads(1)
    warnings.simplefilter("error", ConvergenceWarning)
    with threadpool_limits(1), console.status("fitting") as status:
        for n, d in sizes:
            for l1_ratio in (1.0, 0.5):
                status.update(f"d = {d}, l1_ratio = {l1_ratio}")
                compare(table, n, d, l1_ratio)
    console.print(table)


if __name__ == "__main__":
    main()
