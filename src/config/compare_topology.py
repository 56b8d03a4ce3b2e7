"""The config of compare_topology.py: its keys, their types and limits, and what --help says of them."""

from math import ceil
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from src.config.schema import Schema
from src.config.shared import DatasetConfig, Names, StageConfig


class DrawsConfig(Schema):
    """How often chance is asked (draws.*)."""

    union: int = Field(
        ge=1, description="relabellings of the union of two clouds; the smallest p of a verdict is 3 / (union + 1)"
    )
    paired: int = Field(ge=0, description="shuffles of paired rows, for CKA, RSA and Procrustes")
    halves: int = Field(ge=0, description="random halves of the rows, for the intervals of the same")
    loops: int = Field(ge=0, description="splits of each cloud into halves, whose diagrams are compared")


class PerplexityConfig(Schema):
    """The perplexity of each model on the text of dataset=... (perplexity.*)."""

    measure: bool = Field(description="load each model, and let it read the text")
    max_tokens: int = Field(ge=100, description="stop with the document that reaches so many tokens, BOS included")
    context_window: int = Field(ge=2, description="tokens of a document at most, BOS counted; the rest is cut off")
    batch_size: int = Field(ge=1, description="documents per forward pass")


class CompareTopologyConfig(StageConfig):
    """compare_topology.py."""

    dataset: DatasetConfig
    results: Names = Field(
        description="names or paths of results of measure_topology.py; all = every one of this experiment_name"
    )
    reference: Annotated[str, Field(min_length=1)] | None = Field(
        description="the one of the results that the others are compared with; null = every one with every other"
    )
    match_layers: Literal["index", "depth"] = Field(
        description="layer with layer by index, or by the nearest share of the model's depth"
    )
    pairing: Literal["auto", "rows", "none"] = Field(
        description="which points are of the same prompt or token: auto = those at the same place of the same text; "
        "rows = row with row, on your word; none = none are"
    )
    same_basis: bool | None = Field(
        description="whether two models' coordinates mean the same, so that a union of their clouds means something; "
        "null = found out from paired points, else believed where there are as many"
    )
    level: Annotated[float, Field(gt=0, lt=1)] = Field(description="of significance, after correction")
    draws: DrawsConfig
    perplexity: PerplexityConfig

    @model_validator(mode="after")
    def _can_tell(self) -> Self:
        """With too few draws no p falls below the level."""
        if 3 / (self.draws.union + 1) > self.level:
            raise ValueError(
                f"draws.union={self.draws.union}: no p of a verdict is below {3 / (self.draws.union + 1):.2g}, so no "
                f"clouds could differ at level={self.level:g}; draw {ceil(3 / self.level) - 1} or more"
            )
        return self
