"""The config of capture_scenario.py: its keys, their types and limits, and what --help says of them."""

from typing import Annotated, Any, Literal

from pydantic import Field

from src.config.schema import Schema
from src.config.shared import DtypeName, StageConfig

Position = Literal["end", "answer", "mean"]
_AT_LEAST_0 = Annotated[int, Field(ge=0)]
_AT_LEAST_1 = Annotated[int, Field(ge=1)]


class _Overrides(Schema):
    """Keys of a block of the scenario file; null = what the file says."""

    def changes(self) -> dict[str, Any]:
        """The keys that the user has set."""
        return self.model_dump(exclude_none=True)


class ModelChoice(_Overrides):
    """The model (model.*; configs/model/): a name or a path takes the place of the scenario's, other keys adjust it."""

    name: str | None = Field(description="hub id, or the label of a local model; null = the scenario's model")
    path: str | None = Field(description="local model folder; wins over name")
    revision: str | None = Field(description="branch, tag or commit on the hub")
    dtype: DtypeName | Literal["auto"] | None = Field(
        description="dtype of weights and forward pass; auto = the checkpoint's own"
    )
    blocks: str | None = Field(description="module path of the block list, e.g. model.layers; null = found")
    stack: Literal["auto", "encoder", "decoder"] | None = Field(description="which stack of an encoder-decoder")
    attention: str | None = Field(description="attention implementation, e.g. eager; null = the model's default")
    trust_remote_code: bool | None = Field(
        description="run code that ships with the checkpoint; leave off unless you trust it"
    )


class GenerationOverrides(_Overrides):
    """How the model goes on (generation.*), in place of what the scenario says."""

    max_new_tokens: _AT_LEAST_1 | None = Field(description="tokens at most; end tokens end it before")
    do_sample: bool | None = Field(description="false = greedy")
    temperature: Annotated[float, Field(ge=1e-4)] | None = Field(description="of sampling (greedy: do_sample=false)")
    top_k: _AT_LEAST_1 | None = Field(description="sample from so many tokens at most")
    top_p: Annotated[float, Field(gt=0, le=1)] | None = Field(
        description="sample from the likeliest tokens that reach this probability"
    )
    seed: Annotated[int, Field(ge=0, lt=2**63)] | None = Field(description="of sampling")


class CaptureOverrides(_Overrides):
    """What is kept of the forward passes (capture.*), in place of what the scenario says."""

    preset: Literal["last_token", "message_ends", "full"] | None = Field(
        description="last_token = the last token before each generated one; message_ends = also every message's end, "
        "and where the model is about to answer; full = also every token, with all attention"
    )
    positions: Annotated[list[Position], Field(min_length=1)] | None = Field(
        description="of each message: its last token, the last token before an answer to it, the mean of its tokens"
    )
    hidden_states: bool | None = Field(description="residual stream, attention and MLP increments")
    attention_weights: bool | None = Field(description="attention of the kept tokens to all before them")
    qkv: bool | None = Field(description="queries, keys and values of the kept tokens, before positions enter")
    mlp: bool | None = Field(description="gate, up projection and neurons of the MLPs")
    logits: bool | None = Field(description="logits of the kept tokens")
    top_k_probs: _AT_LEAST_0 | None = Field(description="likeliest tokens noted with each step; 0 = none")
    layers: Annotated[list[_AT_LEAST_0], Field(min_length=1)] | Literal["all"] | None = Field(
        description="layers, from 0; all layers"
    )
    store_dtype: DtypeName | None = Field(
        description="on the disk; residual stream and increments of single tokens stay in float32"
    )


class CaptureScenarioConfig(StageConfig):
    """capture_scenario.py."""

    scenario: str = Field(
        min_length=1,
        description="a scenario's name in scenarios_dir, a file (YAML), or a folder of them (each in turn)",
    )
    scenarios_dir: str = Field(min_length=1, description="folder of the scenarios that are chosen by name")
    mode: Literal["capture", "validate", "estimate"] = Field(
        description="validate = check files, templates and layers; estimate = tell tokens and bytes; neither loads "
        "weights"
    )
    max_gb: float = Field(gt=0, description="refuse a scenario whose states need more on the disk")
    model: ModelChoice
    generation: GenerationOverrides
    capture: CaptureOverrides
