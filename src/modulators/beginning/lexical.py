"""Vectors of all words of a lexicon: anchors by their relations, the others from the anchors; and how good they are."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor

from src.geometry.lexicon.taxonomy import Taxonomy
from src.geometry.words.matching import Word
from src.modulators.beginning.interpolation import interpolate
from src.modulators.beginning.reconstruction import Reconstruction, reconstruction
from src.modulators.beginning.relational import RelationalSpace, Similarity, similarities
from src.modulators.beginning.words import WordSplit

# permutations of words
_DRAWS = 199
# evaluated words are enough to say how good vectors are
MOST_JUDGED = 1000


@dataclass(frozen=True)
class Lengths:
    """Mean and standard deviation of vectors' lengths."""

    mean: float
    sd: float

    @classmethod
    def of(cls, vectors: Float64[np.ndarray, "word part"]) -> "Lengths":
        """NaN of none."""
        lengths = np.linalg.norm(vectors, axis=1)
        return cls(float(lengths.mean()), float(lengths.std())) if len(lengths) else cls(np.nan, np.nan)


@dataclass(frozen=True, eq=False)
class RelationalQuality:
    """What is known of relational vectors.

    anchors: how well the anchors' own similarities are reproduced, which says only whether the width is enough.
    held_out: of evaluated words, whose vectors are interpolated from anchors'. static: of the same words, by their
    embeddings: what interpolation had to begin with. n_known: words that have a vector. eigenvalues: of the kept
    directions. removed: share of all similarity that double centring takes away. lengths: of vectors of anchors, and
    of interpolated ones.
    """

    similarity: Similarity
    n_anchors: int
    n_known: int
    anchors: Reconstruction
    held_out: Reconstruction
    static: Reconstruction
    eigenvalues: Float64[np.ndarray, " part"]
    removed: float
    anchor_lengths: Lengths
    interpolated_lengths: Lengths


@dataclass(frozen=True, eq=False)
class LexicalVectors:
    """Of the words of a split in the order of `split.words`, anchors first.

    tokens: of each word. judged: places of the evaluated words that quality was measured on.
    """

    tokens: Int[Tensor, " word"]
    vectors: Float[Tensor, "word part"]
    judged: Int[Tensor, " judged"]
    quality: RelationalQuality


def lexical_vectors(
    taxonomy: Taxonomy,
    split: WordSplit,
    embeddings: Float[Tensor, "d_vocab d_model"],
    measure: Similarity,
    width: int,
    neighbours: int,
    temperature: float,
    seed: int,
) -> LexicalVectors:
    """Vectors of anchors by classical scaling, of the rest by what is known of them.

    Words beyond the limit on anchors are placed by their similarities to the anchors. Evaluated words, and those with a
    sense that anything is judged by, are interpolated from the anchors whose embeddings are nearest: nothing of the
    taxonomy is used for them (BUG G-7).

    Args:
        taxonomy: of the words.
        split: the words.
        embeddings: of all tokens, on any device.
        measure: of similarity.
        width: numbers of a vector at most.
        neighbours: that take part in interpolation.
        temperature: of their weights.
        seed: of the null.

    Raises:
        StrataError: anchors that are all alike.
    """
    words = split.words
    tokens = torch.tensor([word.token_ids[0] for word in words])
    rows = embeddings[tokens.to(embeddings.device)].detach().cpu().double()
    n_anchors = len(split.anchors)
    similar = similarities(taxonomy, split.anchors, measure)
    space = RelationalSpace.of(similar, width)
    vectors = torch.zeros(len(words), space.vectors.shape[1], dtype=torch.float64)
    vectors[:n_anchors] = torch.from_numpy(space.vectors)
    taken = split.judged_senses
    placed = [
        i for i, word in enumerate(words) if i >= n_anchors + len(split.evaluated) and taken.isdisjoint(word.senses)
    ]
    for start in range(0, len(placed), n_anchors):
        some = placed[start : start + n_anchors]
        between = similarities(taxonomy, [*split.anchors, *(words[i] for i in some)], measure)
        vectors[some] = torch.from_numpy(space.place(between[n_anchors:, :n_anchors]))
    rest = sorted(set(range(n_anchors, len(words))) - set(placed))
    vectors[rest] = interpolate(rows[rest], rows[:n_anchors], vectors[:n_anchors], neighbours, temperature)

    judged = _judged(len(split.evaluated), seed) + n_anchors
    asked = similarities(taxonomy, [words[i] for i in judged.tolist()], measure)
    quality = RelationalQuality(
        measure,
        n_anchors,
        len(words),
        reconstruction(space.vectors, similar, _DRAWS, seed),
        reconstruction(vectors[judged].numpy(), asked, _DRAWS, seed),
        reconstruction((rows[judged] - rows[:n_anchors].mean(0)).numpy(), asked, _DRAWS, seed),
        space.eigenvalues,
        space.removed,
        Lengths.of(space.vectors),
        Lengths.of(vectors[rest].numpy()),
    )
    return LexicalVectors(tokens, vectors, judged, quality)


def _judged(n: int, seed: int) -> Int[Tensor, " judged"]:
    if n <= MOST_JUDGED:
        return torch.arange(n)
    return torch.from_numpy(np.sort(np.random.default_rng([seed, 13]).choice(n, MOST_JUDGED, replace=False)))


def words_at(split: WordSplit, places: Int[Tensor, " some"]) -> list[Word]:
    """Words of a split by their places."""
    return [split.words[place] for place in places.tolist()]
