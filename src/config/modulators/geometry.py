"""What eval_modulator.py measures of the geometry of states (measures=[relations,volumes])."""

from typing import Annotated, Literal

from pydantic import Field, field_validator

from src.config.schema import Schema


class RelationsConfig(Schema):
    """States of held-out words against the taxonomy, with the modulator and without (relations.*)."""

    carriers: list[str] = Field(
        min_length=1, description="sentences with {word} in them; the states of a word are averaged over these"
    )
    transform: Literal["raw", "centred", "whitened"] = Field(
        description="before cosines: nothing, the words' mean removed, or also equal variance in all directions"
    )
    permutations: int = Field(ge=19, description="of the words, for chance")
    control_draws: int = Field(ge=1, description="draws of the controls that are random")

    @field_validator("carriers")
    @classmethod
    def _have_a_place(cls, carriers: list[str]) -> list[str]:
        if any("{word}" not in carrier for carrier in carriers):
            raise ValueError("each needs {word} in it")
        return carriers


class VolumesConfig(Schema):
    """Volumes of simplices of states, with the modulator and without (volumes.*)."""

    k: Annotated[int, Field(ge=1, le=64)] = Field(
        description="dimension of the simplices: k + 1 tokens each, of different documents"
    )
    n_simplices: int = Field(ge=100, description="simplices drawn")
    pool: int = Field(ge=100, le=16384, description="documents that a token each is drawn from, at most")
    null_draws: int = Field(ge=1, le=9999, description="clouds of the null; the smallest p is 1 / (this + 1)")
