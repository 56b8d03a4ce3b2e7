"""How alike a word and the kinds above it are, by the true number of steps between them (spec D7)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64
from scipy import stats
from torch import Tensor

from src.geometry.lexicon.ancestors import find_ancestors
from src.geometry.lexicon.taxonomy import Taxonomy


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
    """Change for each step up, by least squares, with a 95 % interval whose errors are clustered by ancestor."""

    value: float
    low: float
    high: float
    n_clusters: int


@dataclass(frozen=True, eq=False)
class HypernymDecay:
    """Mean cosines of words with their ancestors, and with other words as deep as these.

    steps, n_pairs, n_ancestors: by number of steps. cosine, control: means. slope: of the cosine by steps;
    control_slope: of the control; excess_slope: of their difference.
    """

    steps: Int64[np.ndarray, "step"]
    n_pairs: Int64[np.ndarray, "step"]
    n_ancestors: Int64[np.ndarray, "step"]
    cosine: Float64[np.ndarray, "step"]
    control: Float64[np.ndarray, "step"]
    slope: Slope
    control_slope: Slope
    excess_slope: Slope


def hypernym_decay(units: Float[Tensor, "word d"], pairs: HypernymPairs) -> HypernymDecay | None:
    """Cosines of all word-ancestor pairs, and of each word with those as deep as the ancestor that are not above it.

    The control is the expectation of drawing such a word at random, so nothing is drawn; pairs whose depth has no other
    word are left out. None without pairs at two numbers of steps.
    """
    cosine = (units[pairs.word] * units[pairs.ancestor]).sum(-1).cpu().double().numpy()
    control = _control(units, pairs)
    kept = np.isfinite(control)
    steps, ancestor, cosine, control = pairs.steps[kept], pairs.ancestor[kept], cosine[kept], control[kept]
    levels, place = np.unique(steps, return_inverse=True)
    if len(levels) < 2:
        return None
    n_pairs = np.bincount(place)
    return HypernymDecay(
        levels,
        n_pairs,
        np.array([len(np.unique(ancestor[place == level])) for level in range(len(levels))]),
        np.bincount(place, cosine) / n_pairs,
        np.bincount(place, control) / n_pairs,
        *(clustered_slope(steps, values, ancestor) for values in (cosine, control, cosine - control)),
    )


def _control(units: Float[Tensor, "word d"], pairs: HypernymPairs) -> Float64[np.ndarray, "pair"]:
    """Mean cosine of each pair's word with the words as deep as its ancestor, less itself and its own ancestors."""
    depths, level = np.unique(pairs.depth, return_inverse=True)
    sums = torch.zeros(len(depths), units.shape[1], dtype=units.dtype, device=units.device)
    sums.index_add_(0, torch.from_numpy(level).to(units.device), units)
    total = (units @ sums.T).cpu().double().numpy()
    count = np.broadcast_to(np.bincount(level), total.shape).astype(np.float64)
    own = (units * units).sum(-1).cpu().double().numpy()
    everyone = np.arange(len(units))
    taken = (units[pairs.word] * units[pairs.ancestor]).sum(-1).cpu().double().numpy()
    np.subtract.at(total, (everyone, level), own)
    np.subtract.at(total, (pairs.word, level[pairs.ancestor]), taken)
    count = count.copy()
    np.subtract.at(count, (everyone, level), 1)
    np.subtract.at(count, (pairs.word, level[pairs.ancestor]), 1)
    here = pairs.word, level[pairs.ancestor]
    return np.where(count[here] > 0, total[here] / np.maximum(count[here], 1), np.nan)


def clustered_slope(
    x: Float[np.ndarray, "pair"], y: Float[np.ndarray, "pair"], cluster: Int64[np.ndarray, "pair"]
) -> Slope:
    """Least squares slope of y on x with the CR1 sandwich error (Liang and Zeger 1986) and t of clusters - 1."""
    clusters, member = np.unique(cluster, return_inverse=True)
    n, groups = len(x), len(clusters)
    design = x - x.mean()
    spread = float(design @ design)
    slope = float(design @ y) / spread if spread > 0 else np.nan
    residual = y - y.mean() - slope * design
    scores = np.bincount(member, design * residual)
    if groups < 3 or n < 4:
        return Slope(slope, np.nan, np.nan, groups)
    correction = groups / (groups - 1) * (n - 1) / (n - 2)
    error = float(np.sqrt(correction * (scores @ scores))) / spread
    reach = float(stats.t.ppf(0.975, groups - 1)) * error
    return Slope(slope, slope - reach, slope + reach, groups)
