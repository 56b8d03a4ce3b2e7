"""Two stacks of layers on the same tokens: encoder and decoder, or two models."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from src.geometry.layers.kernel_alignment import AlignmentSums
from src.geometry.layers.profile import JACKKNIFE_GROUPS
from src.geometry.layers.sites import Site
from src.geometry.layers.texts import TextBlock, sums_by_text


@dataclass(frozen=True, eq=False)
class StackComparison:
    """All sites of the first stack against all of the second, over pairs of the same token.

    cosine: mean over the aligned tokens; shuffled_cosine: mean over all pairs of different tokens of one text, which is
    what shuffling positions gives on average. Entry 0 is the value, the others are bootstrap replicates; empty where
    the widths differ, since no coordinates are shared then. cka, shuffled_cka: linear CKA; entry 0 is the value, the
    others leave out one group of documents each.
    """

    first: Sequence[Site]
    second: Sequence[Site]
    n_pairs: int
    n_cka_rows: int
    cosine: Float[Tensor, "replicate first second"] | None
    shuffled_cosine: Float[Tensor, "replicate first second"] | None
    cka: Float[Tensor, "group first second"]
    shuffled_cka: Float[Tensor, "group first second"]


@dataclass(frozen=True, eq=False)
class AlignedPairs:
    """Which token of the second stack is the same as which of the first: rows of the block's tokens in each stack.

    text: of each pair, the index of its text. block: the first stack's texts, for weights and groups.
    """

    first: Int[Tensor, "pair"]
    second: Int[Tensor, "pair"]
    text: Int[Tensor, "pair"]
    block: TextBlock


def align(first: TextBlock, second: TextBlock, shift: int) -> AlignedPairs:
    """Pair token i of a text in the first stack with token i + shift of the same text in the second.

    Both blocks hold the same texts with equal lengths. Only pairs that are counted in both stacks are kept, and every
    pair is checked to be of one token id (ValueError if not): comparing other tokens is BUG C-1.
    """
    n = len(first.text)
    place = torch.arange(max(n - shift, 0), device=first.device)
    same_text = first.text[place] == second.text[place + shift]
    place = place[same_text & first.counted[place] & second.counted[place + shift]]
    if not torch.equal(first.token_ids[place], second.token_ids[place + shift]):
        raise ValueError("the stacks were given different tokens")
    return AlignedPairs(place, place + shift, first.text[place], first)


class StackSums:
    """Running sums: `begin` a block, `take` the states of both stacks, `end`."""

    def __init__(
        self,
        first: Sequence[Site],
        second: Sequence[Site],
        same_width: bool,
        n_replicates: int,
        seed: int,
        device: torch.device | str = "cpu",
    ) -> None:
        self._first, self._second = tuple(first), tuple(second)
        device = torch.device(device)
        shape = n_replicates, len(first), len(second)
        self._same_width = same_width
        self._aligned = torch.zeros(shape, dtype=torch.float64, device=device)
        self._shuffled = torch.zeros_like(self._aligned)
        self._counts = torch.zeros(n_replicates, 2, dtype=torch.float64, device=device)
        self._alignment = AlignmentSums(len(first), len(second), JACKKNIFE_GROUPS, device)
        self._draws = torch.Generator().manual_seed(seed)
        self._n_blocks = 0

    def begin(self, pairs: AlignedPairs) -> None:
        """The next rows are those of these texts."""
        self._pairs = pairs
        self._rows: tuple[dict[Site, Tensor], dict[Site, Tensor]] = {}, {}

    def take(self, stack: int, site: Site, rows: Float[Tensor, "token d_model"]) -> None:
        """States of all tokens of the block at a site of stack 0 or 1; other sites than those wanted are ignored."""
        if site in (self._first, self._second)[stack]:
            index = (self._pairs.first, self._pairs.second)[stack]
            self._rows[stack][site] = rows.to(index.device)[index].float()

    def end(self) -> None:
        """All sites of both stacks are there."""
        first = [self._rows[0][site] for site in self._first]
        second = [self._rows[1][site] for site in self._second]
        pairs = self._pairs
        if len(pairs.text):
            if self._same_width:
                self._add_cosines(first, second, pairs)
            else:
                self._add_counts(pairs)
            # a block holds whole sequences: a document that was split over several may lie in several groups
            group = self._n_blocks % JACKKNIFE_GROUPS
            self._alignment.add(first, second, self._other_positions(pairs), group, self._draws)
            self._n_blocks += 1
        self._rows = {}, {}

    def _add_counts(self, pairs: AlignedPairs) -> Float[Tensor, "text"]:
        count = sums_by_text(torch.ones_like(pairs.text, dtype=torch.float64), pairs.text, pairs.block.n_texts)
        self._counts += pairs.block.weights @ torch.stack([count, count * (count - 1)], -1)
        return count

    def _add_cosines(self, first: list[Tensor], second: list[Tensor], pairs: AlignedPairs) -> None:
        weights, n_texts = pairs.block.weights, pairs.block.n_texts
        self._add_counts(pairs)
        ours, theirs = ([torch.nn.functional.normalize(rows.double(), dim=-1) for rows in of] for of in (first, second))
        sums_ours = torch.stack([sums_by_text(rows, pairs.text, n_texts) for rows in ours])
        sums_theirs = torch.stack([sums_by_text(rows, pairs.text, n_texts) for rows in theirs])
        own = torch.stack([torch.stack([(a * b).sum(-1) for b in theirs], -1) for a in ours], 1)
        aligned = sums_by_text(own, pairs.text, n_texts)
        everything = torch.einsum("atd,btd->tab", sums_ours, sums_theirs)
        self._aligned += torch.einsum("rt,tab->rab", weights, aligned)
        self._shuffled += torch.einsum("rt,tab->rab", weights, everything - aligned)

    def _other_positions(self, pairs: AlignedPairs) -> Int[Tensor, "pair"]:
        """For each pair another one of its text: all move on by a step that is drawn for each text."""
        count = torch.bincount(pairs.text, minlength=pairs.block.n_texts)
        start = count.cumsum(0) - count
        step = 1 + (torch.rand(len(count), generator=self._draws).to(count.device) * (count - 1)).long()
        place = torch.arange(len(pairs.text), device=count.device)
        inside = (place - start[pairs.text] + step[pairs.text]) % count[pairs.text]
        return start[pairs.text] + inside

    def comparison(self) -> StackComparison:
        """What the sums say."""
        n, others = (column[:, None, None] for column in self._counts.cpu().unbind(-1))
        cka, shuffled_cka = self._alignment.cka()
        return StackComparison(
            self._first,
            self._second,
            int(n[0]),
            self._alignment.n_rows,
            self._aligned.cpu() / n if self._same_width else None,
            self._shuffled.cpu() / others if self._same_width else None,
            cka,
            shuffled_cka,
        )
