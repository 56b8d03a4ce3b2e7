"""How often and how strongly each feature fires."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from src.activations.products import arithmetic_device
from src.features.clustered import ClusteredSums, Estimate
from src.features.codes import SparseCodes


@dataclass(frozen=True, eq=False)
class Firing:
    """Of each feature over the counted tokens: tokens at which it is above 0, and its activations.

    rate: share of the tokens. mean_activation: over all tokens. mean_when_active: over those at which it fires (NaN:
    none). effective_documents: see `firing_statistics`.
    """

    rate: Estimate
    mean_activation: Estimate
    mean_when_active: Estimate
    max_activation: Float[Tensor, " feature"]
    n_active: Int[Tensor, " feature"]
    n_documents: Int[Tensor, " feature"]
    effective_documents: Float[Tensor, " feature"]

    @property
    def is_dead(self) -> Bool[Tensor, " feature"]:
        """Features that fire at no token."""
        return self.n_active == 0


def firing_statistics(codes: SparseCodes, device: torch.device | str = "cpu") -> Firing:
    """Rates, magnitudes and support, with errors clustered by document.

    effective_documents: Kish's effective sample size of the documents' summed activations W_d, (sum W_d)^2 / sum W_d^2
    (Kish 1965, *Survey Sampling*, 11.7): a feature that fires a hundred times in one document has been seen once.
    """
    n = codes.n_features
    place = arithmetic_device(device)
    rate, mean, active = (ClusteredSums(n, place) for _ in range(3))
    largest, square = torch.zeros(2, n, dtype=torch.float64, device=place)
    n_active, n_documents = torch.zeros(2, n, dtype=torch.int64, device=place)
    for entries in codes.chunks(device):
        counts = entries.per_document(torch.ones_like(entries.activation))
        sums = entries.per_document(entries.activation)
        tokens = entries.tokens_per_document[:, None]
        rate.add(counts, tokens)
        mean.add(sums, tokens)
        active.add(sums, counts)
        largest.scatter_reduce_(0, entries.feature, entries.activation, "amax")
        square += sums.square().sum(0)
        n_active += counts.sum(0).long()
        n_documents += (counts > 0).sum(0)
    total = mean.mean() * codes.n_tokens
    effective = torch.where(square > 0, total.square() / square, 0)
    found = (tensor.cpu() for tensor in (largest, n_active, n_documents, effective))
    return Firing(rate.estimate(), mean.estimate(), active.estimate(), *found)
