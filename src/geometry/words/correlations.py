"""What one representation of words says of their distances in the taxonomy: correlations, means by distance."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64, UInt8
from torch import Tensor

from src.geometry.percentiles import PERCENTILES
from src.geometry.words.pair_sums import (
    BINS,
    JackknifeEstimate,
    PairSums,
    correlation_with,
    jackknife,
    mean_at,
    mean_gradient,
    midranks,
    pair_sums,
)
from src.geometry.words.partial import partial_correlation

# an error from fewer says nothing
_FEWEST_PAIRS = 10


@dataclass(frozen=True, eq=False)
class ByDistance:
    """Cosines of the pairs at each distance, every pair in one row (BUG D-4).

    mean: with its error over words. sd, percentiles: over pairs.
    """

    distances: Int64[np.ndarray, "distance"]
    n_pairs: Int64[np.ndarray, "distance"]
    mean: Sequence[JackknifeEstimate]
    sd: Float64[np.ndarray, "distance"]
    percentiles: Float64[np.ndarray, "distance percentile"]


@dataclass(frozen=True, eq=False)
class Correlations:
    """Cosine against distance over all pairs of words that a path connects.

    pearson: with path similarity 1 / (1 + distance); pearson_distance: with the distance; spearman: with path
    similarity (with the distance it is the same, negative); partial: Pearson with similarity, other properties of the
    pairs held fixed; gradient: mean cosine at similarity >= 0.25 less that at < 0.10. coverage: the share of
    pairs that take part. rank_of_bin: the rank of a cosine by its bin, between -1/2 and 1/2. rank_of_distance,
    similarity_of_distance: of the distances that take part.
    """

    n_words: int
    n_pairs: int
    coverage: float
    pearson: JackknifeEstimate
    pearson_distance: JackknifeEstimate
    spearman: JackknifeEstimate
    partial: JackknifeEstimate
    gradient: JackknifeEstimate
    by_distance: ByDistance
    rank_of_bin: Float[Tensor, "bin"]
    rank_of_distance: dict[int, float]
    similarity_of_distance: dict[int, float]


def correlate(
    units: Float[Tensor, "word d"],
    distances: UInt8[Tensor, "word word"],
    properties: Sequence[Float[np.ndarray, "word"]] = (),
    lowest: int = 0,
) -> Correlations:
    """All pairs, none sampled and none stored (spec D3, D5, D10).

    Args:
        units: rows of length 1.
        distances: of the words, on the same device.
        properties: of words, which the partial correlation holds fixed.
        lowest: pairs below this distance stay out of the correlations (not of the means by distance): 1 where words
            that share a sense share a representation (BUG D-2).
    """
    everything = pair_sums(units, distances)
    sums = everything.without(lowest)
    n_pairs = sums.histogram.sum(1)
    distance = sums.distances.astype(np.float64)
    ranks = (midranks(sums.histogram.sum(0)) - 0.5) / max(int(n_pairs.sum()), 1) - 0.5
    rank_of_bin = torch.from_numpy(ranks).to(units)
    # near pairs first: the rank of the similarity
    similarity_ranks = 0.5 - (midranks(n_pairs) - 0.5) / max(int(n_pairs.sum()), 1)
    ranked = pair_sums(units, distances, rank_of_bin).without(lowest)
    similarity_of = {distance: 1 / (1 + distance) for distance in sums.distances.tolist()}
    n = len(units)
    return Correlations(
        n,
        int(n_pairs.sum()),
        float(n_pairs.sum() / (n * (n - 1) / 2)),
        jackknife(sums, correlation_with(1 / (1 + distance))),
        jackknife(sums, correlation_with(distance)),
        jackknife(ranked, correlation_with(similarity_ranks)),
        partial_correlation(units, distances, similarity_of, properties),
        jackknife(sums, mean_gradient(sums)),
        _by_distance(everything),
        rank_of_bin,
        dict(zip(sums.distances.tolist(), similarity_ranks.tolist(), strict=True)),
        similarity_of,
    )


def _mean(sums: PairSums, place: int, n_pairs: int) -> JackknifeEstimate:
    found = jackknife(sums, mean_at(place))
    return found if n_pairs >= _FEWEST_PAIRS else JackknifeEstimate(found.value, np.nan)


def _by_distance(sums: PairSums) -> ByDistance:
    n_pairs = sums.histogram.sum(1)
    mean = sums.total.sum(0) / 2 / n_pairs
    variance = sums.squares.sum(0) / 2 / n_pairs - mean**2
    reached = np.cumsum(sums.histogram, 1)
    centres = (np.arange(BINS) + 0.5) * (2 / BINS) - 1
    places = [[np.searchsorted(row, share / 100 * row[-1]) for share in PERCENTILES] for row in reached]
    return ByDistance(
        sums.distances,
        n_pairs,
        [_mean(sums, place, int(n_pairs[place])) for place in range(len(n_pairs))],
        np.sqrt(np.maximum(variance, 0)),
        centres[np.array(places, np.int64).reshape(-1, len(PERCENTILES))],
    )
