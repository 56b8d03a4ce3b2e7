"""Config groups that several stages share."""

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from src.config.schema import Schema

DtypeName = Literal["float32", "bfloat16", "float16"]
_Name = Annotated[str, Field(min_length=1)]
# of artifacts or files: one, or several
Names = _Name | Annotated[list[_Name], Field(min_length=1)]


def _folder_name(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._=+-]{0,99}", name):
        raise ValueError("use letters, digits and . _ = + - (a letter or digit first), at most 100 characters")
    return name


class ModelConfig(Schema):
    """A Hugging Face model, from the hub or a local folder (configs/model/)."""

    name: str = Field(description="hub id, or the label of a local model")
    path: str | None = Field(description="local model folder; wins over name")
    revision: str | None = Field(description="branch, tag or commit on the hub")
    dtype: DtypeName | Literal["auto"] = Field(
        description="dtype of weights and forward pass; auto = the checkpoint's own"
    )
    blocks: str | None = Field(
        description="module path of the block list, e.g. model.layers; null = found structurally"
    )
    stack: Literal["auto", "encoder", "decoder"] = Field(
        description="which stack of an encoder-decoder; auto = encoder"
    )
    attention: str | None = Field(
        description="attention implementation, e.g. eager or sdpa; null = the model's default"
    )
    trust_remote_code: bool = Field(
        description="run code that ships with the checkpoint; leave off unless you trust it"
    )


class DatasetConfig(Schema):
    """Text: a local file, a local folder, or a dataset on the hub (configs/dataset/)."""

    dataset_name: str = Field(
        min_length=1, description="local file, glob or folder (.jsonl .json .txt .parquet), or hub id"
    )
    dataset_config: str | None = Field(description="configuration of a hub dataset")
    dataset_data_dir: str | None = Field(description="data directory inside a hub dataset")
    dataset_revision: str | None = Field(description="branch, tag or commit on the hub")
    text_column_name: str = Field(description="column or JSON key that holds the text")
    dataset_split: str | None = Field(description="split of a hub dataset, or the file stem inside a local folder")


class LoggerConfig(Schema):
    """Experiment tracking (configs/logger/)."""

    kind: Literal["none", "wandb"] = Field(description="where tables and figures are logged besides the artifact")
    mode: Literal["online", "offline"] = Field(description="W&B mode")
    project: str = Field(description="W&B project")
    entity: str | None = Field(description="W&B entity; null = your default")
    group: str | None = Field(description="W&B group; null = experiment_name")
    tags: list[str] = Field(description="W&B tags")


class StageConfig(Schema):
    """Keys that every stage has."""

    experiment_name: str = Field(min_length=1, description="label of the study; the W&B group")
    artifacts_dir: str = Field(min_length=1, description="folder that holds all artifacts")
    name: Annotated[str, AfterValidator(_folder_name)] | None = Field(
        description="name of the artifact; null = a label and the first 8 digits of its fingerprint"
    )
    overwrite: bool = Field(description="remake the artifact even if it is there")
    seed: int = Field(ge=0, le=2**63 - 1, description="seed of every random choice")
    device: str = Field(min_length=1, description="auto (cuda, mps, cpu in this order), cpu, cuda, cuda:1, mps")
    threads: Annotated[int, Field(ge=1, le=1024)] | None = Field(
        description="CPU threads for torch and BLAS; null = all cores"
    )
    logger: LoggerConfig
