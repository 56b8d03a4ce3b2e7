"""Means per feature over tokens, with errors that know that the tokens of a document depend on each other."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

# standard errors on either side of an estimate that make its 95 % interval
INTERVAL = 1.96
# documents below which a mean has no standard error: a mean over one document's tokens would have an error of 0
FEWEST_DOCUMENTS = 5


@dataclass(frozen=True, eq=False)
class Estimate:
    """A mean of each feature and its standard error (NaN where fewer than five documents have something to count)."""

    value: Float[Tensor, " feature"]
    error: Float[Tensor, " feature"]

    @property
    def low(self) -> Float[Tensor, " feature"]:
        """Lower end of the 95 % interval."""
        return self.value - INTERVAL * self.error

    @property
    def high(self) -> Float[Tensor, " feature"]:
        """Upper end of the 95 % interval."""
        return self.value + INTERVAL * self.error


class ClusteredSums:
    """Sums over documents from which means of several quantities and their standard errors come.

    A document's rows must be added in one call. Memory: five numbers for each feature, whatever the number of
    documents. Of a feature only documents with a count above 0 are documents: of a mean over firings, those in which it
    fires.
    """

    def __init__(self, n_features: int, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float64) -> None:
        self._sum, self._square, self._with_count = torch.zeros(3, n_features, device=device, dtype=dtype)
        self._count = torch.zeros(n_features, device=device, dtype=dtype)
        self._count_square, self._with_any = torch.zeros_like(self._count), torch.zeros_like(self._count)
        self.n_documents = 0

    def add(self, values: Float[Tensor, "document feature"], counts: Float[Tensor, "document #feature"]) -> None:
        """Add documents: the sum over each one's tokens, and how many tokens the mean is to be over."""
        values = values.to(self._sum)
        counts = counts.to(self._sum)
        self._sum += values.sum(0)
        self._square += values.square().sum(0)
        self._with_count += (values * counts).sum(0)
        self._count += counts.sum(0)
        self._count_square += counts.square().sum(0)
        self._with_any += (counts > 0).sum(0)
        self.n_documents += len(values)

    def mean(self) -> Float[Tensor, " feature"]:
        """Sum of the values over the sum of the counts; NaN where nothing was counted."""
        return self._sum / self._count

    def standard_error(self) -> Float[Tensor, " feature"]:
        """Linearised standard error of the mean (Cochran 1977, *Sampling Techniques*, 6.4).

        NaN where fewer than five documents have something to count.
        """
        mean, n = self.mean(), self._with_any
        squares = self._square - 2 * mean * self._with_count + mean.square() * self._count_square
        error = (squares.clamp_min(0) * n / (n - 1)).sqrt() / self._count
        return error.where(n >= FEWEST_DOCUMENTS, torch.nan)

    def estimate(self) -> Estimate:
        """Mean and standard error, on the CPU."""
        return Estimate(self.mean().cpu(), self.standard_error().cpu())


def document_windows(documents: Int[np.ndarray, " sequence"], n_sequences: int) -> Iterator[Int[np.ndarray, " index"]]:
    """Indices of sequences, in windows of at least n_sequences (but the last), none of which parts a document.

    documents: of each sequence. Within a window batches may be formed as one likes; after it its documents are whole.
    """
    order = np.argsort(documents, kind="stable")
    ends = np.flatnonzero(np.diff(documents[order], append=np.iinfo(np.int64).max)) + 1
    first = 0
    for end in ends.tolist():
        if end - first >= n_sequences or end == len(order):
            yield order[first:end]
            first = end
