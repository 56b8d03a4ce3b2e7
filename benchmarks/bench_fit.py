"""CPU time of fitting ridge transport operators against scikit-learn's GridSearchCV(Ridge), one thread each.

    python -m benchmarks.bench_fit            # d = 256 and 768: one pair, and 4 sources x 4 targets (about 10 minutes)
    python -m benchmarks.bench_fit --quick    # small sizes, half a minute
    python -m benchmarks.bench_fit --full     # GridSearchCV for all 16 pairs, instead of 2 pairs times 8

Both choose among the same 8 alphas by R2 over the same 5 folds of whole sequences, and refit on all rows. scikit-learn
is given float64 and float32 arrays, Strata takes its products in float64 and float32. Differences are taken against
scikit-learn in float64.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV, PredefinedSplit
from threadpoolctl import threadpool_limits

from src.activations.moments import Moments
from src.activations.products import Precision
from src.hook_points import HookPoint
from src.transport.affine import RegularizationPath
from src.transport.solvers import fit_ridge_path

ALPHAS = (0.1, 1.0, 10.0, 100.0, 1000.0, 2000.0, 5000.0, 10000.0)
N_FOLDS = 5
SEQUENCE_LENGTH = 120
# A part of a store, as the training stage reads it.
ROWS_PER_UPDATE = 6000
PRECISIONS: tuple[Precision, ...] = ("float64", "float32")

Pair = tuple[HookPoint, HookPoint]
Result = TypeVar("Result")


@dataclass(frozen=True)
class Searched:
    """What GridSearchCV found for one pair."""

    scores: np.ndarray
    alpha: float
    coefficients: np.ndarray


def residual_stream(n: int, d: int, layers: int) -> dict[HookPoint, torch.Tensor]:
    """float32 rows of h' = h + 0.6 tanh(h W) + 0.15 noise; dimension 3 has mean 2000 and scale 300 in every layer."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator)

    outlier = 2000 + 300 * normal(n)
    h, rows = normal(n, d), {}
    for layer in range(layers):
        rows[HookPoint("resid_post", layer)] = torch.cat([h[:, :3], (outlier + 30 * normal(n))[:, None], h[:, 4:]], 1)
        h = h + 0.6 * torch.tanh(h @ normal(d, d) / d**0.5) + 0.15 * normal(n, d)
    return rows


def cpu_seconds(work: Callable[[], Result]) -> tuple[float, Result]:
    """CPU seconds, the better of two runs (other processes disturb the caches), and the result."""

    def once() -> tuple[float, Result]:
        start = time.process_time()
        result = work()
        return time.process_time() - start, result

    return min((once(), once()), key=lambda run: run[0])


def fit_all(
    rows: dict[HookPoint, torch.Tensor], pairs: list[Pair], group: torch.Tensor, precision: Precision
) -> dict[Pair, RegularizationPath]:
    """Moments and ridge paths of all pairs, as the training stage computes them."""
    sources = sorted({source for source, _ in pairs})
    widths = {h: x.shape[1] for h, x in rows.items()}
    moments = Moments.empty([*((s, s) for s in sources), *pairs], widths, N_FOLDS, precision=precision)
    for part in torch.arange(len(group)).split(ROWS_PER_UPDATE):
        first, last = int(part[0]), int(part[-1]) + 1
        moments.update({h: rows[h][first:last] for h in moments.hook_points}, group[first:last])
    paths = {}
    for source in sources:
        targets = [target for s, target in pairs if s == source]
        fitted = fit_ridge_path(moments, source, targets, range(N_FOLDS), ALPHAS, relative=False)
        paths |= {(source, target): path for target, path in fitted.items()}
    return paths


def search(x: np.ndarray, y: np.ndarray, group: np.ndarray) -> Searched:
    grid = GridSearchCV(Ridge(), {"alpha": list(ALPHAS)}, cv=PredefinedSplit(group), scoring="r2", n_jobs=1)
    grid.fit(x, y)
    results: dict[str, Any] = grid.cv_results_
    scores = np.stack([results[f"split{fold}_test_score"] for fold in range(N_FOLDS)])
    return Searched(scores, grid.best_params_["alpha"], grid.best_estimator_.coef_.T)


def compare(table: Table, n: int, d: int, side: int, searched_pairs: int) -> None:
    """Add the rows for side x side pairs at one size to the table."""
    points = [HookPoint("resid_post", layer) for layer in range(2 * side)]
    pairs = [(points[layer], points[layer + k]) for layer in range(side) for k in range(1, side + 1)]
    rows = residual_stream(n, d, 2 * side)
    group = torch.arange(n) // SEQUENCE_LENGTH % N_FOLDS
    timed = pairs[:: max(1, len(pairs) // searched_pairs)][:searched_pairs]
    peers: dict[str, float] = {}
    truth: dict[Pair, Searched] = {}
    for dtype in (np.float64, np.float32):
        seconds = 0.0
        for pair in timed:
            x, y = (rows[h].numpy().astype(dtype) for h in pair)
            cost, found = cpu_seconds(lambda x=x, y=y: search(x, y, group.numpy()))
            seconds += cost
            truth.setdefault(pair, found)
        peers[dtype.__name__] = seconds * len(pairs) / len(timed)
    for precision in PRECISIONS:
        cost, paths = cpu_seconds(lambda precision=precision: fit_all(rows, pairs, group, precision))
        same = all(paths[pair].fit.alpha == truth[pair].alpha for pair in timed)
        score = max(np.abs(paths[pair].scores["uniform"].numpy() - truth[pair].scores).max() for pair in timed)
        coefficients = max(
            np.linalg.norm(paths[pair].fit.weight.numpy() - truth[pair].coefficients)
            / np.linalg.norm(truth[pair].coefficients)
            for pair in timed
        )
        table.add_row(
            *(f"{d}", f"{n:,}", f"{len(pairs)}", precision, f"{cost:.2f}"),
            *(f"{peers[name]:.1f}{'*' if len(timed) < len(pairs) else ''}" for name in ("float64", "float32")),
            *(f"{peers[name] / cost:.1f}x" for name in ("float64", "float32")),
            *(f"{score:.0e}", f"{coefficients:.0e}", "yes" if same else "NO"),
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small sizes")
    parser.add_argument("--full", action="store_true", help="run GridSearchCV on all 16 pairs")
    arguments = parser.parse_args()
    sizes = [(3000, 64), (6000, 128)] if arguments.quick else [(14_880, 256), (24_000, 768)]
    console = Console()
    table = Table(title=f"Ridge, {len(ALPHAS)} alphas, {N_FOLDS} folds, refit: CPU seconds on one thread")
    columns = ("d", "rows", "pairs", "Strata products", "Strata", "GridSearchCV f64", "GridSearchCV f32")
    columns += ("f64 / Strata", "f32 / Strata", "max |CV R2 diff|", "rel. coef diff", "same alpha")
    for column in columns:
        table.add_column(column, justify="right")
    torch.set_num_threads(1)
    with threadpool_limits(1), console.status("fitting") as status:
        # the first call of each side pays for lazy imports and thread pools
        compare(Table(*columns), 600, 16, 1, 1)
        for n, d in sizes:
            for side in (1, 4):
                status.update(f"d = {d}, {side * side} pairs")
                compare(table, n, d, side, searched_pairs=side * side if arguments.full else 2)
    console.print(table)
    if not arguments.full:
        console.print("* GridSearchCV was run on 2 of the 16 pairs, and its time multiplied by 8 (--full runs all).")


if __name__ == "__main__":
    main()
