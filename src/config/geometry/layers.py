"""measure_geometry.py analysis=layers."""

from typing import Annotated, Literal

from pydantic import Field

from src.config.schema import Schema


class LayersConfig(Schema):
    """Norms, cosines and dimensions of states, layer by layer (layers.*)."""

    source: Literal["auto", "store", "model"] = Field(
        description="where states come from: a store, or the model, which reads the dataset and keeps nothing; auto = "
        "the store of this model and dataset if there is one (encoder-decoders always read: both stacks are compared)"
    )
    activations: str | None = Field(
        min_length=1, description="name or path of the store; null = the one of this model and dataset"
    )
    second: str | None = Field(
        min_length=1,
        description="name or path of another model's store of the same text: both models' layers are compared",
    )
    layers: Literal["all"] | Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)] = Field(
        description="blocks whose states are measured; updates need consecutive ones"
    )
    bootstrap: int = Field(ge=0, le=10_000, description="replicates of the bootstrap over documents; 0 = no intervals")
    positions: int = Field(ge=2, le=1024, description="positions of the curve of norms")
    max_length: int = Field(ge=2, description="tokens of a text at most, when the model reads")
    num_tokens: int = Field(ge=1, description="stop with the text that reaches so many tokens, when the model reads")
    batch_size: int = Field(ge=1, description="texts per forward pass, when the model reads")
