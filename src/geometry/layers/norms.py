"""Norms of tokens at one site: pooled statistics, tokens that are left out, positions, the largest."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from src.geometry.layers.histogram import COARSE, FINE, bin_of, n_bins, quantile, share_above
from src.geometry.layers.texts import TextBlock, sums_by_text
from src.text import Keep

# a norm so many times the median is that of a sink (spec C1: 10 to 1000)
SINK = 10.0
MOST_LARGEST = 10


@dataclass(frozen=True)
class LeftOut:
    """Norms of tokens that one reason keeps out of statistics. ratio: of their mean to the counted tokens' median."""

    n: int
    mean: float
    std: float
    largest: float
    ratio: float


@dataclass(frozen=True)
class LargeToken:
    """A counted token with one of the largest norms."""

    norm: float
    token_id: int
    position: int


@dataclass(frozen=True, eq=False)
class NormStatistics:
    """Norms of the counted tokens, and of the others.

    mean, std (divisor n), median, by_position: entry 0 is the value, the others are bootstrap replicates. median, low
    and high quartile have a relative error of 2^-11 at most (the replicates of the median: 2^-5, about the value).
    by_position: mean norm at each position, over all tokens whose states are numbers, BOS and specials included.
    """

    n: int
    mean: Float[Tensor, "replicate"]
    std: Float[Tensor, "replicate"]
    median: Float[Tensor, "replicate"]
    low_quartile: float
    high_quartile: float
    sink_share: float
    left_out: dict[str, LeftOut]
    by_position: Float[Tensor, "replicate position"]
    largest: list[LargeToken]


class NormSums:
    """Running sums over norms."""

    def __init__(self, n_replicates: int, n_positions: int, device: torch.device) -> None:
        def zeros(*shape: int) -> Tensor:
            return torch.zeros(shape, dtype=torch.float64, device=device)

        self._n_positions = n_positions
        self._fine = torch.zeros(n_bins(FINE), dtype=torch.int64, device=device)
        self._coarse = zeros(n_replicates, n_bins(COARSE))
        self._sums = zeros(n_replicates, 3)
        self._reasons = zeros(len(Keep), 4)
        self._positions = zeros(n_replicates, n_positions, 2)
        self._largest = zeros(0, 3)

    def add(self, norms: Float[Tensor, "token"], block: TextBlock) -> None:
        """Add the norms of all tokens of a block (of any value where a state is no number)."""
        counted = block.counted
        of_counted, text = norms[counted], block.text[counted]
        self._fine += torch.bincount(bin_of(of_counted, FINE), minlength=len(self._fine))
        powers = torch.stack([torch.ones_like(of_counted), of_counted, of_counted**2], -1)
        self._sums += block.weights @ sums_by_text(powers, text, block.n_texts)
        width = n_bins(COARSE)
        joint = torch.bincount(text * width + bin_of(of_counted, COARSE), minlength=block.n_texts * width)
        self._coarse += block.weights @ joint.view(block.n_texts, width).double()
        self._add_reasons(norms, block)
        self._add_positions(norms, block)
        self._add_largest(norms, counted, block)

    def _add_reasons(self, norms: Float[Tensor, "token"], block: TextBlock) -> None:
        for reason in Keep:
            chosen = norms[block.keep == reason]
            if len(chosen) and reason != Keep.NON_FINITE:
                row = self._reasons[reason]
                row[0] += len(chosen)
                row[1] += chosen.sum()
                row[2] += chosen.square().sum()
                row[3] = torch.maximum(row[3], chosen.max())

    def _add_positions(self, norms: Float[Tensor, "token"], block: TextBlock) -> None:
        early = block.readable & (block.position < self._n_positions)
        n = self._n_positions
        place = block.text[early] * n + block.position[early]
        values = torch.stack([torch.ones_like(norms[early]), norms[early]], -1)
        by_place = sums_by_text(values, place, block.n_texts * n).view(block.n_texts, n, 2)
        self._positions += torch.einsum("rt,tpv->rpv", block.weights, by_place)

    def _add_largest(self, norms: Float[Tensor, "token"], counted: Bool[Tensor, "token"], block: TextBlock) -> None:
        best = norms.masked_fill(~counted, -1).topk(min(MOST_LARGEST, len(norms))).indices
        best = best[counted[best]]
        found = torch.stack([norms[best], block.token_ids[best].double(), block.position[best].double()], -1)
        both = torch.cat([self._largest, found])
        self._largest = both[both[:, 0].argsort(descending=True, stable=True)[:MOST_LARGEST]]

    def statistics(self) -> NormStatistics:
        """What the sums say."""
        n, total, squares = self._sums.cpu().unbind(-1)
        mean = total / n
        std = (squares / n - mean**2).clamp(min=0).sqrt()
        low, middle, high = (float(quantile(self._fine, share, FINE)) for share in (0.25, 0.5, 0.75))
        rough = quantile(self._coarse, 0.5, COARSE).cpu()
        # replicates know coarse bins alone: what they say is how far the median moves, as a ratio
        median = middle * rough / rough[0]
        count, sums = self._positions.cpu().unbind(-1)
        return NormStatistics(
            n=int(n[0]),
            mean=mean,
            std=std,
            median=median,
            low_quartile=low,
            high_quartile=high,
            sink_share=share_above(self._fine, SINK * middle, FINE),
            left_out=self._left_out(middle),
            by_position=sums / count,
            largest=[LargeToken(norm, int(token), int(place)) for norm, token, place in self._largest.tolist()],
        )

    def _left_out(self, median: float) -> dict[str, LeftOut]:
        found = {}
        for reason in Keep:
            n, total, squares, largest = self._reasons[reason].tolist()
            if n and reason != Keep.COUNTED:
                mean = total / n
                std = max(squares / n - mean**2, 0.0) ** 0.5
                found[reason.name.lower()] = LeftOut(int(n), mean, std, largest, mean / median)
        return found
