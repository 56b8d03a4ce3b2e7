"""The config of eval_modulator.py: its keys, their types and limits, and what --help says of them."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from src.config.modulators.geometry import EvaluateGeometryConfig
from src.config.schema import Schema
from src.config.shared import DatasetConfig, ModelConfig, StageConfig

Measure = Literal["predictions", "geometry"]
MEASURES: tuple[Measure, ...] = ("predictions", "geometry")
AtLeast1 = Annotated[int, Field(ge=1)]


class DatasetChoice(Schema):
    """Text to evaluate on in place of the test documents (dataset.*; configs/dataset/)."""

    dataset_name: str | None = Field(
        min_length=1,
        description="local file, glob or folder, or hub id, where documents that the modulator was trained on are "
        "passed over; null = the test documents of what it was trained on",
    )
    dataset_config: str | None = Field(description="configuration of a hub dataset")
    dataset_data_dir: str | None = Field(description="data directory inside a hub dataset")
    dataset_revision: str | None = Field(description="branch, tag or commit on the hub")
    text_column_name: str | None = Field(description="column or JSON key that holds the text; null = text")
    dataset_split: str | None = Field(description="split of a hub dataset, or the file stem inside a local folder")

    @model_validator(mode="after")
    def _named(self) -> Self:
        others = {key: value for key, value in self if value is not None and key != "dataset_name"}
        if self.dataset_name is None and others:
            key, value = next(iter(others.items()))
            raise ValueError(f"{key}={value} would be ignored: it needs dataset_name=...")
        return self

    def chosen(self) -> DatasetConfig | None:
        """The dataset; None for the modulator's own test documents."""
        if self.dataset_name is None:
            return None
        values: dict[str, Any] = self.model_dump()
        return DatasetConfig(**values | {"text_column_name": self.text_column_name or "text"})


class EvaluateModulatorConfig(StageConfig):
    """eval_modulator.py."""

    model: ModelConfig
    modulator: str | None = Field(
        min_length=1,
        description="name or path of what train_modulator.py trained, a control too; null = the only modulator of this "
        "model",
    )
    dataset: DatasetChoice
    measures: list[Measure] = Field(
        min_length=1,
        description="predictions = perplexity, divergence and states of test examples; geometry = relations of "
        "held-out words, volumes of simplices",
    )
    examples: AtLeast1 | None = Field(description="test examples that are scored at most, drawn; null = all")
    batch_size: int = Field(ge=1, description="examples in a forward pass")
    geometry: EvaluateGeometryConfig

    @field_validator("measures")
    @classmethod
    def _in_one_order(cls, measures: list[Measure]) -> list[Measure]:
        """The order in which a user names them changes nothing, so it must not make another artifact."""
        return sorted(set(measures), key=MEASURES.index)
