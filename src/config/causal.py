"""The config of causal_eval.py: its keys, their types and limits, and what --help says of them."""

from typing import Annotated, Any, Literal, Self, get_args

from pydantic import Field, field_validator, model_validator

from src.config.features import FeatureInterventionsConfig
from src.config.sae import SaeConfig
from src.config.schema import Schema
from src.config.shared import DatasetConfig, ModelConfig, Names, StageConfig
from src.config.stages import Layers, Leaps, Method, Offsets

Position = Annotated[int, Field(ge=0)]
Positions = Annotated[list[Position], Field(min_length=1)]
InterventionName = Literal[
    "transport",
    "rotated",
    "identity",
    "null",
    "mean",
    "resample",
    "zero",
    "transport_features",
    "ablate_features",
    "mean_features",
    "random_features",
]

NEED_AN_OPERATOR = ("transport", "rotated", "null")
OF_FEATURES = ("transport_features", "ablate_features", "mean_features", "random_features")
_NAMES: tuple[InterventionName, ...] = get_args(InterventionName)


class InterventionsConfig(Schema):
    """What is edited, and in which sequences (causal_eval.*)."""

    L: Layers = Field(description="source layers")
    k: Leaps = Field(description="leaps: layer L + k is edited")
    position_offsets: Offsets | Literal["all"] = Field(
        description="of operators that were fitted with experiment.position_offset: written is the prediction from the "
        "token so many positions before; all = every offset there is an operator of"
    )
    js: Annotated[list[Positions], Field(min_length=1)] | Literal["all"] = Field(
        description="positions that are edited together, from 0; each list is an experiment of its own, and all lists "
        "are also pooled; all = every position"
    )
    max_samples: int = Field(ge=1, description="sequences at most")
    max_length: int = Field(ge=2, description="tokens of a sequence at most, BOS counted; what is longer is cut off")
    min_length: Annotated[int, Field(ge=2)] | None = Field(
        description="pass over shorter sequences; null = over those that reach no position of js. max_length = keep "
        "those of full length only, so that all positions are edited in the same sequences"
    )
    skip_initial_n_samples_from_dataset: int = Field(
        ge=0, description="documents to pass over at the start of the dataset"
    )

    @field_validator("js")
    @classmethod
    def _in_one_order(cls, js: list[list[int]] | str) -> list[list[int]] | str:
        """The order of positions within a list, and repeated ones, change nothing."""
        if isinstance(js, str):
            return js
        return [list(positions) for positions in dict.fromkeys(tuple(sorted(set(positions))) for positions in js)]

    @model_validator(mode="after")
    def _within_length(self) -> Self:
        largest = max(max(positions) for positions in self.js) if not isinstance(self.js, str) else 0
        if largest >= self.max_length:
            raise ValueError(
                f"position {largest} is beyond max_length={self.max_length}, whose positions are "
                f"0..{self.max_length - 1}: choose earlier positions, or raise causal_eval.max_length"
            )
        if self.min_length is not None and self.min_length > self.max_length:
            raise ValueError(f"min_length={self.min_length} exceeds max_length={self.max_length}")
        return self


class CausalEvalConfig(StageConfig):
    """causal_eval.py."""

    model: ModelConfig
    dataset: DatasetConfig
    causal_eval: InterventionsConfig
    eval_mode: Literal["pretrained", "baselines"] = Field(
        description="pretrained = fitted operators and their baselines; baselines = what needs no operator"
    )
    hook: Literal["resid_pre", "attn_out", "mlp_out", "resid_post"] | None = Field(
        description="only operators of this hook; null = any. eval_mode=baselines: what is edited; null = resid_post"
    )
    interventions: Annotated[list[InterventionName], Field(min_length=1)] | None = Field(
        description="what is written in place of the activation; null = all that eval_mode has, but for those of "
        "features of an SAE at layer L + k: ablate_features (z = 0), transport_features (z of the operator's "
        "prediction), mean_features (the mean of z), random_features (as many other active features are 0)"
    )
    sae: SaeConfig = Field(description="SAEs of the layers whose features are edited")
    feature_scores: str | None = Field(
        min_length=1,
        description="name of the feature_scores artifact whose best features are edited (where it lacks a layer, those "
        "of the latest one); null = the latest of each SAE. Lists of features.* come before it",
    )
    features: FeatureInterventionsConfig
    directions: str | None = Field(
        min_length=1,
        description="safetensors file with a tensor `directions` [n, d_model], or tensors named after the hook points "
        "that are edited (resid_post.5): only the component along them is replaced; null = the whole activation",
    )
    edit_bos: bool = Field(description="edit BOS and other tokens that statistics leave out, too")
    activations: str | None = Field(
        min_length=1,
        description="name or path of the store that operators were fitted on; null = the one of this model",
    )
    operators: Names | None = Field(
        description="names or paths of the operators, also of several methods; null = the ones fitted on the store"
    )
    method: Method | Annotated[list[Method], Field(min_length=1)] | None = Field(
        description="only operators of this method, or of several side by side; null = any"
    )
    batch_size: int = Field(ge=1, description="sequences that share a clean forward pass")
    rows_per_pass: Annotated[int, Field(ge=1)] | None = Field(
        description="sequences times conditions in one pass over the layers after an edit; null = suits the device"
    )
    bootstrap: int = Field(ge=100, description="replicates of the bootstrap over documents behind each 95 % interval")

    @field_validator("interventions", mode="before")
    @classmethod
    def _null_is_a_name(cls, names: Any) -> Any:
        """YAML reads the name `null` as nothing."""
        return ["null" if name is None else name for name in names] if isinstance(names, list) else names

    @property
    def wanted(self) -> tuple[InterventionName, ...]:
        """The interventions, in the order in which tables show them."""
        chosen = self.interventions or [
            name
            for name in _NAMES
            if name not in OF_FEATURES and (self.eval_mode == "pretrained" or name not in NEED_AN_OPERATOR)
        ]
        return tuple(name for name in _NAMES if name in chosen)

    @property
    def edits_features(self) -> bool:
        """Whether features of SAEs are edited."""
        return any(name in OF_FEATURES for name in self.wanted)

    @model_validator(mode="after")
    def _nothing_in_vain(self) -> Self:
        impossible = [name for name in self.interventions or [] if name in NEED_AN_OPERATOR]
        if self.eval_mode == "baselines" and impossible:
            raise ValueError(
                f"interventions: {', '.join(impossible)} need a fitted operator, and eval_mode=baselines uses none: "
                "leave them out, or set eval_mode=pretrained"
            )
        of_features = [name for name in self.wanted if name in OF_FEATURES]
        if self.eval_mode == "baselines" and of_features:
            raise ValueError(
                f"interventions: {', '.join(of_features)} need the store that operators were fitted on, to check the "
                "SAE against it, and eval_mode=baselines uses none: set eval_mode=pretrained"
            )
        if of_features and self.directions is not None:
            raise ValueError(
                f"interventions: {', '.join(of_features)} edit features, and directions=... edits along directions: "
                "choose one of them"
            )
        if self.features.is_named and not of_features:
            raise ValueError(
                f"features.* says which features are edited, and interventions names none of {', '.join(OF_FEATURES)}: "
                "name some, as in interventions=[transport,ablate_features,transport_features]"
            )
        if "resample" in self.wanted and min(self.batch_size, self.causal_eval.max_samples) < 2:
            raise ValueError(
                "resampling takes activations from another sequence of the batch: set batch_size and "
                "causal_eval.max_samples to at least 2, or name interventions without resample"
            )
        return self
