"""How alike a word and the kinds above it are, by the true number of steps between them (spec D7)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int64
from scipy import stats
from torch import Tensor

from src.geometry.lexicon.ancestors import find_ancestors
from src.geometry.lexicon.taxonomy import Taxonomy
from src.geometry.words.pair_sums import jackknife_error

# of words that are left out in turn
_MOST_GROUPS = 100


@dataclass(frozen=True, eq=False)
class HypernymPairs:
    """All pairs of a word and a word for a sense above its own, over all parents.

    word, ancestor: indices into the words. steps: the shortest way up, 1 for a parent. depth: of every word's sense,
    the fewest steps up to a root.
    """

    word: Int64[np.ndarray, "pair"]
    ancestor: Int64[np.ndarray, "pair"]
    steps: Int64[np.ndarray, "pair"]
    depth: Int64[np.ndarray, "word"]


def hypernym_pairs(taxonomy: Taxonomy, senses: Sequence[int]) -> HypernymPairs:
    """Every ancestor of a word's sense that is itself a word's sense (BUG D-5: no index in a filtered chain)."""
    chosen = np.asarray(senses, np.int64)
    above = find_ancestors(taxonomy, chosen)
    is_root = np.diff(taxonomy.parent_start)[above.sense] == 0
    depth = np.full(len(chosen), np.iinfo(np.int64).max)
    np.minimum.at(depth, above.row[is_root], above.distance[is_root].astype(np.int64))
    order = np.argsort(chosen, kind="stable")
    first, last = (np.searchsorted(chosen[order], above.sense, side=side) for side in ("left", "right"))
    n_words = np.where(above.distance > 0, last - first, 0)
    entry = np.repeat(np.arange(len(above.row)), n_words)
    within = np.arange(len(entry)) - np.repeat(np.cumsum(n_words) - n_words, n_words)
    return HypernymPairs(above.row[entry], order[first[entry] + within], above.distance[entry].astype(np.int64), depth)


@dataclass(frozen=True)
class Slope:
    """Change for each step up, by least squares, with a 95 % interval over words.

    p: of words at each other's places, two-sided about the mean of the draws. n_ancestors: words above.
    """

    value: float
    low: float
    high: float
    p: float
    n_ancestors: int


@dataclass(frozen=True, eq=False)
class HypernymDecay:
    """Mean cosines of words with their ancestors, and with other words as deep as these.

    steps, n_pairs, n_ancestors: by number of steps. cosine, control: means. slope: of the cosine by steps;
    control_slope: of the control; excess_slope: of their difference. left: the three slopes without each group of
    words, the same groups for all representations of as many words.
    """

    steps: Int64[np.ndarray, "step"]
    n_pairs: Int64[np.ndarray, "step"]
    n_ancestors: Int64[np.ndarray, "step"]
    cosine: Float64[np.ndarray, "step"]
    control: Float64[np.ndarray, "step"]
    slope: Slope
    control_slope: Slope
    excess_slope: Slope
    left: Float64[np.ndarray, "group slope"]


def hypernym_decay(
    units: Float[Tensor, "word d"], pairs: HypernymPairs, permutations: int, seed: int
) -> HypernymDecay | None:
    """Cosines of all word-ancestor pairs, and of each word with those as deep as the ancestor that are not above it.

    The control is the expectation of drawing such a word at random, so nothing is drawn; pairs whose depth has no other
    word are left out. Intervals leave groups of words out, below and above and in the controls (jackknife): a few words
    stand above most others, and each word below several, so that errors clustered by ancestor alone would be several
    times too small. With few words above, one of them decides the interval; p does not suffer from it. None without
    pairs at two numbers of steps.

    Args:
        units: rows of length 1.
        pairs: of words and those above them.
        permutations: of the words; 0 = p is not computed (NaN).
        seed: of the permutations.
    """
    cosine = (units[pairs.word] * units[pairs.ancestor]).sum(-1).cpu().double().numpy()
    everyone = np.ones(len(units), bool)
    control, kept = _control(units, pairs, cosine, everyone)
    levels, place = np.unique(pairs.steps[kept], return_inverse=True)
    if len(levels) < 2:
        return None
    n_pairs = np.bincount(place)
    ancestor = pairs.ancestor[kept]
    values = _slopes(pairs.steps[kept], cosine[kept], control[kept])
    left = []
    for group in _groups(len(units)):
        alive = everyone.copy()
        alive[group] = False
        others, part = _control(units, pairs, cosine, alive)
        left.append(_slopes(pairs.steps[part], cosine[part], others[part]))
    reach = stats.t.ppf(0.975, len(left) - 1) * np.array([jackknife_error(each) for each in np.stack(left, 1)])
    rng, drawn = np.random.default_rng([seed, 5]), []
    for _ in range(permutations):
        moved = units[torch.from_numpy(rng.permutation(len(units))).to(units.device)]
        theirs = (moved[pairs.word] * moved[pairs.ancestor]).sum(-1).cpu().double().numpy()
        drawn.append(_slopes(pairs.steps[kept], theirs[kept], _control(moved, pairs, theirs, everyone)[0][kept]))
    p = np.full(len(values), np.nan)
    if drawn:
        centre = np.mean(drawn, 0)
        beyond = (np.abs(drawn - centre) >= np.abs(values - centre) * (1 - 1e-9)).sum(0)
        p = (1 + beyond) / (1 + permutations)
    n_above = len(np.unique(ancestor))
    return HypernymDecay(
        levels,
        n_pairs,
        np.array([len(np.unique(ancestor[place == level])) for level in range(len(levels))]),
        np.bincount(place, cosine[kept]) / n_pairs,
        np.bincount(place, control[kept]) / n_pairs,
        *(
            Slope(float(value), float(value - by), float(value + by), float(each), n_above)
            for value, by, each in zip(values, reach, p, strict=True)
        ),
        left=np.stack(left),
    )


def _groups(n: int) -> list[Int64[np.ndarray, "member"]]:
    """Of words that are left out together: single ones of few words."""
    order = np.random.default_rng(0).permutation(n)
    return np.array_split(order, min(n, _MOST_GROUPS))


def _slopes(steps: np.ndarray, cosine: np.ndarray, control: np.ndarray) -> Float64[np.ndarray, "three"]:
    """Least squares slopes of the cosine, the control, and their difference; NaN where steps do not differ."""
    design = steps - steps.mean() if len(steps) else np.zeros(0)
    spread = float(design @ design)
    if not spread > 0:
        return np.full(3, np.nan)
    return np.array([design @ values for values in (cosine, control, cosine - control)]) / spread


def _control(
    units: Float[Tensor, "word d"],
    pairs: HypernymPairs,
    cosine: Float64[np.ndarray, "pair"],
    alive: Bool[np.ndarray, "word"],
) -> tuple[Float64[np.ndarray, "pair"], Bool[np.ndarray, "pair"]]:
    """Mean cosine of each pair's word with the words as deep as its ancestor, less itself and its own ancestors.

    Returns it with the pairs that have both words alive, and a control.
    """
    depths, level = np.unique(pairs.depth, return_inverse=True)
    living = np.flatnonzero(alive)
    sums = torch.zeros(len(depths), units.shape[1], dtype=units.dtype, device=units.device)
    index = torch.from_numpy(living).to(units.device)
    sums.index_add_(0, torch.from_numpy(level[living]).to(units.device), units[index])
    total = (units @ sums.T).cpu().double().numpy()
    count = np.tile(np.bincount(level[living], minlength=len(depths)).astype(np.float64), (len(units), 1))
    own = (units * units).sum(-1).cpu().double().numpy()
    there = alive[pairs.word] & alive[pairs.ancestor]
    everyone, above = np.arange(len(units)), (pairs.word[there], level[pairs.ancestor[there]])
    total[everyone, level] -= own
    count[everyone, level] -= 1
    np.subtract.at(total, above, cosine[there])
    np.subtract.at(count, above, 1)
    here = pairs.word, level[pairs.ancestor]
    kept = there & (count[here] > 0)
    return np.where(kept, total[here] / np.maximum(count[here], 1), np.nan), kept
