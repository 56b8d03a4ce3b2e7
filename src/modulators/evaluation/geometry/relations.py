"""What states of words say of the words' places in a taxonomy."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8
from torch import Tensor

from src.geometry.lexicon.distances import path_distances, wu_palmer
from src.geometry.lexicon.taxonomy import UNCONNECTED, Taxonomy
from src.geometry.words.correlations import Correlations, correlate
from src.geometry.words.hypernyms import HypernymDecay, HypernymPairs, hypernym_decay, hypernym_pairs
from src.geometry.words.pair_sums import (
    JackknifeEstimate,
    PairSums,
    Statistic,
    jackknife,
    jackknife_error,
    pair_sums,
    row_blocks,
)

# five bands of path similarity 1 / (1 + distance), as distances from and to: every pair is in one of them (BUG D-4)
BANDS: Mapping[str, tuple[int, int]] = {
    "0.5 to 1": (0, 1),
    "0.25 to 0.5": (2, 3),
    "0.1 to 0.25": (4, 9),
    "0.05 to 0.1": (10, 19),
    "below 0.05": (20, UNCONNECTED - 1),
}


@dataclass(frozen=True, eq=False)
class Kinship:
    """How words are related in a taxonomy.

    distances: path distances, UNCONNECTED where nothing connects two words. wu_palmer: similarities, the mean of both
    directions (NLTK's differ where a word has several ways up); NaN where nothing connects. hypernyms: pairs of a word
    and a word for a kind above it.
    """

    distances: UInt8[np.ndarray, "word word"]
    wu_palmer: Float32[np.ndarray, "word word"]
    hypernyms: HypernymPairs


def kinship(taxonomy: Taxonomy, senses: Sequence[int]) -> Kinship:
    """Of the senses of words, from all pairs at once."""
    similarity = wu_palmer(taxonomy, senses)
    return Kinship(path_distances(taxonomy, senses), (similarity + similarity.T) / 2, hypernym_pairs(taxonomy, senses))


@dataclass(frozen=True, eq=False)
class Band:
    """Pairs of words of like path similarity. mean: of their cosines, with its error over words."""

    n_pairs: int
    mean: JackknifeEstimate


@dataclass(frozen=True, eq=False)
class WordRelations:
    """Cosines of words against their relations in a taxonomy, over all pairs that a path connects (spec G8).

    path: with path similarity and by distance. wu_palmer: Pearson correlation with Wu-Palmer similarity. bands: those
    of BANDS that have pairs, if they were asked for. decay: by steps up; None if it was not, or without pairs at two
    numbers of steps.
    """

    path: Correlations
    wu_palmer: JackknifeEstimate
    bands: Mapping[str, Band]
    decay: HypernymDecay | None


def word_relations(
    units: Float[Tensor, "word d"], related: Kinship, permutations: int | None, seed: int
) -> WordRelations:
    """Measure one set of states.

    Args:
        units: states of the words as rows of length 1 (`unit_rows`: their common mean is taken off before).
        related: of the same words.
        permutations: of the words, for the p of slopes over steps up; None = neither slopes nor bands.
        seed: of the permutations.
    """
    distances = torch.from_numpy(related.distances).to(units.device)
    path = correlate(units, distances)
    wu_palmer = correlation_with_scores(units, torch.from_numpy(related.wu_palmer).to(units.device))
    if permutations is None:
        return WordRelations(path, wu_palmer, {}, None)
    decay = hypernym_decay(units, related.hypernyms, permutations, seed)
    return WordRelations(path, wu_palmer, _bands(pair_sums(units, distances)), decay)


def correlation_with_scores(units: Float[Tensor, "word d"], scores: Float[Tensor, "word word"]) -> JackknifeEstimate:
    """The Pearson correlation of cosines with a symmetric score of pairs, and its delete-one-word jackknife error.

    Every pair of different words counts once, but for those whose score is NaN. Leaving a word out takes the sums of
    its pairs off those of all pairs (spec D12). NaN where cosines or scores are all alike.
    """
    n = len(units)
    known = ~scores.isnan()
    offset = float(scores[known].double().mean()) if bool(known.any()) else 0.0
    sums = units.new_zeros(n, 6)
    for start, stop in row_blocks(n):
        x = scores[start:stop].to(units) - offset
        counted = ~x.isnan()
        counted[torch.arange(stop - start), torch.arange(start, stop)] = False
        x = torch.where(counted, x, 0)
        y = torch.where(counted, (units[start:stop] @ units.T).clamp_(-1, 1), 0)
        powers = (counted.to(units), x, y, x * x, y * y, x * y)
        sums[start:stop] = torch.stack([power.sum(1) for power in powers], dim=1)
    by_word = sums.cpu().double().numpy()
    whole = by_word.sum(0) / 2
    left = _pearson(whole - by_word)
    return JackknifeEstimate(float(_pearson(whole)), jackknife_error(left), left)


def _pearson(sums: np.ndarray) -> np.ndarray:
    n, x, y, xx, yy, xy = np.moveaxis(sums, -1, 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        spread = (xx - x * x / n) * (yy - y * y / n)
        # a spread that is rounding alone has no correlation
        there = spread > 1e-13 * xx * yy
        return np.where(there, (xy - x * y / n) / np.sqrt(np.where(there, spread, 1)), np.nan)


def _bands(sums: PairSums) -> dict[str, Band]:
    n_pairs = sums.histogram.sum(1)
    bands = {}
    for name, (nearest, farthest) in BANDS.items():
        here = (sums.distances >= nearest) & (sums.distances <= farthest)
        if here.any():
            bands[name] = Band(int(n_pairs[here].sum()), jackknife(sums, _mean_of(here)))
    return bands


def _mean_of(here: np.ndarray) -> Statistic:
    return lambda count, total, squares: total[..., here].sum(-1) / count[..., here].sum(-1)
