"""The config of compare_runs.py: its keys, their types and limits, and what --help says of them."""

from typing import Annotated, Literal

from pydantic import Field, field_validator

from src.config.shared import Names, StageConfig


class CompareRunsConfig(StageConfig):
    """compare_runs.py."""

    runs: Names | None = Field(
        description="names or paths of results of capture_scenario.py, whose runs are compared; null = the newest "
        "of this "
        "experiment_name; all = every one of it"
    )
    positions: list[Literal["end", "answer", "mean"]] = Field(
        min_length=1,
        description="states of messages that are set beside references: end = last token of the message, answer = "
        "where "
        "the model is about to answer it, mean = over its tokens; those that were not captured are left out",
    )
    sources: Annotated[list[str], Field(min_length=1)] = Field(
        description="states that are compared: resid_pre, resid_post, attn_out, mlp_out (also by Activation Lab's "
        "names: "
        "hidden_in, hidden_out, mlp_down_out)"
    )
    pair_cards: int = Field(
        ge=0, description="with so many runs or fewer each pair of runs has its own charts; with more, matrices alone"
    )
    draws: int = Field(ge=99, description="permutations of labels, for the nulls of what references tell apart")

    @field_validator("positions", "sources")
    @classmethod
    def _each_once(cls, values: list[str]) -> list[str]:
        if len(set(values)) < len(values):
            raise ValueError("name each one once")
        return values
