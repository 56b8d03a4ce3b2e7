"""measure_geometry.py analysis=embeddings."""

from typing import Literal

from pydantic import Field

from src.config.schema import Schema


class EmbeddingsConfig(Schema):
    """Embedding and unembedding matrices (embeddings.*)."""

    rows: Literal["words", "tokens", "all"] = Field(
        description="rows that statistics are over; words = of tokens that stand for text, tokens = special ones too, "
        "all = padding rows too, which no token has"
    )
    percentile_rows: int = Field(
        ge=2,
        description="percentiles of cosines are over all pairs among so many rows (of more, drawn; means are always "
        "over all)",
    )
    distance_rows: int = Field(ge=2, le=20_000, description="distances are over all pairs among so many rows")
    ordered_sets: str | None = Field(
        min_length=1, description="JSON of ordered words, added to digits, weekdays, months, ...; null = none"
    )
    categories: str | None = Field(
        min_length=1, description="JSON of words by category; null = English lists of common words"
    )
    permutations: int = Field(ge=1, description="relabellings of an ordered set; the smallest p is 1 / (this + 1)")
    draws: int = Field(ge=1, description="random sets that are matched to each category")
