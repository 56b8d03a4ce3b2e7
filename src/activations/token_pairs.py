"""Which tokens of two stores are the same place in the same text, whatever the tokenizers that cut it.

Texts are compared in lower case and without white space. A token is the same as another one when both cover the same
characters of the same text; under one tokenizer, when they stand at the same position and are the same token.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import Bool, Int, UInt64
from transformers import PreTrainedTokenizerBase

from src.activations.store import ActivationStore
from src.errors import StrataError
from src.text import Keep
from src.text.token_strings import token_strings

# of a text whose end the stores may have cut at different places: enough characters to be told from others
_BEGINNING = 200
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


@dataclass(frozen=True, eq=False)
class PlainTokens:
    """What each token of a vocabulary adds to a text, in lower case and without white space.

    broken: tokens that are a piece of a character: where the next ones stand can't be told.
    """

    texts: tuple[str, ...]
    broken: Bool[np.ndarray, " token"]

    @property
    def lengths(self) -> Int[np.ndarray, " token"]:
        """Characters."""
        return np.array([len(text) for text in self.texts], np.int64)

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase) -> "PlainTokens":
        """All tokens; special ones add nothing."""
        strings = token_strings(tokenizer, range(len(tokenizer)))
        special = set(tokenizer.all_special_ids)
        texts = ["" if token in special else "".join(text.lower().split()) for token, text in strings.items()]
        return cls(tuple(texts), np.array([_REPLACEMENT in text for text in texts], bool))


@dataclass(frozen=True, eq=False)
class PairedTokens:
    """Token i of one store is token i of the other.

    sequence, position: in the source's store; target_*: in the target's. token_id: in the source's vocabulary.
    n_sequences: of the source, and those of them whose text the target has too.
    """

    sequence: Int[np.ndarray, " pair"]
    position: Int[np.ndarray, " pair"]
    token_id: Int[np.ndarray, " pair"]
    target_sequence: Int[np.ndarray, " pair"]
    target_position: Int[np.ndarray, " pair"]
    n_sequences: tuple[int, int]

    def __len__(self) -> int:
        return len(self.sequence)


@dataclass(frozen=True, eq=False)
class _Tokens:
    """Counted tokens of one store whose places have the smallest keys; place: the same number for the same place."""

    place: Int[np.ndarray, " token"]
    sequence: Int[np.ndarray, " token"]
    position: Int[np.ndarray, " token"]
    token_id: Int[np.ndarray, " token"]


def pair_tokens(
    source: ActivationStore,
    target: ActivationStore,
    source_tokens: PlainTokens,
    target_tokens: PlainTokens,
    *,
    same_tokenizer: bool,
    most: int,
    seed: int,
) -> PairedTokens:
    """Pairs of counted tokens of two stores, `most` of them at random, in the order of the source.

    Which ones are drawn depends on their places and the seed alone. Memory: a key for each sequence, and 2 `most`
    tokens of each store.

    Raises StrataError if no sequence of one is in the other.
    """
    keys = [_sequence_keys(store, plain) for store, plain in ((source, source_tokens), (target, target_tokens))]
    partner = _match(*keys)
    matched = np.flatnonzero(partner >= 0)
    if not len(matched):
        raise StrataError(
            f"{source.path.name} and {target.path.name} have no text in common: collect both with the same dataset, "
            "or name others with activations=... and target_activations=..."
        )
    of_source = np.where(partner >= 0, np.arange(len(partner)), -1)
    of_target = np.full(len(keys[1]), -1)
    of_target[partner[matched]] = matched
    first = _drawn_tokens(source, None if same_tokenizer else source_tokens, of_source, 2 * most, seed)
    second = _drawn_tokens(target, None if same_tokenizer else target_tokens, of_target, 2 * most, seed)
    _, ours, theirs = np.intersect1d(first.place, second.place, return_indices=True)
    same = np.array(
        [
            source_tokens.texts[a] == target_tokens.texts[b] and (a == b or not same_tokenizer)
            for a, b in zip(first.token_id[ours].tolist(), second.token_id[theirs].tolist(), strict=True)
        ],
        bool,
    )
    ours, theirs = ours[same], theirs[same]
    smallest = np.argsort(_keys(first.place[ours], seed), kind="stable")[:most]
    ours, theirs = ours[smallest], theirs[smallest]
    order = np.lexsort([first.position[ours], first.sequence[ours]])
    ours, theirs = ours[order], theirs[order]
    return PairedTokens(
        first.sequence[ours],
        first.position[ours],
        first.token_id[ours],
        second.sequence[theirs],
        second.position[theirs],
        (len(partner), len(matched)),
    )


def _sequence_keys(store: ActivationStore, plain: PlainTokens) -> UInt64[np.ndarray, "sequence 2"]:
    """Of each sequence: a digest of its text, and of its first characters."""
    keys = []
    for part in store:
        ids = part.token_ids.tolist()
        start = part.sequence_start.tolist()
        for first, last in pairwise(start):
            text = "".join([plain.texts[token] for token in ids[first:last]])
            keys.append((_digest(text), _digest(text[:_BEGINNING])))
    return np.array(keys, np.uint64).reshape(-1, 2)


def _digest(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=8).digest())


def _match(source: UInt64[np.ndarray, "sequence 2"], target: UInt64[np.ndarray, "other 2"]) -> Int[np.ndarray, " s"]:
    """The target's sequence of each of the source's, -1 for none, one to one.

    Equal texts go together in their order; of the others, those whose beginning no other sequence of either store has.
    """
    partner = np.full(len(source), -1)
    waiting: dict[int, list[int]] = {}
    for place in range(len(target) - 1, -1, -1):
        waiting.setdefault(int(target[place, 0]), []).append(place)
    for place, key in enumerate(source[:, 0].tolist()):
        if waiting.get(key):
            partner[place] = waiting[key].pop()
    taken = set(partner.tolist())
    beginnings = [dict(_lone(keys[:, 1].tolist())) for keys in (source, target)]
    for key, place in beginnings[0].items():
        other = beginnings[1].get(key)
        if other is not None and partner[place] < 0 and other not in taken:
            partner[place] = other
    return partner


def _lone(keys: list[int]) -> Iterator[tuple[int, int]]:
    places: dict[int, int] = {}
    for place, key in enumerate(keys):
        places[key] = -1 if key in places else place
    return ((key, place) for key, place in places.items() if place >= 0)


# bits of a place's number that tell where in the sequence it is, and how long it is
_START_BITS, _WIDTH_BITS = 24, 12


def _drawn_tokens(
    store: ActivationStore, plain: PlainTokens | None, named: Int[np.ndarray, " sequence"], most: int, seed: int
) -> _Tokens:
    """Counted tokens of matched sequences, those whose places have the smallest keys.

    plain: None = places are positions, else spans of characters. named: the source's sequence of each, -1 for none.
    """
    kept = _Tokens(*(np.zeros(0, np.int64) for _ in range(4)))
    lengths = None if plain is None else plain.lengths
    for part in store:
        ids, sequence, position = part.token_ids, part.sequence, part.position.astype(np.int64)
        chosen = (part.keep == Keep.COUNTED) & (named[sequence] >= 0)
        if plain is None or lengths is None:
            start, width = position, np.zeros(len(ids), np.int64)
        else:
            width = lengths[ids]
            first = np.repeat(part.sequence_start[:-1], np.diff(part.sequence_start))
            before = np.concatenate([[0], width.cumsum()])
            start = before[:-1] - before[first]
            broken = np.concatenate([[0], plain.broken[ids].cumsum()])
            # up to and with the token: what stands behind a piece of a character has no certain place
            chosen &= (width > 0) & (broken[1:] == broken[first])
        chosen &= (start < 2**_START_BITS) & (width < 2**_WIDTH_BITS)
        place = (((named[sequence] << _START_BITS) | start) << _WIDTH_BITS) | width
        found = _Tokens(*(values[chosen].astype(np.int64) for values in (place, sequence, position, ids)))
        kept = _Tokens(*(np.concatenate(pair) for pair in zip(vars(kept).values(), vars(found).values(), strict=True)))
        if len(kept.place) > most:
            smallest = np.argpartition(_keys(kept.place, seed), most)[:most]
            kept = _Tokens(*(values[smallest] for values in vars(kept).values()))
    return kept


def _keys(place: Int[np.ndarray, " token"], seed: int) -> UInt64[np.ndarray, " token"]:
    """A random number for each place that depends on nothing but the place and the seed (splitmix64, Steele 2014)."""
    with np.errstate(over="ignore"):
        state = place.astype(np.uint64) + np.uint64(seed % 2**63) * np.uint64(0x9E3779B97F4A7C15)
        state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return state ^ (state >> np.uint64(31))
