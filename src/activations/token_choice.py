"""Which tokens of a text become the points of a cloud: chosen from token ids alone, before any activation is read."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Self

import numpy as np
from jaxtyping import Bool, Int, Int32

from src.activations.store import ActivationStore
from src.errors import NotApplicableError, StrataError
from src.text import Keep, TokenSequence

Place = Literal["last", "first", "cls", "index", "mean", "max", "all", "label"]
# tokens before a chosen one that are kept with it, for readers
_CONTEXT = 15


@dataclass(frozen=True)
class TokenChoice:
    """How tokens become points.

    place: `last`, `first`, `index`: one counted token of each sequence; `cls`: its position 0, counted or not; `mean`,
        `max`: all counted tokens of a sequence, pooled; `all`: any counted token; `label`: those that carry a label.
    index: of a counted token in its sequence, from 0 (-1: the last), for `index`.
    labels: the label of each token id, for `label`. Labels are ordered by their first mention.
    contexts: so many tokens (or sequences) of one label are averaged into each point; None: all of them into one.
    n_points: at most; drawn at random, the same number for every label. None: all there are.
    """

    place: Place = "last"
    index: int = 0
    labels: tuple[tuple[int, str], ...] = ()
    contexts: int | None = 1
    n_points: int | None = None
    seed: int = 0


@dataclass(frozen=True, eq=False)
class TokenBlock:
    """Whole sequences, token by token. sequence: index of each token's sequence in the whole text."""

    token_ids: Int[np.ndarray, "token"]
    position: Int[np.ndarray, "token"]
    sequence: Int[np.ndarray, "token"]
    keep: Int[np.ndarray, "token"]


@dataclass(frozen=True, eq=False)
class ChosenTokens:
    """Tokens that go into points; several of them into one where they are pooled.

    sequence, position, token_id, point: of each token. pooled: points are taken over all counted tokens of their
    sequences; `position` is then that of the last one. largest: the largest value of each coordinate is taken, in place
    of the mean. label: of each point, an index into `labels`, -1 for none. context: of each point's first token, the
    ids before it and its own.
    """

    sequence: Int[np.ndarray, "token"]
    position: Int[np.ndarray, "token"]
    token_id: Int[np.ndarray, "token"]
    point: Int[np.ndarray, "token"]
    pooled: bool
    largest: bool
    label: Int[np.ndarray, "point"]
    labels: tuple[str, ...]
    context: Sequence[Int32[np.ndarray, "before"]]

    @property
    def n_points(self) -> int:
        """Number of points."""
        return len(self.label)

    def moved(self, sequence: Int[np.ndarray, "token"]) -> Self:
        """The same tokens, where their sequences have other indices (in the same order)."""
        return replace(self, sequence=sequence)


def store_tokens(store: ActivationStore) -> Iterator[TokenBlock]:
    """The tokens of a store, part by part."""
    for part in store:
        yield TokenBlock(part.token_ids, part.position, part.sequence, part.keep)


def sequence_tokens(sequences: Sequence[TokenSequence]) -> Iterator[TokenBlock]:
    """The tokens of sequences in memory, as one block."""
    lengths = [len(sequence.token_ids) for sequence in sequences]
    yield TokenBlock(
        np.concatenate([sequence.token_ids for sequence in sequences]),
        np.concatenate([np.arange(length) for length in lengths]),
        np.repeat(np.arange(len(lengths)), lengths),
        np.concatenate([sequence.roles for sequence in sequences]),
    )


