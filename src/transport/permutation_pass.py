"""The permutation null of many pairs from passes over a store: rows stream by, and only shuffled X'Y is kept.

Documents change places within their fold and within a batch of consecutive parts that holds many documents of each
fold, so memory does not grow with the store. A replicate shuffles all pairs alike.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from src.activations.moments import Moments, Pair
from src.activations.passes import Rows
from src.activations.products import exact_products
from src.errors import StrataError
from src.hook_points import HookPoint
from src.transport.canonical import EIGENVALUE_FLOOR, CrossFit, CrossFitting
from src.transport.permutation import shuffled_rows

# Documents per fold, on average, that a batch holds at least: one in so many stays where it was.
BATCH_DOCUMENTS = 32
# For the shuffled X'Y that are accumulated in one pass; more replicates and pairs take more passes.
MEMORY_BYTES = 4 * 2**30

_Passes = Callable[[Sequence[HookPoint]], Iterable[Rows]]


def null_blocks(
    n_pairs: int, n_replicates: int, n_folds: int, d_model: int, memory: int = MEMORY_BYTES
) -> list[tuple[range, range]]:
    """(pairs, replicates) of each pass: as many as fit a memory budget in bytes, one of each at least."""
    fitting = max(1, memory // (8 * n_folds * d_model**2))
    if fitting >= n_replicates:
        size = fitting // n_replicates
        starts = range(0, n_pairs, size)
        return [(range(start, min(start + size, n_pairs)), range(n_replicates)) for start in starts]
    starts = range(0, n_replicates, fitting)
    return [
        (range(pair, pair + 1), range(start, min(start + fitting, n_replicates)))
        for pair in range(n_pairs)
        for start in starts
    ]


def shuffled_cross_fits(
    moments: Moments,
    pairs: Sequence[Pair],
    folds: Sequence[int],
    rows: _Passes,
    n_replicates: int,
    seed: int,
    floor: float = EIGENVALUE_FLOOR,
    advance: Callable[[int], None] = lambda _: None,
    memory: int = MEMORY_BYTES,
) -> Iterator[tuple[CrossFit, list[CrossFit]]]:
    """For each pair the cross-fit of the true pairs of rows, and those of replicates with documents of y shuffled.

    moments: with the three products of every pair, of the rows of all folds. rows: starts a pass over the rows of the
    folds at given hook points; every pass must give them in the same order. advance: is told of replicates done, pair
    by pair. Raises StrataError if the rows are not those of the moments.
    """
    d_model = max(moments.sums[point].shape[1] for pair in pairs for point in pair)
    null: list[CrossFit] = []
    fitting: CrossFitting | None = None
    for chosen, replicates in null_blocks(len(pairs), n_replicates, len(folds), d_model, memory):
        products = _shuffled_products(moments, [pairs[place] for place in chosen], folds, rows, replicates, seed)
        for place in chosen:
            source, target = pairs[place]
            if fitting is None or (fitting.source, fitting.target) != pairs[place]:
                fitting = CrossFitting(moments, source, target, folds, floor)
            for replicate in range(len(replicates)):
                null.append(fitting.correlations(_crossed(moments, pairs[place], folds, products, replicate)))
                advance(1)
            if len(null) == n_replicates:
                yield fitting.correlations(moments), null
                null = []
            del products[pairs[place]]


def _crossed(
    moments: Moments, pair: Pair, folds: Sequence[int], products: Mapping[Pair, Tensor], replicate: int
) -> Moments:
    """Moments of shuffled pairs: of x alone and of y alone they are what they were, for every row is used once."""
    crossed = torch.zeros_like(moments.products[pair])
    crossed[list(folds)] = products[pair][replicate]
    ends = set(pair)
    return Moments(
        [pair],
        moments.precision,
        {h: moments.shift[h] for h in ends},
        moments.count,
        {h: moments.sums[h] for h in ends},
        {h: moments.square_sums[h] for h in ends},
        {pair: crossed},
    )


def _shuffled_products(
    moments: Moments, pairs: Sequence[Pair], folds: Sequence[int], rows: _Passes, replicates: range, seed: int
) -> dict[Pair, Float[Tensor, "replicate fold d_in d_out"]]:
    """One pass: X'Y of all replicates, of rows less the shift of the moments."""
    points = list(dict.fromkeys(point for pair in pairs for point in pair))
    products = {
        pair: moments.count.new_zeros(
            (len(replicates), len(folds), *moments.products[pair].shape[1:]), dtype=torch.float64
        )
        for pair in pairs
    }
    seen = torch.zeros_like(moments.count, device="cpu")
    for number, batch in enumerate(_batches(rows(points), folds)):
        orders = [
            shuffled_rows(batch.group, batch.document, _generator(seed, replicate, number)) for replicate in replicates
        ]
        seen += batch.group.bincount(minlength=len(seen))
        _add_batch(products, moments, batch, folds, orders)
    if not torch.equal(seen[list(folds)], moments.count.cpu()[list(folds)]):
        raise StrataError("the shuffled rows must be those of the moments: give all of them, with the same groups")
    return products


