"""QK and OV circuits in measure_geometry.py analysis=weights."""

from typing import Annotated

from pydantic import Field

from src.config.schema import Schema


class CircuitsConfig(Schema):
    """QK and OV circuits of attention heads (circuits.*)."""

    offsets: list[Annotated[int, Field(ge=0)]] = Field(
        min_length=1, description="tokens from key to query at which QK forms of models with rotary positions are taken"
    )
    null_draws: int = Field(
        ge=19,
        description="random matrices, and dealings of queries to other heads' keys; the smallest p is 1 / (this + 1)",
    )
    null_heads: int = Field(
        ge=2, description="key heads that exchange queries in the null, at most: layers with more are cut at random"
    )
    level: float = Field(gt=0, lt=1, description="false discovery rate at which heads and layers are called different")
    composition: bool | None = Field(
        description="how strongly heads read earlier heads; null = if that takes less than 1.5 GB of memory"
    )
