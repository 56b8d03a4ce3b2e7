"""Which tokens features fire on: sums over (feature, token) pairs, as many as occur."""

from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float, Int
from torch import Tensor

_TOKEN_BITS = 32
_MOST_PAIRS = 2**23  # about 200 MB; of more, the least are dropped
_PENDING = 2**20


@dataclass(frozen=True)
class TokenShare:
    """How much a token matters to a feature.

    share: of the sum of the feature's activations. rate: share of the token's occurrences on which the feature fires.
    """

    token_id: int
    firings: int
    share: float
    rate: float
    mean_activation: float


class TokenTally:
    """Firings and sums of activations per pair of feature and token, on the CPU in float64."""

    def __init__(self, n_features: int) -> None:
        self._occurrences = torch.zeros(0, dtype=torch.int64)
        self._totals = torch.zeros(n_features, dtype=torch.float64)
        self._pairs = torch.zeros(0, dtype=torch.int64)
        self._count = torch.zeros(0, dtype=torch.int64)
        self._sum = torch.zeros(0, dtype=torch.float64)
        self._pending: list[tuple[Tensor, Tensor, Tensor]] = []

    def add_tokens(self, token_ids: Int[Tensor, " token"]) -> None:
        """Count tokens, on which features may fire."""
        count = torch.bincount(token_ids, minlength=len(self._occurrences))
        count[: len(self._occurrences)] += self._occurrences
        self._occurrences = count

    def add_firings(
        self, feature: Int[Tensor, " firing"], token_ids: Int[Tensor, " firing"], value: Float[Tensor, " firing"]
    ) -> None:
        """Count firings. feature: its place among the chosen ones."""
        self._totals.index_add_(0, feature, value)
        pairs, count, total = _summed((feature << _TOKEN_BITS) + token_ids, torch.ones_like(feature), value)
        self._pending.append((pairs, count, total))
        if sum(len(pairs) for pairs, _, _ in self._pending) > max(_PENDING, len(self._pairs)):
            self._merge()

    def _merge(self) -> None:
        columns = zip((self._pairs, self._count, self._sum), *self._pending, strict=True)
        self._pairs, self._count, self._sum = _summed(*(torch.cat(column) for column in columns))
        self._pending = []
        if len(self._pairs) > _MOST_PAIRS:
            kept = self._sum.topk(_MOST_PAIRS // 2).indices.sort().values
            self._pairs, self._count, self._sum = self._pairs[kept], self._count[kept], self._sum[kept]

    def largest(self, n: int) -> list[list[TokenShare]]:
        """For each feature the n tokens with the largest sums of activations, largest first."""
        self._merge()
        order = self._sum.sort(descending=True, stable=True).indices
        order = order[(self._pairs[order] >> _TOKEN_BITS).sort(stable=True).indices]
        of_feature = torch.arange(len(self._totals) + 1) << _TOKEN_BITS
        starts = torch.searchsorted(self._pairs, of_feature).tolist()
        return [
            [self._share(place) for place in order[start : min(start + n, stop)].tolist()]
            for start, stop in pairwise(starts)
        ]

    def _share(self, place: int) -> TokenShare:
        feature, token = divmod(int(self._pairs[place]), 1 << _TOKEN_BITS)
        count, total = int(self._count[place]), float(self._sum[place])
        share, rate = total / float(self._totals[feature]), count / int(self._occurrences[token])
        return TokenShare(token, count, share, rate, total / count)


def _summed(pairs: Tensor, count: Tensor, total: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Entries of the same pair as one."""
    unique, place = torch.unique(pairs, return_inverse=True)
    counts = torch.zeros(len(unique), dtype=torch.int64).index_add_(0, place, count)
    return unique, counts, torch.zeros(len(unique), dtype=torch.float64).index_add_(0, place, total)
