"""The states at many places of a conversation, from one pass over it and short branches."""

from collections.abc import Sequence
from dataclasses import dataclass

from src.models.continuing import GrowingCache
from src.scenarios.capturing.arrays import Arrays, averaged, joined, picked
from src.scenarios.capturing.keeping import Keeper
from src.scenarios.capturing.passes import Reader
from src.scenarios.capturing.places import Branch, Place, Wanted, find_places
from src.scenarios.states import LOGITS

# bytes of recorded states on the device, at about which a pass over a long text is cut into several
_CHUNK_BYTES = 2**30


@dataclass(frozen=True, eq=False)
class ReadConversation:
    """A conversation that was read whole, and where the states that are wanted of it are.

    states: a row for each place in the main pass. cache: holds all of it, and what was read behind it since.
    """

    ids: list[int]
    states: Arrays
    places: list[Place]
    branches: list[Branch]
    cache: GrowingCache | None

    def begin(self, reader: Reader, state: int, room: int, last_use: bool) -> tuple[Arrays, GrowingCache | None]:
        """One of the wanted states, and a cache that holds its tokens, with room for more; None if the model takes none.

        last_use: it may be the conversation's own.
        """
        place = self.places[state]
        if place.branch is None:
            row = sum(other.branch is None for other in self.places[:state])
            start = picked(self.states, [row])
            if self.cache is None:
                return start, None
            whole = last_use and place.last == len(self.ids) - 1
            return start, self.cache if whole else self.cache.fork(place.last + 1, place.last + 1 + room)
        branch = self.branches[place.branch]
        ids = branch.ids[: place.last + 1]
        if self.cache is None:
            return reader.read(ids, [place.last]), None
        cache = self.cache.fork(branch.start, branch.start + len(ids) + room)
        return reader.read(ids, [place.last], cache), cache


def read_conversation(
    reader: Reader, ids: list[int], wanted: Sequence[Wanted], room: int, every_token: Keeper | None = None
) -> ReadConversation:
    """Read a conversation once; what of `wanted` is not in it is left to branches (`read_branches`).

    room: tokens that will be read after it. every_token: gets the states of all tokens, without logits.
    """
    known = reader.known
    before = known.causal, known.cached
    cache = reader.cache(len(ids) + room) if known.cached else None
    places, branches = find_places(ids, wanted, known.causal, known.cached)
    main = [place for place in places if place.branch is None]
    states = _main_pass(reader, ids, main, cache, every_token)
    if (known.causal, known.cached) != before:  # the text is longer than what they hold for
        if every_token is not None:
            every_token.rows()
        return read_conversation(reader, ids, wanted, room, every_token)
    return ReadConversation(ids, states, places, branches, cache)


def read_branches(
    reader: Reader, cache: GrowingCache | None, branches: Sequence[Branch], places: Sequence[Place]
) -> Arrays:
    """A row for each place that is in a branch, in order."""
    held = [place for place in places if place.branch is not None]
    if not held:
        return {}
    rows: dict[tuple[int | None, int], int] = {}
    used = sorted({place.branch for place in held if place.branch is not None})
    tokens = [sorted({token for place in held if place.branch == number for token in place.tokens}) for number in used]
    for number, of_branch in zip(used, tokens, strict=True):
        rows |= {(number, token): len(rows) + index for index, token in enumerate(of_branch)}
    arrays = reader.branches(cache, [branches[number] for number in used], tokens)
    return averaged(arrays, [[rows[place.branch, token] for token in place.tokens] for place in held])


def in_order(main: Arrays, branched: Arrays, places: Sequence[Place]) -> Arrays:
    """A row for each place, from those in the main pass and those in branches."""
    both, n_main = joined([main, branched]), sum(place.branch is None for place in places)
    order, seen = [], {True: 0, False: 0}
    for place in places:
        in_main = place.branch is None
        order.append(seen[in_main] + (0 if in_main else n_main))
        seen[in_main] += 1
    return picked(both, order)


def _main_pass(
    reader: Reader, ids: list[int], places: Sequence[Place], cache: GrowingCache | None, every_token: Keeper | None
) -> Arrays:
    """A row for each place in the pass over a conversation, which is cut into several where it keeps very much."""
    speaking = sorted({0, len(ids) - 1, *(token for place in places for token in place.tokens)})
    tokens = speaking if every_token is None else list(range(len(ids)))
    per_token = reader.bytes_per_token(len(ids))
    size = max(1, _CHUNK_BYTES // per_token) if cache is not None else len(ids)
    size = len(ids) if len(tokens) * per_token <= _CHUNK_BYTES else min(size, len(ids))
    sums: list[Arrays] = [{} for _ in places]
    for start in range(0, len(ids), size):
        piece = range(start, min(start + size, len(ids)))
        kept, heard = [t for t in tokens if t in piece], [t for t in speaking if t in piece]
        arrays = reader.read(ids[start : piece.stop], [t - start for t in kept], cache, [t - start for t in heard])
        states = {name: array for name, array in arrays.items() if name != LOGITS}
        logits = {LOGITS: arrays[LOGITS]}
        if every_token is not None:
            every_token.add(states)
        if len(piece) == len(ids):
            reader.doubt(ids, heard, logits[LOGITS][0], cache)
            groups = [list(place.tokens) for place in places]
            return _rows(states, kept, groups) | _rows(logits, heard, groups)
        for number, place in enumerate(places):
            if group := [token for token in place.tokens if token in piece]:
                share = len(group) / len(place.tokens)
                part = _rows(states, kept, [group]) | _rows(logits, heard, [group])
                sums[number] = _plus(sums[number], {name: array * share for name, array in part.items()})
    return joined(sums)


def _rows(arrays: Arrays, tokens: Sequence[int], groups: Sequence[Sequence[int]]) -> dict:
    """The mean of each group of tokens; the arrays have a row for each of `tokens`."""
    row = {token: place for place, token in enumerate(tokens)}
    return dict(averaged(arrays, [[row[token] for token in group] for group in groups]))


def _plus(one: Arrays, other: Arrays) -> Arrays:
    """The sum of two rows."""
    if not one:
        return other
    both = joined([one, other])
    return {name: array.sum(1, True) for name, array in both.items()}
