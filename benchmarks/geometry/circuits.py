"""QK forms per head: low-rank QR against the dense d_model x d_model product, CPU time of both in one run."""

import time
from collections.abc import Callable
from typing import TypeVar

import torch
from rich.console import Console

from src.geometry.circuits.forms import form_statistics

D_MODEL, D_HEAD, N_HEADS = 1024, 64, 16
# the dense way is the same for every head
_DENSE_HEADS = 2

Result = TypeVar("Result")


def measure(console: Console) -> None:
    """Time both on one layer, and check that eigenvalue mass, symmetry and stable rank agree."""
    draws = torch.Generator().manual_seed(0)
    q, k = (torch.randn(N_HEADS, D_HEAD, D_MODEL, generator=draws, dtype=torch.float64) for _ in range(2))
    form_statistics(q[:1], k[:1])
    ours, found = _timed(lambda: form_statistics(q, k))
    dense, expected = _timed(lambda: [_dense(q[head], k[head]) for head in range(_DENSE_HEADS)])
    of_head, dense_of_head = ours / N_HEADS, dense / _DENSE_HEADS
    difference = 0.0
    for head, values in enumerate(expected):
        for name, value in values.items():
            ours_value = float(found.by_name()[name][head])
            difference = max(difference, abs(ours_value - value) / abs(value))
    assert difference < 1e-9, f"the two ways differ by {difference:.1e}"
    console.print(
        f"circuits: QK per head at d_model {D_MODEL}, d_head {D_HEAD}: {1e3 * of_head:.2f} ms by QR, "
        f"{1e3 * dense_of_head:.0f} ms dense ({dense_of_head / of_head:.0f} times); relative difference "
        f"{difference:.0e}"
    )


def _dense(q: torch.Tensor, k: torch.Tensor) -> dict[str, float]:
    form = q.T @ k
    eigenvalues = torch.linalg.eigvalsh((form + form.T) / 2)
    energies = torch.linalg.svdvals(form).square()
    return {
        "positive_mass": float(eigenvalues.clamp_min(0).sum() / eigenvalues.abs().sum()),
        "symmetry": float((form * form.T).sum() / energies.sum()),
        "stable_rank": float(energies.sum() / energies[0]),
    }


def _timed(work: Callable[[], Result]) -> tuple[float, Result]:
    start = time.process_time()
    result = work()
    return time.process_time() - start, result
