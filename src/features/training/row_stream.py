"""An endless, shuffled stream of rows whose order depends on the seed alone, and which can start at any step.

Each epoch draws an order of the source's chunks and deals them to blocks that fit into the buffer. A block is read
whole, its rows are shuffled, and cut into batches; what is left below a batch is passed over in that epoch. So the
place of a batch follows from arithmetic: a run that goes on at step s begins with the block that s lies in.
"""

from collections.abc import Iterator

import numpy as np
import psutil
import torch
from jaxtyping import Float, Int
from torch import Tensor

from src.errors import StrataError
from src.features.training.row_sources import RowSource
from src.hook_points import HookPoint

Batch = dict[HookPoint, Float[Tensor, "row d_model"]]


class ShuffledRows:
    """Batches of rows that were shuffled across chunks. Memory: one block (buffer_rows and a chunk at most).

    Raises StrataError if the source has too few rows for a batch.
    """

    def __init__(self, source: RowSource, batch_size: int, buffer_rows: int, seed: int) -> None:
        self._source, self._batch_size, self._seed = source, batch_size, seed
        self.n_rows = int(source.counts.sum())
        self._n_blocks = max(1, -(-self.n_rows // buffer_rows))
        if not self._batches_of_epoch(0).sum():
            raise StrataError(
                f"{self.n_rows:,} counted tokens to train on are not enough for a step of batch_size={batch_size}: "
                "take more text, or a smaller batch_size"
            )

    def batches(self, start: int = 0) -> Iterator[Batch]:
        """Batches from step `start` on, counted from 0, without an end; on the CPU, in the source's dtype."""
        epoch, passed = 0, 0
        while passed + (of_epoch := int(self._batches_of_epoch(epoch).sum())) <= start:
            epoch, passed = epoch + 1, passed + of_epoch
        while True:
            for block, n_batches in enumerate(self._batches_of_epoch(epoch).tolist()):
                skipped = min(max(start - passed, 0), n_batches)
                passed += n_batches
                if skipped < n_batches:
                    yield from self._batches_of_block(epoch, block, skipped)
            epoch += 1

    def _blocks(self, epoch: int) -> list[Int[np.ndarray, " chunk"]]:
        """The chunks of each block: a random order, cut where blocks have about the same number of rows."""
        order = np.random.default_rng([self._seed, epoch]).permutation(len(self._source.counts))
        rows = self._source.counts[order]
        middle = np.cumsum(rows) - rows / 2
        place = np.minimum(middle * self._n_blocks // max(self.n_rows, 1), self._n_blocks - 1)
        return [order[(place == block) & (rows > 0)] for block in range(self._n_blocks)]

    def _batches_of_epoch(self, epoch: int) -> Int[np.ndarray, " block"]:
        rows = [self._source.counts[chunks].sum() for chunks in self._blocks(epoch)]
        return np.array(rows, np.int64) // self._batch_size

    def _batches_of_block(self, epoch: int, block: int, skipped: int) -> Iterator[Batch]:
        chunks = self._blocks(epoch)[block]
        rows = self._read(chunks)
        n_rows = int(self._source.counts[chunks].sum())
        order = torch.from_numpy(np.random.default_rng([self._seed, epoch, block]).permutation(n_rows))
        for batch in order.split(self._batch_size)[skipped : n_rows // self._batch_size]:
            yield {point: x.index_select(0, batch) for point, x in rows.items()}

    def _read(self, chunks: Int[np.ndarray, " chunk"]) -> Batch:
        n_rows, start, rows = int(self._source.counts[chunks].sum()), 0, {}
        for chunk in chunks.tolist():
            read = self._source.read(chunk).activations
            if not rows:
                _refuse_too_large(n_rows, read)
                rows = {point: x.new_empty(n_rows, x.shape[1]) for point, x in read.items()}
            for point, x in read.items():
                rows[point][start : start + len(x)] = x
            start += len(next(iter(read.values())))
        return rows


def _refuse_too_large(n_rows: int, sample: Batch) -> None:
    needed = n_rows * sum(x.shape[1] * x.element_size() for x in sample.values())
    free = psutil.virtual_memory().available
    if needed > free:
        raise StrataError(
            f"a buffer of {n_rows:,} tokens at {len(sample)} hook points needs {needed / 2**30:,.1f} GiB of memory, "
            f"and {free / 2**30:,.1f} GiB are free: choose a smaller buffer_tokens, or fewer layers at a time"
        )
