"""The keys of stages that look at chosen features of SAEs (features.*): eval.py and causal_eval.py."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from src.config.schema import Schema

MAX_FEATURES = 819  # of the reference: 5 % of 16,384


class FeatureListConfig(Schema):
    """Which features of the SAEs a stage looks at."""

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

    @model_validator(mode="after")
    def _one_list(self) -> Self:
        named = [
            key for key in ("feature_ids", "feature_ids_file", "feature_ids_dir") if getattr(self, key) is not None
        ]
        if len(named) > 1:
            raise ValueError(f"{' and '.join(f'features.{key}' for key in named)}: set one of them")
        return self

    @property
    def is_named(self) -> bool:
        """Whether the user says which features."""
        return (self.feature_ids, self.feature_ids_file, self.feature_ids_dir) != (None,) * 3


class FeatureEvalConfig(FeatureListConfig):
    """Which features of the SAEs are judged."""

    filter_inactive_features: bool = Field(
        description="tables and the reference's JSON show projections at the tokens where a feature truly fires; false "
        "= at all tokens. The parquet file holds both, and predicted firing"
    )

    @property
    def is_standard(self) -> bool:
        """Whether the user has set none of the keys."""
        return not self.is_named and self.max_features == MAX_FEATURES and self.filter_inactive_features


class FeatureInterventionsConfig(FeatureListConfig):
    """Which features of the SAEs are edited, and how many at once."""

    mode: Literal["each", "together"] = Field(
        description="each = every feature is an experiment of its own; together = all of an SAE are edited at once"
    )
