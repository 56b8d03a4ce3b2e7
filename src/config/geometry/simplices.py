"""measure_geometry.py analysis=simplices."""

from typing import Annotated, Literal

from pydantic import Field

from src.config.schema import Schema


class SimplicesConfig(Schema):
    """Volumes of random simplices of embeddings, and of states (simplices.*)."""

    k: int = Field(ge=1, le=64, description="dimension of the simplices: k + 1 tokens each")
    n_simplices: int = Field(ge=100, description="simplices drawn")
    pool: int = Field(ge=100, le=16384, description="tokens that all vertices are drawn from; intervals are over these")
    null_draws: int = Field(
        ge=1,
        le=9999,
        description="clouds of the null with the covariance and norms; the smallest p is 1 / (this + 1)",
    )
    resamples: int = Field(ge=100, description="bootstrap resamples of the pool's tokens, for intervals")
    permutations: int = Field(
        ge=1, description="tokens of the second space permuted so often, for correlations of two spaces"
    )
    layer: Annotated[int, Field(ge=0)] | None = Field(
        description="also mean states of tokens after this block, from a store, by themselves and beside embeddings"
    )
    activations: str | None = Field(
        min_length=1, description="name or path of that store; null = the one of this model and dataset"
    )
    occurrences: int = Field(ge=1, description="a token is in the space of a layer if the store counts it so often")
    weights: str | None = Field(
        min_length=1,
        description=".npy file with a weight for each row of the embeddings (a frequency, say): how likely a token "
        "gets into the pool; null = all alike",
    )
    precision: Literal["float64", "float32"] = Field(
        description="float32 = for accelerators that are slow at float64, by QR"
    )