def _add_batch(
    products: Mapping[Pair, Float[Tensor, "replicate fold d_in d_out"]],
    moments: Moments,
    batch: "_Batch",
    folds: Sequence[int],
    orders: Sequence[Int[Tensor, "row"]],
) -> None:
    device = moments.device
    work = torch.float64 if moments.precision == "float64" else torch.float32
    for place, fold in enumerate(folds):
        inside = (batch.group == fold).nonzero()[:, 0]
        if not len(inside):
            continue
        # where a row of the batch stands among those of its fold
        number = torch.zeros(len(batch.group), dtype=torch.int64)
        number[inside] = torch.arange(len(inside))
        rows = {
            point: (x.index_select(0, inside).to(device) - moments.shift[point].to(work)).to(work)
            for point, x in batch.activations.items()
        }
        for target in dict.fromkeys(target for _, target in products):
            of_target = [pair for pair in products if pair[1] == target]
            for replicate, order in enumerate(orders):
                shuffled = rows[target][number[order[inside]].to(device)]
                with exact_products():
                    for pair in of_target:
                        products[pair][replicate, place] += rows[pair[0]].T @ shuffled


def _generator(seed: int, replicate: int, batch: int) -> torch.Generator:
    """Draws that depend on nothing else, such as how pairs and replicates are cut into passes."""
    state = np.random.SeedSequence([seed, replicate, batch]).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state[0] >> np.uint64(1)))


@dataclass(frozen=True)
class _Batch:
    """Counted rows of consecutive parts, on the CPU, in the storage dtype."""

    activations: dict[HookPoint, Float[Tensor, "row d"]]
    group: Int[Tensor, "row"]
    document: Int[Tensor, "row"]

    @classmethod
    def of(cls, rows: Rows) -> "_Batch":
        activations = {point: x[rows.is_counted] for point, x in rows.activations.items()}
        return cls(activations, rows.group[rows.is_counted], rows.document[rows.is_counted])

    @classmethod
    def joined(cls, batches: Sequence["_Batch"]) -> "_Batch":
        points = batches[0].activations
        return cls(
            {point: torch.cat([batch.activations[point] for batch in batches]) for point in points},
            torch.cat([batch.group for batch in batches]),
            torch.cat([batch.document for batch in batches]),
        )

    @property
    def n_documents(self) -> int:
        return len(self.document.unique())


def _batches(rows: Iterable[Rows], folds: Sequence[int]) -> Iterator[_Batch]:
    """Batches with enough documents; what is left over at the end joins the last one."""
    enough = BATCH_DOCUMENTS * len(folds)
    ready: list[_Batch] = []
    collected: list[_Batch] = []
    for batch in map(_Batch.of, rows):
        collected.append(batch)
        if sum(each.n_documents for each in collected) >= enough:
            if ready:
                yield _Batch.joined(ready)
            ready, collected = collected, []
    if ready or collected:
        yield _Batch.joined([*ready, *collected])