def choose_tokens(
    blocks: Callable[[], Iterable[TokenBlock]],
    choice: TokenChoice,
    sequence_labels: Sequence[str] | None = None,
) -> ChosenTokens:
    """Choose tokens in two passes over the ids: one counts, one takes what was drawn. Memory holds one block.

    sequence_labels: of each sequence, where texts have labels of their own (then `choice.labels` has none).

    Raises:
        StrataError: no token to choose from, a label that too few tokens carry, fewer points than labels.
    """
    classes = _Classes(choice, sequence_labels)
    counts = np.zeros(max(1, len(classes.names)), np.int64)
    for block in blocks():
        label = classes.of(block, _candidates(block, choice))
        counts += np.bincount(label[label >= 0], minlength=len(counts))
    drawn = _draw(counts, classes.names, choice)
    sizes = [choice.contexts or len(ranks) for ranks in drawn]
    points = [len(ranks) // size for ranks, size in zip(drawn, sizes, strict=True)]
    label = np.repeat(np.arange(len(drawn)), points)
    point = np.repeat(np.arange(len(label)), np.array(sizes)[label])
    is_first = np.diff(point, prepend=-1) > 0
    draw, sequence, position, token_id, contexts = _take(blocks(), choice, classes, drawn, is_first)
    by_draw = np.argsort(draw)
    return ChosenTokens(
        sequence=sequence[by_draw],
        position=position[by_draw],
        token_id=token_id[by_draw],
        point=point,
        pooled=choice.place in ("mean", "max"),
        largest=choice.place == "max",
        label=label if classes.names else np.full_like(label, -1),
        labels=classes.names,
        context=[contexts[place] for place in np.flatnonzero(is_first).tolist()],
    )


def _draw(
    counts: Int[np.ndarray, "label"], names: Sequence[str], choice: TokenChoice
) -> list[Int[np.ndarray, "drawn"]]:
    """For each label the ranks of its drawn candidates, in the order of points; whole points only."""
    _refuse_too_few(counts, names, choice)
    if choice.contexts is None:
        return [np.arange(count) for count in counts]
    n_points = counts // choice.contexts
    if choice.n_points is not None:
        n_points = np.minimum(n_points, choice.n_points // len(counts))
    drawn = []
    for label, (count, n) in enumerate(zip(counts.tolist(), (n_points * choice.contexts).tolist(), strict=True)):
        ranks = np.random.default_rng([choice.seed, label]).choice(count, n, replace=False)
        # the order of the text where a point is one candidate; chance decides which ones are averaged together
        drawn.append(np.sort(ranks) if choice.contexts == 1 else ranks)
    return drawn


def _refuse_too_few(counts: Int[np.ndarray, "label"], names: Sequence[str], choice: TokenChoice) -> None:
    needed = choice.contexts or 1
    if not names and counts[0] < needed:
        what = f"only {counts[0]} fit; contexts={needed} needs more" if counts[0] else "none fits"
        raise StrataError(f"tokens={choice.place}: of the counted tokens {what}; collect more text, or choose others")
    few = [f"{name!r} ({count})" for name, count in zip(names, counts, strict=False) if count < needed]
    if few and needed == 1:
        found = ", ".join(few).replace(" (0)", "")
        raise NotApplicableError(
            f"{found} never occurs among the counted tokens: take it off the list, or collect more text"
        )
    if few:
        raise StrataError(
            f"a point needs contexts={needed} counted tokens of one label, and there are too few of "
            f"{', '.join(few)}: lower contexts, or collect more text"
        )
    if choice.contexts is not None and choice.n_points is not None and choice.n_points < len(counts):
        raise StrataError(f"n_points={choice.n_points} is less than one for each of {len(counts)} labels: raise it")


def _take(
    blocks: Iterable[TokenBlock],
    choice: TokenChoice,
    classes: "_Classes",
    drawn: list[Int[np.ndarray, "drawn"]],
    is_first: Bool[np.ndarray, "draw"],
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[int, Int32[np.ndarray, "before"]]]:
    """What was drawn, in the order of the text: place among all draws, sequence, position, token id.

    And, by their places, the ids up to the draws that are the first of their points.
    """
    seen = [0] * len(drawn)
    first = np.cumsum([0, *map(len, drawn)])
    by_rank = [np.argsort(ranks) for ranks in drawn]
    taken: list[tuple[np.ndarray, ...]] = []
    contexts: dict[int, np.ndarray] = {}
    for block in blocks:
        rows = _candidates(block, choice)
        label_of_row = classes.of(block, rows)
        for label, ranks in enumerate(drawn):
            here = rows[label_of_row == label]
            order = by_rank[label]
            start, stop = np.searchsorted(ranks[order], [seen[label], seen[label] + len(here)])
            places = order[start:stop]
            chosen = here[ranks[places] - seen[label]]
            places = places + first[label]
            taken.append((places, block.sequence[chosen], block.position[chosen], block.token_ids[chosen]))
            for place, row in zip(places[is_first[places]].tolist(), chosen[is_first[places]].tolist(), strict=True):
                begin = row - min(int(block.position[row]), _CONTEXT)
                contexts[place] = block.token_ids[begin : row + 1].astype(np.int32)
            seen[label] += len(here)
    draw, sequence, position, token_id = (np.concatenate(parts).astype(np.int64) for parts in zip(*taken, strict=True))
    return draw, sequence, position, token_id, contexts


def _candidates(block: TokenBlock, choice: TokenChoice) -> Int[np.ndarray, "candidate"]:
    """The rows that may be chosen; one for each sequence that is pooled, its last counted token."""
    if choice.place == "cls":
        return np.flatnonzero((block.position == 0) & (block.keep != Keep.NON_FINITE))
    counted = np.flatnonzero(block.keep == Keep.COUNTED)
    if choice.place in ("all", "label") or not len(counted):
        return counted
    sequence = block.sequence[counted]
    start = np.flatnonzero(np.r_[True, sequence[1:] != sequence[:-1]])
    length = np.diff(np.r_[start, len(sequence)])
    index = {"first": 0, "index": choice.index}.get(choice.place, -1)
    long_enough = length > index if index >= 0 else length >= -index
    return counted[(start + (index if index >= 0 else length + index))[long_enough]]


class _Classes:
    """The label of tokens, or of whole sequences, as an index; everything is class 0 where there are no labels."""

    def __init__(self, choice: TokenChoice, sequence_labels: Sequence[str] | None) -> None:
        words = [label for _, label in choice.labels] if sequence_labels is None else list(sequence_labels)
        self.names = tuple(dict.fromkeys(words))
        index = {name: place for place, name in enumerate(self.names)}
        self._of_sequence = None if sequence_labels is None else np.array([index[label] for label in sequence_labels])
        self._of_token = np.full(1 + max((token for token, _ in choice.labels), default=0), -1)
        for token, label in choice.labels:
            self._of_token[token] = index[label]

    def of(self, block: TokenBlock, rows: Int[np.ndarray, "candidate"]) -> Int[np.ndarray, "candidate"]:
        """The class of each row, -1 for tokens without a label."""
        if self._of_sequence is not None:
            return self._of_sequence[block.sequence[rows]]
        if not self.names:
            return np.zeros(len(rows), np.int64)
        token = block.token_ids[rows]
        known = token < len(self._of_token)
        return np.where(known, self._of_token[np.where(known, token, 0)], -1)
