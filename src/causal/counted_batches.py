"""Text in batches whose documents are whole after every window of them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from src.activations.collect import batches_of_like_length, right_padded
from src.features.clustered import document_windows
from src.text import Keep, TokenSequence

_BATCHES_IN_WINDOW = 8


@dataclass(frozen=True, eq=False)
class CountedBatch:
    """Sequences padded on the right; which tokens statistics count; the document of each sequence."""

    input_ids: Int[Tensor, "batch pos"]
    attention_mask: Int[Tensor, "batch pos"]
    is_counted: Bool[Tensor, "batch pos"]
    document: Int[Tensor, " batch"]


def windows_of_batches(
    sequences: Sequence[TokenSequence],
    documents: Int[np.ndarray, " sequence"],
    batch_size: int,
    device: torch.device | str,
) -> Iterator[Iterator[CountedBatch]]:
    """Windows that part no document, of a few batches of sequences of like length each. documents: of each sequence."""
    for window in document_windows(documents, batch_size * _BATCHES_IN_WINDOW):
        lengths = np.array([len(sequences[index].token_ids) for index in window])
        yield (
            _batch([sequences[index] for index in window[places]], documents[window[places]], device)
            for places in batches_of_like_length(lengths, batch_size)
        )


def _batch(
    sequences: list[TokenSequence], documents: Int[np.ndarray, " batch"], device: torch.device | str
) -> CountedBatch:
    input_ids, mask = right_padded([it.token_ids for it in sequences])
    counted, _ = right_padded([it.roles == Keep.COUNTED for it in sequences])
    document = torch.from_numpy(documents.astype(np.int64))
    return CountedBatch(*(it.to(device) for it in (input_ids, mask, counted.bool(), document)))
