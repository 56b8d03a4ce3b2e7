"""Which sequences of a dataset are taken: those that are long enough, and that nothing was fitted on."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int32

from src.text.table import content_hashes
from src.text.tokenization import TokenSequence


@dataclass(frozen=True, eq=False)
class SeenText:
    """The beginnings of sequences that something was fitted on, as hashes of their first `n_tokens` tokens at most."""

    n_tokens: int
    hashes: frozenset[int]

    @classmethod
    def of(cls, sequences: Iterable[Int32[np.ndarray, "position"]], n_tokens: int) -> "SeenText":
        """Of the token ids of sequences."""
        return cls(n_tokens, frozenset(content_hashes((ids[:n_tokens] for ids in sequences), seed=0).tolist()))

    def __contains__(self, sequence: TokenSequence) -> bool:
        return int(content_hashes([sequence.token_ids[: self.n_tokens]], seed=0)[0]) in self.hashes


@dataclass
class Selection:
    """Takes sequences of at least `min_tokens` tokens whose beginnings are in none of `seen`, `at_most` of them.

    remedies: what else helps where none is left than another dataset. n_seen, n_short: those passed over, counted while
    the sequences are drawn. longest: tokens of the longest of these.
    """

    min_tokens: int
    seen: tuple[SeenText, ...]
    at_most: int
    remedies: tuple[str, ...] = ()
    n_seen: int = 0
    n_short: int = 0
    longest: int = 0

    def select(self, sequences: Iterable[TokenSequence]) -> Iterator[TokenSequence]:
        """Those that are taken, in their order; nothing is drawn after the last one."""
        taken = 0
        for sequence in sequences:
            if any(sequence in seen for seen in self.seen):
                self.n_seen += 1
            elif len(sequence.token_ids) < self.min_tokens:
                self.n_short += 1
                self.longest = max(self.longest, len(sequence.token_ids))
            else:
                taken += 1
                yield sequence
                if taken == self.at_most:
                    return
