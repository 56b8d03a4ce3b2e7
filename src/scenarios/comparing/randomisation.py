"""Shuffled labels, and p values of permutation tests: for each cell alone, and corrected for all of them."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

# two sums of the same numbers in another order may differ by this share
_ROUNDING = 1e-9


def permutation_p(
    observed: Float[Tensor, "*cell"], null: Float[Tensor, "draw *cell"]
) -> tuple[Float[Tensor, "*cell"], Float[Tensor, "*cell"]]:
    """(1 + draws that are at least the observed) / (1 + draws) for each cell; and corrected for all cells.

    The second compares with the largest cell of each draw (Westfall and Young 1993, single-step maximum), each cell in
    units of its standard deviation over draws and observed value. Large values are the evidence. NaN where the
    observed value is; a draw that is NaN counts as none. In float64, on the CPU.
    """
    every = torch.cat([observed[None], null]).double().cpu()
    known = ~every.isnan()
    clean = every.nan_to_num(0)
    n = known.sum(0).clamp(min=1)
    mean = clean.sum(0) / n
    deviation = torch.where(known, every - mean, 0.0)
    spread = (deviation.square().sum(0) / n).sqrt()
    score = torch.where(spread > _ROUNDING * (1 + mean.abs()), deviation / spread, 0.0)
    score = torch.where(known, score, -float("inf"))
    largest = score[1:].flatten(1).max(1).values if observed.numel() else score[1:].flatten(1).sum(1)
    largest = largest.reshape(-1, *[1] * observed.ndim)
    counts = ((score[1:] >= score[0] - _ROUNDING).sum(0), (largest >= score[0] - _ROUNDING).sum(0))
    alone, together = (torch.where(known[0], (1 + count.double()) / (1 + len(null)), float("nan")) for count in counts)
    return alone, together


def null_range(null: Float[Tensor, "draw *cell"]) -> tuple[Float[Tensor, "*cell"], Float[Tensor, "*cell"]]:
    """What 2.5 % and 97.5 % of the draws lie below, draws that are NaN left out."""
    low, high = null.nanquantile(torch.tensor([0.025, 0.975]).to(null), dim=0)
    return low, high


def shuffled_labels(
    truth: Int[Tensor, "item"], draws: int, generator: torch.Generator, within: Int[Tensor, "item"] | None = None
) -> Int[Tensor, "draw+1 item"]:
    """The labels as they are, and then in random orders; items of different numbers `within` don't exchange theirs."""
    blocks = torch.zeros_like(truth) if within is None else within
    orders = (torch.rand(draws, len(truth), generator=generator) + blocks).argsort(1)
    shuffled = torch.empty_like(orders)
    shuffled[:, blocks.argsort(stable=True)] = truth[orders]
    return torch.cat([truth[None], shuffled])


def shuffled_spells(labels: Sequence[int], draws: int, generator: torch.Generator) -> Int[Tensor, "draw+1 item"]:
    """Labels of items in their order (-1: none), and then the spells of one label in random orders.

    A spell is as many labelled items in a row with one label, whatever stands between them: such items say the same
    for one reason, so that they are shuffled as one. Items without a label stay so.
    """
    labelled = [place for place, label in enumerate(labels) if label >= 0]
    spell, values = [], []
    for place in labelled:
        if not values or labels[place] != values[-1]:
            values.append(labels[place])
        spell.append(len(values) - 1)
    found = torch.full((draws + 1, len(labels)), -1, dtype=torch.long)
    if labelled:
        shuffled = shuffled_labels(torch.tensor(values), draws, generator)
        found[:, labelled] = shuffled[:, spell]
    return found
