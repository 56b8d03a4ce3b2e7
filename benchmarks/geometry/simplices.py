"""Volumes of 100,000 simplices from a pool, against a loop that takes one determinant after the other."""

import math
import time
from collections.abc import Callable

import numpy as np
import torch
from rich.console import Console

from src.geometry.simplices.drawing import draw_simplices
from src.geometry.simplices.volumes import VertexPool
from src.report.tables import Cell, Table
from src.report.terminal import print_table

N_SIMPLICES = 100_000
POOL = 2048
# simplices of the loop: its time grows with their number, so a part is measured
LOOPED = 2000


def loop(points: np.ndarray, simplices: np.ndarray) -> np.ndarray:
    """The straightforward way: distances in two loops, one Cayley-Menger determinant a simplex."""
    k = simplices.shape[1] - 1
    factor = (-1) ** (k + 1) / (2**k * math.factorial(k) ** 2)
    volumes = np.zeros(len(simplices))
    for place, simplex in enumerate(simplices):
        vertices = points[simplex]
        bordered = np.ones((k + 2, k + 2))
        np.fill_diagonal(bordered, 0)
        for i in range(k + 1):
            for j in range(i + 1, k + 1):
                bordered[i + 1, j + 1] = bordered[j + 1, i + 1] = np.sum((vertices[i] - vertices[j]) ** 2)
        volumes[place] = math.sqrt(max(factor * np.linalg.det(bordered), 0.0))
    return volumes


def batched_determinants(points: np.ndarray, simplices: np.ndarray) -> np.ndarray:
    """The same without loops: edges gathered, one batched determinant of their Gram matrices."""
    k = simplices.shape[1] - 1
    volumes = []
    for some in np.array_split(simplices, max(1, len(simplices) // 2000)):
        edges = points[some[:, 1:]] - points[some[:, :1]]
        volumes.append(np.sqrt(np.linalg.det(edges @ edges.transpose(0, 2, 1))) / math.factorial(k))
    return np.concatenate(volumes)


def pool(points: np.ndarray, simplices: np.ndarray) -> np.ndarray:
    """Strata's way, the Gram matrix of the pool included."""
    return VertexPool(torch.from_numpy(points)).log_volumes(torch.from_numpy(simplices)).exp().numpy()


def least(run: Callable[[], np.ndarray], repeats: int = 3) -> tuple[float, np.ndarray]:
    """Least CPU time of several runs, and what the last one gave."""
    times = []
    for _ in range(repeats):
        start = time.process_time()
        result = run()
        times.append(time.process_time() - start)
    return min(times), result


def measure(console: Console) -> None:
    """CPU time per simplex of all ways, one thread, and how far the volumes differ."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    rows: list[list[Cell]] = []
    for k in (4, 8):
        for d in (128, 512, 2048):
            draws = np.random.default_rng(0)
            points = draws.standard_normal((POOL, d))
            simplices = draw_simplices(POOL, k, N_SIMPLICES, draws)
            ours, volumes = least(lambda points=points, simplices=simplices: pool(points, simplices))
            some = simplices[:LOOPED]
            looped, expected = least(lambda points=points, some=some: loop(points, some), repeats=1)
            batched, _ = least(
                lambda points=points, simplices=simplices: batched_determinants(points, simplices[:20_000]), repeats=1
            )
            per_simplex = [looped / LOOPED, batched / 20_000, ours / N_SIMPLICES]
            error = float(np.abs(volumes[:LOOPED] / expected - 1).max())
            microseconds = [1e6 * each for each in per_simplex]
            rows.append([k, d, *microseconds, ours, per_simplex[0] / per_simplex[2], error])
    torch.set_num_threads(threads)
    columns = ["k", "d", "loop (µs)", "batched det (µs)", "Strata (µs)", "all 100,000 (s)", "loop / Strata", "error"]
    caption = f"CPU time per simplex; the loop on {LOOPED:,} of them. error: largest relative difference of a volume."
    print_table(Table(f"{N_SIMPLICES:,} simplices from {POOL:,} points", columns, rows, caption), console)
