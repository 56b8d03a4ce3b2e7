"""All that is measured of a model's embeddings."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float64, Int

from src.geometry.embedding.categories import CategoryPair, CategoryStatistics, Purity
from src.geometry.embedding.census import Census
from src.geometry.embedding.cosines import CosineHistogram
from src.geometry.embedding.distances import DistanceSummary
from src.geometry.embedding.input_output import InputOutput
from src.geometry.embedding.moments import PairMoments
from src.geometry.embedding.norms import ColumnSummary, NormSummary
from src.geometry.embedding.ordered_sets import FoundSet, OrderStatistics
from src.geometry.embedding.positions import PositionTable
from src.geometry.embedding.relative_bias import RelativeBias
from src.geometry.embedding.spectrum import Spectrum
from src.geometry.embedding.untrained import UntrainedRows


@dataclass(frozen=True, eq=False)
class TableProfile:
    """One table. mean_share: of the mean square of the rows, what their mean makes up."""

    name: Literal["input", "output"]
    width: int
    norms: NormSummary
    centred_norms: NormSummary
    norm_values: Float64[np.ndarray, "token"]
    columns: ColumnSummary
    cosine: PairMoments
    centred_cosine_mean: float
    histogram: CosineHistogram
    spectrum: Spectrum
    distances: DistanceSummary
    mean_squared_distance: float
    mean_share: float


@dataclass(frozen=True, eq=False)
class OrderedWords:
    """A set in the input table. adjusted_p: after Holm, over all sets that were tested."""

    found: FoundSet
    cosines: Float64[np.ndarray, "word word"]
    statistics: OrderStatistics
    adjusted_p: float


@dataclass(frozen=True, eq=False)
class Categories:
    """Of the input table. adjusted_p, adjusted_centred_p: after Holm, over the categories."""

    statistics: Sequence[CategoryStatistics]
    adjusted_p: Sequence[float]
    adjusted_centred_p: Sequence[float]
    centroids: CategoryPair
    purity: Purity


@dataclass(frozen=True, eq=False)
class SpecialTokens:
    """Tokens that stand for no text, in the input table."""

    ids: Int[np.ndarray, "token"]
    texts: Sequence[str]
    norms: Float64[np.ndarray, "token"]
    cosines: Float64[np.ndarray, "token token"]


@dataclass(frozen=True, eq=False)
class EmbeddingProfile:
    """A model's embeddings.

    ids: of the rows that statistics are over. token_ids, untrained, clumped: of all tokens; clumped:
    in one direction with many others. too_short: ordered sets of which
    too few words are single tokens. categories: None without two categories that have words. sizes: depth, width and
    heads as config.json tells them.
    """

    model: str
    census: Census
    sizes: Mapping[str, int]
    n_rows: int
    n_tokens: int
    n_special: int
    tied: bool
    texts: Sequence[str]
    ids: Int[np.ndarray, "token"]
    token_ids: Int[np.ndarray, "token"]
    tables: Sequence[TableProfile]
    ordered: Sequence[OrderedWords]
    too_short: Sequence[FoundSet]
    categories: Categories | None
    special: SpecialTokens
    untrained: UntrainedRows
    clumped: Bool[np.ndarray, "token"]
    input_output: InputOutput | None
    positions: PositionTable | None
    biases: Sequence[RelativeBias]
    notebook: Sequence[Mapping[str, Any]]

    def text(self, token: int | np.integer) -> str:
        """Of a row of the table."""
        return self.texts[int(token)]

    @property
    def n_padding(self) -> int:
        """Rows that no token has."""
        return self.n_rows - self.n_tokens
