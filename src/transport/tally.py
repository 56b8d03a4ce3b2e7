"""Sums over rows that stream by in batches, weighted by the replicates of a bootstrap over documents.

Rows are summed per document first, so that a batch costs one product [replicate, document] @ [document, ...]. Counted
rows and first tokens are kept apart, which gives scores without and with first tokens from one pass.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from src.activations.passes import Rows
from src.hook_points import HookPoint
from src.transport.bootstrap import DocumentBootstrap

# Counted rows, and first tokens that are not counted.
N_CLASSES = 2
# Float64 numbers of one array of a block of rows: 2 MB stay in the caches of a CPU, a GPU wants larger pieces.
_CPU_BLOCK, _GPU_BLOCK = 2**18, 2**23


@dataclass(frozen=True)
class ScoredRows:
    """The rows of a batch that are scored: counted ones, and first tokens.

    activations: in the storage dtype, on the device, of all rows of the batch. index: the scored rows among them.
    segment: 2 i for a counted row of the batch's i-th document, 2 i + 1 for the first tokens of its sequences.
    weights: of the documents.
    """

    activations: Mapping[HookPoint, Float[Tensor, "row d_model"]]
    index: Int[Tensor, "scored"]
    segment: Int[Tensor, "scored"]
    weights: Float[Tensor, "replicate document"]

    @classmethod
    def of(cls, rows: Rows, bootstrap: DocumentBootstrap, device: torch.device) -> "ScoredRows":
        """Choose the rows, and draw the weights of their documents; every sum of the batch shares them."""
        index = (rows.is_counted | rows.is_first).nonzero()[:, 0]
        documents, place = rows.document[index].unique(return_inverse=True)
        segment = N_CLASSES * place + (~rows.is_counted[index]).long()
        return cls(
            {point: x.to(device) for point, x in rows.activations.items()},
            index.to(device),
            segment.to(device),
            bootstrap.weights(documents).to(device),
        )

    @property
    def has_first(self) -> bool:
        """Whether first tokens are among the rows."""
        return bool((self.segment % N_CLASSES).any())

    def blocks(self, *points: HookPoint) -> Iterator[tuple[Int[Tensor, "block"], list[Float[Tensor, "block d_model"]]]]:
        """Segments and float64 activations of the scored rows, in blocks of a size that is quick to work on."""
        numbers = _CPU_BLOCK if self.index.device.type == "cpu" else _GPU_BLOCK
        size = max(256, numbers // self.activations[points[0]].shape[1])
        for index, segment in zip(self.index.split(size), self.segment.split(size), strict=True):
            yield segment, [self.activations[point][index].double() for point in points]

    def zeros(self, *shape: int) -> Float[Tensor, "segment *shape"]:
        """Where to add up the rows of each segment."""
        return self.weights.new_zeros(N_CLASSES * self.weights.shape[1], *shape)

    def segment_sizes(self) -> Float[Tensor, "segment"]:
        """The number of rows of each segment."""
        return self.segment.bincount(minlength=len(self.zeros())).double()


class ReplicateSums:
    """Weighted sums of rows of a shape; 2 (replicates + 1) float64 numbers for each of its entries."""

    def __init__(self, replicates: int, shape: tuple[int, ...], device: torch.device) -> None:
        self._total = torch.zeros((replicates + 1, N_CLASSES, *shape), dtype=torch.float64, device=device)

    def add(self, rows: ScoredRows, per_segment: Float[Tensor, "segment *shape"]) -> None:
        """Add the sums of the segments of a batch."""
        replicates, documents = rows.weights.shape
        self._total.view(replicates, -1).addmm_(rows.weights, per_segment.view(documents, -1))

    def of_rows(self, *, with_first: bool) -> Float[Tensor, "replicate *shape"]:
        """The sums over counted rows, and over first tokens too if asked for."""
        return self._total.sum(1) if with_first else self._total[:, 0]
