"""Rows of two spaces that belong together, and what each of them is for."""

from dataclasses import dataclass
from enum import IntEnum
from typing import Self

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Int8
from torch import Tensor

# rows that are turned into float64 at a time
BLOCK = 8192


class Group(IntEnum):
    """What a pair is for."""

    TRAIN = 0
    """Anchors: maps are fitted on them."""
    VAL = 1
    """Settings of maps are chosen on them."""
    TEST = 2
    """Maps are judged on them."""
    ORDERED = 3
    """Tokens of ordered sets: nothing is fitted on them either, and they are judged by themselves."""


@dataclass(frozen=True, eq=False)
class PairedRows:
    """Row i of one space goes with row i of the other.

    source, target: in the dtype in which they are stored, on any device. group: of each pair. unit: what intervals
    draw: the token itself, or the document that it stands in. labels: the tokens' texts.
    """

    source: Float[Tensor, "pair d_source"]
    target: Float[Tensor, "pair d_target"]
    group: Int8[np.ndarray, " pair"]
    unit: Int[np.ndarray, " pair"]
    labels: list[str]

    def __len__(self) -> int:
        return len(self.group)

    def of(self, *groups: Group) -> Int[np.ndarray, " chosen"]:
        """The pairs of some groups."""
        return np.flatnonzero(np.isin(self.group, groups))

    def take(self, pairs: Int[np.ndarray, " chosen"]) -> Self:
        """Some of the pairs, in the order given."""
        index = torch.from_numpy(np.asarray(pairs, np.int64))
        return type(self)(
            self.source[index.to(self.source.device)],
            self.target[index.to(self.target.device)],
            self.group[pairs],
            self.unit[pairs],
            [self.labels[pair] for pair in pairs.tolist()],
        )


def split_tokens(
    n: int, shares: tuple[float, float, float], seed: int, ordered: Bool[np.ndarray, " pair"] | None = None
) -> Int8[np.ndarray, " pair"]:
    """Deal pairs to train, val and test at random; those of ordered sets are kept out of all three.

    shares: of train, val and test, which sum to 1; sizes are rounded down for val and test.
    """
    group = np.full(n, Group.ORDERED, np.int8)
    free = np.arange(n) if ordered is None else np.flatnonzero(~ordered)
    drawn = np.random.default_rng([seed, 0]).permutation(free)
    n_val, n_test = int(shares[1] * len(free)), int(shares[2] * len(free))
    group[drawn[:n_test]] = Group.TEST
    group[drawn[n_test : n_test + n_val]] = Group.VAL
    group[drawn[n_test + n_val :]] = Group.TRAIN
    return group
