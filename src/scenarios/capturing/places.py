"""Which forward pass holds which state: the main pass of a conversation, or a short branch of it."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Wanted:
    """A state: of the last token of `ids`, or the mean over its tokens from `first` on."""

    ids: list[int]
    first: int | None = None


@dataclass(frozen=True)
class Branch:
    """Tokens that are read behind the first `start` tokens of a sequence that was read before."""

    start: int
    ids: list[int]


@dataclass(frozen=True)
class Place:
    """Tokens first..last of a pass (of the main pass if branch is None); their mean is the state."""

    branch: int | None
    first: int
    last: int

    @property
    def tokens(self) -> range:
        """Indices within the pass's own input."""
        return range(self.first, self.last + 1)


def find_places(
    main: Sequence[int], wanted: Sequence[Wanted], causal: bool, cached: bool, n_cached: int | None = None
) -> tuple[list[Place], list[Branch]]:
    """Where each state is read, and the branches that this takes.

    What has its tokens in common with the main pass is read there, the rest in branches from the last common token; one
    branch serves all states along it. Not causal: each state has a pass of its own. Not cached: branches start at 0.

    main: tokens of the main pass. n_cached: so many of them were read (None: all), the others are read by branches.
    """
    main = list(main)
    n_cached = len(main) if n_cached is None else n_cached
    places: list[Place | None] = [None] * len(wanted)
    branches: list[Branch] = []
    paths: list[tuple[list[int], int]] = []  # ids of a branch with all that lies before it, and its start
    order = sorted(range(len(wanted)), key=lambda index: -len(wanted[index].ids))
    for index in order:
        ids, first = wanted[index].ids, wanted[index].first
        first = len(ids) - 1 if first is None else first
        common = min(shared_length(main, ids), n_cached)
        if causal and common == len(ids):
            places[index] = Place(None, first, len(ids) - 1)
            continue
        start = min(common, first, len(ids) - 1) if cached and causal else 0
        place = next(
            (
                number
                for number, (path, begin) in enumerate(paths)
                if begin <= first and path[: len(ids)] == ids and (causal or len(path) == len(ids))
            ),
            None,
        )
        if place is None:
            place = len(branches)
            branches.append(Branch(start, ids[start:]))
            paths.append((ids, start))
        begin = paths[place][1]
        places[index] = Place(place, first - begin, len(ids) - 1 - begin)
    return [place for place in places if place is not None], branches


def shared_length(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens two sequences have in common at their beginning."""
    limit = min(len(one), len(other))
    if one[:limit] == other[:limit]:
        return limit
    return next(i for i in range(limit) if one[i] != other[i])
