"""What eval_modulator.py measures of the geometry of states (measures=[geometry])."""

from typing import Literal, Self

from pydantic import Field, model_validator

from src.config.schema import Schema


class EvaluateGeometryConfig(Schema):
    """Relations of words, and volumes of simplices, with the modulator and without (geometry.*)."""

    carriers: list[str] = Field(
        min_length=1, description="sentences with {word} in them; the states of a word are averaged over these"
    )
    transform: Literal["raw", "centred", "whitened"] = Field(
        description="before cosines: nothing, the words' mean removed, or also equal variance in all directions"
    )
    permutations: int = Field(ge=19, description="of the words, for chance")
    control_draws: int = Field(ge=1, description="draws of the controls that are random")
    k: int = Field(ge=1, le=64, description="dimension of the simplices: k + 1 tokens each, of different documents")
    n_simplices: int = Field(ge=100, description="simplices drawn")
    pool: int = Field(ge=100, le=16384, description="documents that a token each is drawn from, at most")
    null_draws: int = Field(ge=1, le=9999, description="clouds of the null; the smallest p is 1 / (this + 1)")

    @model_validator(mode="after")
    def _placeholder(self) -> Self:
        if any("{word}" not in carrier for carrier in self.carriers):
            raise ValueError("carriers: each needs {word} in it")
        return self
