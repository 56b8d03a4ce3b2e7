"""The keys of the matched-rank analysis of eval.py (matched_rank.*)."""

from typing import Annotated

from pydantic import Field

from src.config.schema import Schema

PERMUTATIONS = 19
FLOOR = 1e-6


class MatchedRankConfig(Schema):
    """How operators are compared with the ceilings of their rank; all null = the standard analysis."""

    permutations: Annotated[int, Field(ge=0)] | None = Field(
        description="replicates of the null of shuffled documents; 0 = none; null = 19, the fewest that allow "
        "p = 0.05 (99 allow 0.01). Each costs, per pair, X'Y over the training rows and cv_folds SVDs of d_model x "
        "d_model"
    )
    floor: Annotated[float, Field(ge=0, lt=1)] | None = Field(
        description="directions are left out whose share of the largest eigenvalue of the correlation matrix is "
        "smaller; null = 1e-6"
    )
    alpha: Annotated[float, Field(ge=0)] | None = Field(
        description="penalty of the reduced-rank regressions, in units of tr(X'X)/d_model; null = that of the operator "
        "if it is a ridge on activations as they are (full rank is then the operator), else 0"
    )
    ranks: Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=1)] | None = Field(
        description="ranks in the table of efficiencies; null = a few from 1 to d_model (files hold all)"
    )

    @property
    def is_standard(self) -> bool:
        """Whether the user has set none of the keys."""
        return all(value is None for value in self.model_dump().values())
