"""The keys of the feature part of eval.py (features.*)."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from src.config.schema import Schema

MAX_FEATURES = 819  # of the reference: 5 % of 16,384


class FeatureEvalConfig(Schema):
    """Which features of the SAEs are judged."""

    feature_ids: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)] | Literal["all"] | None = Field(
        description="features of each SAE, by number, or all; null = from feature_ids_file or feature_ids_dir, else "
        "the best ones of the feature_scores artifact of the SAE, else all"
    )
    feature_ids_file: str | None = Field(
        min_length=1,
        description="JSON with high_quality_feature_ids, or a list; {layer} stands for the target's layer",
    )
    feature_ids_dir: str | None = Field(
        min_length=1,
        description="folder with feature_scores_{layer}.json, or the name of a feature_scores artifact",
    )
    max_features: Annotated[int, Field(ge=1)] | None = Field(
        description="so many features of each SAE at most, from the start of the list, which has the best first; no "
        "limit to feature_ids=all; null = no limit"
    )
    filter_inactive_features: bool = Field(
        description="tables and the reference's JSON show projections at the tokens where a feature truly fires; false "
        "= at all tokens. The parquet file holds both, and predicted firing"
    )

    @model_validator(mode="after")
    def _one_list(self) -> Self:
        named = [
            key for key in ("feature_ids", "feature_ids_file", "feature_ids_dir") if getattr(self, key) is not None
        ]
        if len(named) > 1:
            raise ValueError(f"{' and '.join(f'features.{key}' for key in named)}: set one of them")
        return self

    @property
    def is_standard(self) -> bool:
        """Whether the user has set none of the keys."""
        lists = (self.feature_ids, self.feature_ids_file, self.feature_ids_dir)
        return lists == (None,) * 3 and self.max_features == MAX_FEATURES and self.filter_inactive_features
