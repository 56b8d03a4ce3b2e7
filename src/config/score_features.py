"""The config of score_features.py: its keys, their types and limits, and what --help says of them."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from src.config.sae import SaeConfig
from src.config.schema import Schema
from src.config.shared import DatasetConfig, ModelConfig, StageConfig
from src.config.stages import Layers, NotNegative

Percent = Annotated[float, Field(gt=0, le=100)]


class WeightsConfig(Schema):
    """Weights of the terms of a score, below 0 where less is better."""

    coherence: float = Field(description="the feature fires at few different tokens")
    focus: float = Field(description="its decoder direction promotes few tokens far above the others")
    causal: float = Field(description="the model predicts worse without it")
    redundancy: float = Field(description="its activations correlate with another feature's")
    dead: float = Field(description="it fires rarely")

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if not any(value for _, value in self):
            raise ValueError("all weights are 0: give at least one term a weight")
        return self


class PresetConfig(Schema):
    """How metrics become a score (preset.*; configs/preset/)."""

    normalisation: Literal["minmax", "quantile"] = Field(
        description="of each metric over the features of a layer: by its range, or by rank (outliers do no harm)"
    )
    missing: Literal["zero", "renormalise"] = Field(
        description="a metric that is unknown counts as 0 after normalisation, or not at all: the others weigh more"
    )
    effect: Literal["per_token", "per_firing"] = Field(
        description="the causal term: change of the text's mean NLL, or change of the NLL for each time it fires"
    )
    first: WeightsConfig = Field(description="of the score that chooses candidates for ablation; causal: attribution")
    final: WeightsConfig = Field(description="of the score itself")


class IntegratedConfig(Schema):
    """Integrated gradients (integrated.*), for causal=integrated: groups x steps passes for each batch and layer."""

    groups: int = Field(ge=1, description="random groups of candidates that are taken away together")
    steps: int = Field(ge=1, description="points on the way from the activation to the activation without a feature")


class ScoreFeaturesConfig(StageConfig):
    """score_features.py."""

    model: ModelConfig
    dataset: DatasetConfig
    sae: SaeConfig
    preset: PresetConfig
    layers: Layers = Field(description="layers whose features are scored; all = every layer that has an SAE")
    sae_l0: Annotated[float, Field(gt=0)] | None = Field(
        description="of the SAEs of sae.release with the wanted layer and width, the one with the nearest average L0; "
        "null = sae.sae_id as it is"
    )
    max_tokens: int = Field(ge=100, description="stop with the document that reaches so many tokens, BOS included")
    context_window: int = Field(ge=2, description="tokens of a document at most, BOS counted; the rest is cut off")
    causal: Literal["ablation", "integrated", "attribution", "none"] = Field(
        description="attribution = first-order effects of all features; ablation = and exact ones of the candidates; "
        "integrated = and estimates of theirs by integrated gradients, at a cost that does not grow with their number; "
        "none = no backward pass"
    )
    candidate_percent: Percent = Field(description="share of the features whose effect is measured (32 at least)")
    top_percent: Percent = Field(description="share of the features that are selected as the best")
    ablation_tokens: int = Field(
        ge=100, description="tokens of the documents, drawn at random, in which candidates are measured"
    )
    integrated: IntegratedConfig
    coherence_prior: NotNegative = Field(
        description="documents that the text's own distribution of tokens counts for when a feature's is estimated; "
        "0 = no shrinkage"
    )
    batch_size: int = Field(ge=1, description="sequences per forward and backward pass")
    rows_per_pass: Annotated[int, Field(ge=1)] | None = Field(
        description="sequences times features in one pass over the layers after an ablation; null = suits the device"
    )
