"""Which row of one vocabulary goes with which row of another: the same text, one to one."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int


@dataclass(frozen=True, eq=False)
class TokenPairs:
    """Pairs of token ids, in the order of the source's ids.

    exact: pairs whose texts are equal, letter case and spaces included; the others are so in lower case only.
    source_left_out, target_left_out: rows that can't be paired, by reason; no_partner: rows of the source whose text
    the target does not have (or has twice).
    """

    source: Int[np.ndarray, " pair"]
    target: Int[np.ndarray, " pair"]
    exact: Bool[np.ndarray, " pair"]
    source_left_out: Mapping[str, int]
    target_left_out: Mapping[str, int]
    no_partner: tuple[int, int]

    def __len__(self) -> int:
        return len(self.source)


@dataclass(frozen=True, eq=False)
class Candidates:
    """The rows of one vocabulary that may be paired, and why the others may not."""

    rows: Int[np.ndarray, " row"]
    left_out: Mapping[str, int]


def candidates(n_rows: int, without: Mapping[str, Bool[np.ndarray, " row"]]) -> Candidates:
    """Rows that a model has learnt one by one.

    without: rows that are left out, by reason (special, padding, untrained, ...); a row counts for the first one only.
    """
    kept = np.ones(n_rows, bool)
    left_out = {}
    for reason, which in without.items():
        left_out[reason] = int((kept & which).sum())
        kept[which] = False
    return Candidates(np.flatnonzero(kept), {reason: count for reason, count in left_out.items() if count})


def pair_by_id(source: Candidates, target: Candidates) -> TokenPairs:
    """For two models with one tokenizer: the same id."""
    common = np.intersect1d(source.rows, target.rows)
    rest = len(source.rows) - len(common), len(target.rows) - len(common)
    return TokenPairs(common, common, np.ones(len(common), bool), source.left_out, target.left_out, rest)


def pair_by_text(
    source: Candidates, source_texts: tuple[str, ...], target: Candidates, target_texts: tuple[str, ...]
) -> TokenPairs:
    """The same text, then of what is left the same in lower case without surrounding spaces; one to one (spec F).

    A text that several rows of a vocabulary have is no name of any of them. The second step takes a form only where one
    row is left on each side.
    """
    ours = {int(row): source_texts[row] for row in source.rows}
    theirs = {int(row): target_texts[row] for row in target.rows}
    exact = _joined(ours, theirs, lambda text: text)
    taken_source, taken_target = set(exact), set(exact.values())
    folded = _joined(
        {row: text for row, text in ours.items() if row not in taken_source},
        {row: text for row, text in theirs.items() if row not in taken_target},
        lambda text: text.strip().lower(),
    )
    pairs = sorted([(s, t, True) for s, t in exact.items()] + [(s, t, False) for s, t in folded.items()])
    first, second, is_exact = (np.array(column) for column in zip(*pairs, strict=True)) if pairs else ([], [], [])
    rest = len(ours) - len(pairs), len(theirs) - len(pairs)
    return TokenPairs(
        np.asarray(first, np.int64),
        np.asarray(second, np.int64),
        np.asarray(is_exact, bool),
        source.left_out,
        target.left_out,
        rest,
    )


def _joined(ours: Mapping[int, str], theirs: Mapping[int, str], form: Callable[[str], str]) -> dict[int, int]:
    forms = [{row: form(text) for row, text in side.items()} for side in (ours, theirs)]
    counts = [Counter(side.values()) for side in forms]
    row_of = {text: row for row, text in forms[1].items() if counts[1][text] == 1}
    return {row: row_of[text] for row, text in forms[0].items() if text and counts[0][text] == 1 and text in row_of}
