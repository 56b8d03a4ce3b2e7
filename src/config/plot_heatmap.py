"""The config of plot_heatmap.py: its keys, their types and limits, and what --help says of them."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from src.config.shared import StageConfig

_Index = Annotated[int, Field(ge=0)]
_Indices = Annotated[list[_Index], Field(min_length=1)] | Literal["all"]


class PlotHeatmapConfig(StageConfig):
    """plot_heatmap.py."""

    run: str | None = Field(
        min_length=1, description="name or path of the captured scenario; null = the newest of this experiment_name"
    )
    conversations: Annotated[list[str], Field(min_length=1)] | Literal["all"] = Field(
        description="runs of it, e.g. [prompt_0]; all"
    )
    source: str = Field(
        min_length=1,
        description="what is drawn: resid_pre, resid_post, attn_out, mlp_out, q, k, v, mlp_gate, mlp_up, mlp_act, "
        "attention, logits (Activation Lab's names are understood)",
    )
    view: Literal["steps", "generation", "messages"] = Field(
        description="steps: an image per layer and step, a row for each token that the step read; generation: one per "
        "layer, a row for each step; messages: one per layer, a row for each message"
    )
    layers: _Indices = Field(description="layers, from 0; all")
    steps: _Indices = Field(description="view=steps, generation: which steps, 0 = prefill; all")
    messages: _Indices = Field(description="view=messages: which messages, from 0, the reply last; all")
    position: Literal["end", "answer", "mean"] = Field(description="view=messages: which state of a message")
    per_head: bool = Field(description="source=attention: an image for each head, not the mean over heads")
    normalize: Literal["none", "per_image", "signed", "global"] = Field(
        description="scale of the colours: none = fixed (-1 to 1; 0 to 1 where nothing is negative), per_image = range "
        "of each image, signed = largest absolute value of each image on both sides of 0, global = range of all images"
    )
    reduce: Literal["signed", "abs"] = Field(description="abs = absolute values are drawn")
    cmap: Literal["viridis", "magma", "inferno", "plasma", "cividis", "greys", "blues", "redblue"] | None = Field(
        description="colours; null = redblue for normalize=signed, else viridis"
    )
    max_images: int = Field(ge=1, description="refuse to draw more images than this")

    @model_validator(mode="after")
    def _nothing_in_vain(self) -> Self:
        if self.view == "messages" and self.steps != "all":
            raise ValueError("steps=... means nothing to view=messages: leave it out")
        if self.view != "messages" and self.messages != "all":
            raise ValueError(f"messages=... means nothing to view={self.view}: set view=messages")
        return self
