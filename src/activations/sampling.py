"""A sample of the counted tokens of some sequences of a store, with the text that they stand in."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int
from numpy.typing import NDArray

from src.activations.store import ActivationStore
from src.errors import StrataError
from src.text import Keep


@dataclass(frozen=True, eq=False)
class TokenSample:
    """Tokens ordered by document; a document's tokens lie side by side.

    sequences: the token ids of the whole sequence of each. position: of the token in it. document: of each.
    """

    sequences: Sequence[Int[np.ndarray, " pos"]]
    position: Int[np.ndarray, " token"]
    document: Int[np.ndarray, " token"]

    def __len__(self) -> int:
        return len(self.position)


def sample_tokens(
    store: ActivationStore,
    groups: Int[np.ndarray, " sequence"],
    wanted_groups: Sequence[int],
    documents: Int[np.ndarray, " sequence"],
    n_tokens: int,
    seed: int,
) -> TokenSample:
    """Draw counted tokens of the wanted groups; all of them where there are no more than n_tokens.

    The tokens, in the order of their documents, are cut into n_tokens strata of equal size (but for rounding), and one
    is drawn of each: every token has the same chance, and every document its share.

    groups, documents: of every sequence of the store. Raises StrataError if the groups hold no counted token.
    """
    found: list[NDArray[np.int64]] = []
    for part in store:
        sequence = part.sequence
        counted = (part.keep == Keep.COUNTED) & np.isin(groups[sequence], wanted_groups)
        chosen = sequence[counted]
        found.append(np.stack([documents[chosen], chosen, part.position[counted]], 1).astype(np.int64))
    tokens = np.concatenate(found)
    if not len(tokens):
        raise StrataError(f"{store.path} has no counted token in groups {list(wanted_groups)}: collect more text")
    tokens = tokens[np.lexsort(tokens.T[::-1])]
    chosen = tokens[_one_of_each_stratum(len(tokens), min(n_tokens, len(tokens)), seed)]
    token_ids = _sequences(store, set(chosen[:, 1].tolist()))
    return TokenSample([token_ids[sequence] for sequence in chosen[:, 1].tolist()], chosen[:, 2], chosen[:, 0])


def _one_of_each_stratum(n: int, n_strata: int, seed: int) -> Int[np.ndarray, " stratum"]:
    edges = np.arange(n_strata + 1) * n // n_strata
    return np.random.default_rng(seed).integers(edges[:-1], edges[1:])


def _sequences(store: ActivationStore, wanted: set[int]) -> dict[int, Int[np.ndarray, " pos"]]:
    """Token ids of some sequences of the store."""
    found = {}
    for part in store:
        start = part.sequence_start
        there = [index for index in range(len(start) - 1) if part.first_sequence + index in wanted]
        if there:
            token_ids = part.token_ids
            found |= {part.first_sequence + index: token_ids[start[index] : start[index + 1]] for index in there}
    return found
