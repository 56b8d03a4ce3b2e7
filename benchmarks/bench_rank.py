"""CPU time of the matched-rank analysis: all ranks at once from moments, against one fit per rank as in the reference.

    python -m benchmarks.bench_rank            # d = 256 and 768, about 5 minutes
    python -m benchmarks.bench_rank --quick    # small sizes, half a minute

The reference (activation-transport-operators, matched_rank_analysis.py) goes through 25 ranks; for each it decomposes
the operator and the covariance of y anew, predicts all rows, and whitens the errors: one curve, the truncated operator
in the whitened metric. *Hoisted* is the same with both decompositions made once, and only the rows predicted per rank.
Each is timed on a few ranks spread over 1..d, and multiplied. Strata is timed from the rows: the moments of train and
test, then `match_ranks`, which gives every rank of three families in two metrics, both ceilings and the canonical
correlations; and without the moments, which the fit of the operator has accumulated already but for Y'Y. One thread,
float64.
"""

import argparse

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from threadpoolctl import threadpool_limits

from benchmarks.bench_fit import cpu_seconds, residual_stream
from src.activations.moments import Moments
from src.hook_points import HookPoint
from src.transport.rank import MatchedRank, match_ranks
from src.transport.solvers import fit_ridge

X, Y = HookPoint("resid_post", 0), HookPoint("resid_post", 1)
REFERENCE_RANKS = 25
SHARE_OF_TRAIN = 0.75


def whitening_of(y: np.ndarray) -> np.ndarray:
    values, vectors = np.linalg.eigh(np.cov(y, rowvar=False))
    return vectors / np.sqrt(np.clip(values, 1e-12, None)) @ vectors.T


class OneRankAtATime:
    """R2 in the whitened metric of the operator of one rank, from rows: x, y of train and test."""

    def __init__(self, train: list[np.ndarray], test: list[np.ndarray], weight: np.ndarray, bias: np.ndarray) -> None:
        self.train, self.test, self.weight, self.bias = train, test, weight, bias

    def reference(self, rank: int) -> float:
        """All decompositions anew for each rank."""
        return self.score(rank, np.linalg.svd(self.weight, full_matrices=False), whitening_of(self.train[1]))

    def score(self, rank: int, decomposition: tuple, whitening: np.ndarray) -> float:
        """One rank, from given decompositions."""
        left, values, right = decomposition
        truncated = left[:, :rank] * values[:rank] @ right[:rank]
        error = (self.train[1] - self.train[0] @ truncated - self.bias) @ whitening
        correction = error.mean(0) @ np.linalg.inv(whitening)
        predicted = self.test[0] @ truncated + self.bias + correction
        sse = np.square((self.test[1] - predicted) @ whitening).sum()
        return 1 - sse / np.square((self.test[1] - self.train[1].mean(0)) @ whitening).sum()

    def hoisted(self, ranks: list[int]) -> list[float]:
        """Decompositions made once."""
        decomposition = np.linalg.svd(self.weight, full_matrices=False)
        whitening = whitening_of(self.train[1])
        return [self.score(rank, decomposition, whitening) for rank in ranks]


def accumulate(rows: dict[HookPoint, torch.Tensor], group: torch.Tensor) -> Moments:
    moments = Moments.empty([(X, X), (X, Y), (Y, Y)], {h: x.shape[1] for h, x in rows.items()}, 2, precision="float64")
    moments.update(rows, group)
    return moments


def compare(table: Table, n: int, d: int, timed_ranks: int) -> None:
    """Add the row for one size to the table."""
    rows = residual_stream(n, d, 2)
    group = (torch.arange(n) >= SHARE_OF_TRAIN * n).long()
    accumulation, moments = cpu_seconds(lambda: accumulate(rows, group))
    fit = fit_ridge(moments, X, [Y], [0], 1e-3)[Y]
    train, held_out = moments.subset([0]), moments.subset([1])

    def match() -> MatchedRank:
        return match_ranks(train, held_out, X, Y, fit.weight, fit.alpha or 0.0)

    matching, matched = cpu_seconds(match)
    parts = [[rows[h][group == g].double().numpy() for h in (X, Y)] for g in (0, 1)]
    peer = OneRankAtATime(parts[0], parts[1], fit.weight.numpy(), fit.bias.numpy())
    ranks = sorted({int(rank) for rank in np.linspace(1, d, timed_ranks)})
    seconds, truth = cpu_seconds(lambda: [peer.reference(rank) for rank in ranks])
    per_rank = seconds / len(ranks)
    once, _ = cpu_seconds(lambda: peer.hoisted([]))
    several, _ = cpu_seconds(lambda: peer.hoisted(ranks))
    hoisted = once + max(several - once, 0.0) / len(ranks) * d
    curve = matched.r2["truncated_svd"]["whitened"]
    difference = max(abs(float(curve[rank - 1]) - r2) for rank, r2 in zip(ranks, truth, strict=True))
    total = accumulation + matching
    table.add_row(
        *(f"{d}", f"{n:,}", f"{total:.2f}", f"{matching:.2f}"),
        *(f"{per_rank * REFERENCE_RANKS:.1f}", f"{per_rank * d:.1f}", f"{hoisted:.1f}"),
        *(f"{seconds / total:.1f}x" for seconds in (per_rank * REFERENCE_RANKS, per_rank * d, hoisted)),
        f"{difference:.0e}",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small sizes")
    arguments = parser.parse_args()
    sizes = [(3000, 64), (6000, 128)] if arguments.quick else [(14_880, 256), (24_000, 768)]
    console = Console()
    table = Table(title="Matched rank: CPU seconds on one thread; peers give 1 curve, Strata 6 and their ceilings")
    columns = ("d", "rows", "Strata from rows", "of it ranks", "reference, 25 ranks", "reference, all ranks")
    columns += ("hoisted, all ranks", "25 / Strata", "all / Strata", "hoisted / Strata", "max |R2 diff|")
    for column in columns:
        table.add_column(column, justify="right")
    torch.set_num_threads(1)
    with threadpool_limits(1), console.status("ranks") as status:
        # the first call of each side pays for lazy imports and thread pools
        compare(Table(*columns), 600, 16, 2)
        for n, d in sizes:
            status.update(f"d = {d}")
            compare(table, n, d, timed_ranks=4)
    console.print(table)


if __name__ == "__main__":
    main()
