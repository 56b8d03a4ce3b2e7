"""The config of explain_features.py: its keys, their types and limits, and what --help says of them."""

import re
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator

from src.config.sae import SaeConfig
from src.config.schema import Schema
from src.config.shared import DatasetConfig, ModelConfig, StageConfig
from src.config.stages import Layer, Layers


def _web_address(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("it must begin with http:// or https:// and name a host")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ValueError("it must hold no password and no query: configs are kept with results")
    return text


WebAddress = Annotated[str, AfterValidator(_web_address)]
Seconds = Annotated[float, Field(gt=0)]


class ContextsConfig(Schema):
    """Contexts on a card (contexts.*)."""

    top: int = Field(ge=1, le=200, description="contexts with the highest activations, one for each document at most")
    bands: int = Field(
        ge=0,
        le=20,
        description="bands with equal shares of the firings, from which contexts are drawn at random; 0 = no such",
    )
    per_band: int = Field(ge=1, le=100, description="contexts from each band")
    before: int = Field(ge=0, le=500, description="tokens shown before the one that fires")
    after: int = Field(ge=0, le=500, description="tokens shown after it")


class NeuronpediaConfig(Schema):
    """Neuronpedia's bulk explanations (neuronpedia.*), asked for by sae_path."""

    url: WebAddress = Field(description="address of the public bucket")
    model: str | None = Field(
        min_length=1,
        description="the model as Neuronpedia names it, e.g. gemma-2-2b; null = model.name after its last /",
    )
    all_explanations: bool = Field(
        description="read all files, and keep every explanation of a feature; false = stop when each feature has one"
    )
    attempts: int = Field(ge=1, le=20, description="attempts for each request")
    timeout: Seconds = Field(description="seconds for connecting and for each read")


class ExplainerConfig(Schema):
    """Explanations by a language model (configs/explainer/)."""

    kind: Literal["none", "openai_compatible"] = Field(description="none = nothing is sent anywhere")
    base_url: WebAddress | None = Field(description="address up to and with /v1, e.g. http://localhost:8000/v1")
    model: str | None = Field(min_length=1, description="the model's name at the endpoint")
    api_key_env: str | None = Field(
        pattern=r"^[A-Za-z_][A-Za-z0-9_]*$",
        description="environment variable that holds the key, which is kept nowhere; null = send none",
    )
    contexts: int = Field(ge=1, le=100, description="contexts in a prompt at most; a third of them weaker firings")
    temperature: Annotated[float, Field(ge=0)] | None = Field(description="null = that of the endpoint")
    max_tokens: Annotated[int, Field(ge=1)] | None = Field(description="of an answer; null = as the endpoint likes")
    concurrency: int = Field(ge=1, le=64, description="requests at a time")
    attempts: int = Field(ge=1, le=20, description="attempts for each request")
    timeout: Seconds = Field(description="seconds for connecting and for each read")

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.kind != "none" and (self.base_url is None or self.model is None):
            raise ValueError(f"explainer={self.kind} needs explainer.base_url and explainer.model")
        if self.api_key_env is not None and re.match(r"^(sk|hf|gsk|xai)[-_]", self.api_key_env):
            raise ValueError("explainer.api_key_env is the name of an environment variable, and never the key itself")
        return self


class ExplainConfig(StageConfig):
    """explain_features.py."""

    model: ModelConfig
    dataset: DatasetConfig
    activations: str | None = Field(
        min_length=1, description="name or path of the store; null = the one of this model and dataset"
    )
    sae: SaeConfig
    layers: Layers = Field(description="layers whose SAEs' features are explained; all = those that there is an SAE of")
    sae_layer: Layer | None = Field(description="the same for one layer; null = layers")
    features: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)] | None = Field(
        description="ids of the features, of one layer; null = those of feature_ids_file or feature_scores, else the "
        "most frequent ones"
    )
    feature_ids_file: str | None = Field(
        min_length=1,
        description="JSON list of ids, or feature_scores_{layer}.json, whose scores are shown; {layer} is filled in",
    )
    feature_scores: str | None = Field(
        min_length=1,
        description="name or path of an artifact of score_features.py, whose scores are shown; it also chooses the "
        "features where features and feature_ids_file are null",
    )
    max_features: Annotated[int, Field(ge=1)] | None = Field(
        description="features of a layer at most: the first of a file, the best by score, or the most frequent; null = "
        "no limit"
    )
    cards: bool = Field(
        description="make cards from a store and SAEs; false = Neuronpedia's explanations alone, without either"
    )
    contexts: ContextsConfig
    promoted: int = Field(
        ge=0, le=100, description="words that a feature promotes and suppresses most; 0 = none, and no model is loaded"
    )
    neighbours: int = Field(ge=0, le=100, description="nearest features by the cosine of decoder directions")
    sae_path: str | None = Field(
        pattern=r"^[\w.{}-]+$",
        description="the SAE at Neuronpedia, e.g. {layer}-gemmascope-res-16k; auto = as SAELens knows it; null = do "
        "not ask Neuronpedia",
    )
    neuronpedia: NeuronpediaConfig
    cache_dir: str = Field(min_length=1, description="folder for downloads and for answers of the explainer")
    output_file: str | None = Field(
        min_length=1,
        description="where else to write the explanations, as JSON; {layer} is filled in; null = in the artifact alone",
    )
    explainer: ExplainerConfig

    @property
    def wanted_layers(self) -> Layers:
        """The layers, by whichever key."""
        return self.layers if self.sae_layer is None else self.sae_layer

    @model_validator(mode="after")
    def _nothing_in_vain(self) -> Self:
        layers: Any = self.wanted_layers
        if self.features is not None and self.feature_ids_file is not None:
            raise ValueError("features and feature_ids_file both say which features: set one of them")
        several = layers == "all" or (isinstance(layers, list) and len(layers) > 1)
        if self.features is not None and several:
            raise ValueError("features names features of one layer's SAE: set sae_layer=...")
        for key in ("feature_ids_file", "output_file", "sae_path"):
            text = getattr(self, key)
            if several and text is not None and text != "auto" and "{layer}" not in text:
                raise ValueError(f"{key}={text} is one for several layers: put {{layer}} into it, or set sae_layer=...")
        if self.output_file is not None and self.sae_path is None and self.explainer.kind == "none":
            raise ValueError("output_file is for explanations: set sae_path=... (Neuronpedia) or an explainer")
        if not self.cards:
            if self.sae_path is None or self.sae_path == "auto":
                raise ValueError(
                    "cards=false leaves Neuronpedia's explanations alone: set sae_path=..., e.g. "
                    "{layer}-gemmascope-res-16k"
                )
            if layers == "all":
                raise ValueError(
                    "cards=false has no SAEs that could tell the layers: set layers=[...] or sae_layer=..."
                )
            if self.explainer.kind != "none":
                raise ValueError("the explainer reads contexts, which cards=false leaves out")
        return self
