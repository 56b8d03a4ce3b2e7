"""Words' vectors whose inner products are their similarities in a taxonomy, and vectors of words beside them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy as np
from jaxtyping import Float64
from scipy.linalg import eigh
from scipy.sparse.linalg import LinearOperator, eigsh

from src.errors import StrataError
from src.geometry.lexicon.distances import path_distances, wu_palmer
from src.geometry.lexicon.taxonomy import UNCONNECTED, Taxonomy
from src.geometry.words.matching import Word

Similarity = Literal["wu_palmer", "path"]
# above so many words the top eigenvectors come from Lanczos' method: a full decomposition is cubic
_DENSE = 1500
# an eigenvalue below this share of the largest is rounding
_NOTHING = 1e-9


def similarities(taxonomy: Taxonomy, words: Sequence[Word], measure: Similarity) -> Float64[np.ndarray, "word word"]:
    """Similarities of the words' chosen senses, symmetric, 1 for one sense and 0 for senses that nothing connects.

    Wu-Palmer: the mean of both orders, which NLTK's definition tells apart (spec D8); path: 1 / (1 + distance).
    """
    senses = np.array([word.senses[0] for word in words])
    if measure == "path":
        distances = path_distances(taxonomy, senses)
        found = np.where(distances == UNCONNECTED, 0.0, 1 / (1 + distances.astype(np.float64)))
    else:
        found = np.nan_to_num(wu_palmer(taxonomy, senses).astype(np.float64))
        found = (found + found.T) / 2
    found[senses[:, None] == senses] = 1
    return found


@dataclass(frozen=True, eq=False)
class RelationalSpace:
    """Classical scaling (Torgerson 1952) of a similarity matrix S: double-centred, as inner products of vectors.

    vectors: the anchors', top eigenvectors times the square roots of their eigenvalues: their lengths say how far a
    word is from the middle, and are kept (BUG G-2). eigenvalues: of the centred matrix, descending, all above 0.
    column_means: of S, which centre similarities of other words. removed: the share of trace S that double centring
    takes away: what all words have in common.
    """

    vectors: Float64[np.ndarray, "anchor part"]
    eigenvalues: Float64[np.ndarray, "part"]
    column_means: Float64[np.ndarray, "anchor"]
    removed: float

    @classmethod
    def of(cls, similar: Float64[np.ndarray, "anchor anchor"], width: int) -> "RelationalSpace":
        """Of so many dimensions at most: only those of positive eigenvalues (spec G3).

        Raises:
            StrataError: all similarities are alike, so that there are no directions.
        """
        means = similar.mean(0)
        values, vectors = _top(similar, means, min(width, len(similar) - 1))
        kept = values > _NOTHING * max(values[0], 1.0)
        if not kept.any():
            raise StrataError("all anchors are equally similar: their relations give no vectors")
        values, vectors = values[kept], vectors[:, kept]
        # of both signs of an eigenvector, one
        vectors = vectors * np.sign(vectors[np.abs(vectors).argmax(0), np.arange(len(values))])
        trace = float(np.trace(similar))
        return cls(vectors * np.sqrt(values), values, means, float(len(similar) * means.mean() / trace))

    def place(self, similar: Float64[np.ndarray, "word anchor"]) -> Float64[np.ndarray, "word part"]:
        """Vectors of other words from their similarities to the anchors; an anchor's own row gives its own vector.

        Nystroem's extension of the eigenvectors (Bengio et al. 2004; for classical scaling: Gower 1968).
        """
        centred = similar - similar.mean(1, keepdims=True) - self.column_means + self.column_means.mean()
        return centred @ (self.vectors / self.eigenvalues)


def _top(
    similar: Float64[np.ndarray, "anchor anchor"], means: Float64[np.ndarray, "anchor"], n: int
) -> tuple[Float64[np.ndarray, "part"], Float64[np.ndarray, "anchor part"]]:
    """The n largest eigenvalues of the double-centred matrix, descending, and their eigenvectors."""
    size = len(similar)
    if size <= _DENSE or n > size // 4:
        centred = similar - means - means[:, None] + means.mean()
        values, vectors = eigh(centred, subset_by_index=[size - n, size - 1])
        return values[::-1], vectors[:, ::-1]

    def centred_product(x: Float64[np.ndarray, " anchor"]) -> Float64[np.ndarray, " anchor"]:
        x = x.ravel() - x.mean()
        y = similar @ x
        return y - y.mean()

    operator: Any = cast(Any, LinearOperator)((size, size), matvec=centred_product, dtype=np.float64)
    # a start of ones would be an eigenvector of 0
    start = np.random.default_rng(0).standard_normal(size)
    values, vectors = eigsh(operator, k=n, which="LA", v0=start)
    order = values.argsort()[::-1]
    return values[order], vectors[:, order]
