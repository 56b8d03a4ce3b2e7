"""The config of scaling_study.py."""

from collections.abc import Sequence
from typing import Annotated, Self

from pydantic import Field, field_validator, model_validator

from src.config.stages import MOST_FOLDS, MOST_GROUPS, Positive, TransportConfig

_FEWEST_BLOCKS = 2


def subset_sizes(fractions: Sequence[float], blocks: int) -> list[int]:
    """How many of the blocks each fraction of the training documents stands for, rounded to whole blocks."""
    return [round(fraction * blocks) for fraction in fractions]


class ScalingConfig(TransportConfig):
    """scaling_study.py: the keys of a fit, and which subsets of the training documents it is repeated on."""

    fractions: list[Annotated[float, Field(gt=0, le=1)]] = Field(
        min_length=2, description="shares of the training documents to fit on, each rounded to whole blocks"
    )
    subsets: int = Field(ge=1, description="random subsets of each fraction; those of one draw are nested")
    blocks: int = Field(
        ge=_FEWEST_BLOCKS,
        le=MOST_FOLDS,
        description="groups that training documents are dealt to; subsets are made of whole blocks",
    )
    test_blocks: int = Field(
        ge=2, description="groups that test documents are dealt to, for intervals by a jackknife over them"
    )
    plateau: Positive = Field(
        description="a curve is flat where R2 grows by less than this for each doubling of the training tokens"
    )

    @field_validator("fractions")
    @classmethod
    def _in_one_order(cls, fractions: list[float]) -> list[float]:
        return sorted(set(fractions))

    @model_validator(mode="after")
    def _subsets_of_whole_blocks(self) -> Self:
        sizes = subset_sizes(self.fractions, self.blocks)
        for place, (fraction, size) in enumerate(zip(self.fractions, sizes, strict=True)):
            if size < _FEWEST_BLOCKS:
                raise ValueError(
                    f"fractions: {fraction:g} of {self.blocks} blocks is {_count(size)}, and cross-validation needs "
                    f"{_FEWEST_BLOCKS}: leave it out, or set blocks={-(-_FEWEST_BLOCKS // fraction):.0f} or more"
                )
            if place and size == sizes[place - 1]:
                raise ValueError(
                    f"fractions: {self.fractions[place - 1]:g} and {fraction:g} are both {_count(size)} of "
                    f"{self.blocks}: leave one out, or set more blocks"
                )
        if len(sizes) < 2:
            raise ValueError("fractions: a curve needs 2 different fractions")
        if self.cv_folds > self.blocks:
            raise ValueError(f"cv_folds={self.cv_folds} needs as many blocks, and there are {self.blocks}")
        if self.blocks + 1 + self.test_blocks > MOST_GROUPS:
            raise ValueError(f"blocks and test_blocks must be at most {MOST_GROUPS - 1} together")
        return self


def _count(blocks: int) -> str:
    return "1 block" if blocks == 1 else f"{blocks} blocks"
