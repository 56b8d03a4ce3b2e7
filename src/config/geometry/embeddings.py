"""measure_geometry.py analysis=embeddings."""

from pydantic import Field

from src.config.schema import Schema


class EmbeddingsConfig(Schema):
    """Embedding and unembedding matrices (embeddings.*)."""

    permutations: int = Field(ge=1, description="relabellings of an ordered set; the smallest p is 1 / (this + 1)")
