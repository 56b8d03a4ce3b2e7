"""The config of eval_modulator.py: its keys, their types and limits, and what --help says of them."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from src.config.modulators.geometry import RelationsConfig, VolumesConfig
from src.config.modulators.modulator import Share
from src.config.schema import Schema
from src.config.shared import DatasetConfig, ModelConfig, StageConfig

Measure = Literal["predictions", "sweep", "generations", "relations", "volumes"]
MEASURES: tuple[Measure, ...] = ("predictions", "sweep", "generations", "relations", "volumes")
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


class SweepConfig(Schema):
    """The modulator at strengths of one's own choice (sweep.*)."""

    alphas: list[Share] = Field(
        min_length=1, description="strengths, the same in all layers; the trained ones stay as they are"
    )
    examples: AtLeast1 | None = Field(description="of those that are scored, at most so many; null = all")

    @field_validator("alphas")
    @classmethod
    def _in_order(cls, alphas: list[float]) -> list[float]:
        return sorted(set(alphas))


class GenerationConfig(Schema):
    """Texts side by side (generation.*)."""

    prompts: Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1)] | None = Field(
        description="what the model goes on with; null = beginnings of test examples"
    )
    num_prompts: int = Field(ge=1, description="test examples whose beginnings are prompts")
    prompt_tokens: int = Field(ge=1, description="tokens of such a beginning; of a definition the whole prompt")
    max_new_tokens: int = Field(ge=1, description="tokens at most; end tokens end a text before")
    temperature: Annotated[float, Field(ge=1e-4)] = Field(description="of the sampled texts")
    top_p: Annotated[float, Field(gt=0, le=1)] = Field(
        description="sampled texts take the likeliest tokens that reach this probability"
    )


class EvaluateModulatorConfig(StageConfig):
    """eval_modulator.py."""

    model: ModelConfig
    # `modulator` is the group of what train_modulator.py trains
    trained_modulator: str | None = Field(
        min_length=1,
        description="name or path of what train_modulator.py trained, a control too; null = the only modulator of this "
        "model",
    )
    dataset: DatasetChoice
    measures: list[Measure] = Field(
        min_length=1,
        description="predictions = perplexity, divergence and states of test examples; sweep = the same at fixed "
        "strengths; generations = texts side by side; relations = states of held-out words against the taxonomy; "
        "volumes = simplices of states of test examples",
    )
    examples: AtLeast1 | None = Field(description="test examples that are scored at most, drawn; null = all")
    batch_size: int = Field(ge=1, description="examples in a forward pass")
    sweep: SweepConfig
    generation: GenerationConfig
    relations: RelationsConfig
    volumes: VolumesConfig

    @field_validator("measures")
    @classmethod
    def _in_one_order(cls, measures: list[Measure]) -> list[Measure]:
        """The order in which a user names them changes nothing, so it must not make another artifact."""
        return sorted(set(measures), key=MEASURES.index)
