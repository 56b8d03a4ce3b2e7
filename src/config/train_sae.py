"""The config of train_sae.py: its keys, their types and limits, and what --help says of them."""

import math
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from src.config.shared import DtypeName
from src.config.stages import Layers, NotNegative, Positive, SequencesConfig, SplitConfig
from src.errors import StrataError

Architecture = Literal[
    "topk", "abstopk", "batchtopk", "matryoshka_batchtopk", "standard", "gated", "jumprelu", "matching_pursuit"
]
# what decides the sparsity of each architecture; matching pursuit stops by its residual
_SPARSITY = {
    "topk": "k",
    "abstopk": "k",
    "batchtopk": "k",
    "matryoshka_batchtopk": "k",
    "standard": "l1_coefficient",
    "gated": "l1_coefficient",
    "jumprelu": "l0_coefficient",
    "matching_pursuit": None,
}
_WHOLE_K = ("topk", "abstopk")
_OF_ROWS = ("layer_norm", "constant_norm_rescale")


class TrainSaeConfig(SequencesConfig):
    """train_sae.py. The keys that choose text count where source=model."""

    source: Literal["store", "model"] = Field(
        description="where activations come from: a store of collect_activations.py, or the model itself as it reads "
        "the dataset (nothing is stored)"
    )
    activations: str | None = Field(description="name or path of the store; null = the one of this model and dataset")
    hook: Literal["resid_pre", "attn_out", "mlp_out", "resid_post"] = Field(description="hook that the SAEs read")
    layers: Layers = Field(description="layers that get an SAE each, trained side by side in one pass")
    architecture: Architecture = Field(description="SAELens' name; the group of this name sets the keys that it knows")
    d_sae: Annotated[int, Field(ge=2)] | None = Field(
        description="number of features; null = expansion_factor times d_model"
    )
    expansion_factor: Positive = Field(description="number of features per dimension of the model, where d_sae is null")
    k: Positive | None = Field(
        description="active features per token: of topk and abstopk exactly, of batchtopk and matryoshka on average"
    )
    l1_coefficient: NotNegative | None = Field(description="weight of the L1 penalty: standard, gated")
    l0_coefficient: NotNegative | None = Field(description="weight of the L0 penalty: jumprelu")
    sparsity_warm_up: Annotated[float, Field(ge=0, le=1)] | None = Field(
        description="share of the run over which the penalty grows to its weight: standard, gated, jumprelu"
    )
    aux_loss_coefficient: NotNegative | None = Field(
        description="weight of the loss by which dead features learn what is left over: topk and its kin"
    )
    matryoshka_widths: Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=2)] | None = Field(
        description="ascending numbers of features that must reconstruct by themselves, the last one d_sae; null = an "
        "eighth, a quarter, a half and all of them: matryoshka_batchtopk"
    )
    options: dict[str, Any] | None = Field(
        description="more keys of SAELens' training config of the architecture, e.g. {jumprelu_bandwidth: 0.1}"
    )
    tokens: int = Field(ge=1, description="tokens to train on; the same ones again where there are fewer")
    batch_size: int = Field(ge=1, description="tokens per step")
    lr: Positive = Field(description="learning rate of Adam")
    warm_up: Annotated[float, Field(ge=0, le=1)] = Field(description="share of the run over which lr grows from 0")
    decay: Annotated[float, Field(ge=0, le=1)] = Field(description="share of the run, its last, over which lr falls")
    normalize_activations: Literal[
        "none", "expected_average_only_in", "covariance_whitening", "layer_norm", "constant_norm_rescale"
    ] = Field(
        description="expected_average_only_in: scaled to a mean norm of sqrt(d_model), and folded into the weights at "
        "the end; covariance_whitening: whitened, and folded too"
    )
    b_dec_init: Literal["mean", "zeros"] = Field(
        description="where the decoder's bias starts: the mean activation, or 0"
    )
    buffer_tokens: int = Field(ge=2, description="tokens that are shuffled together; memory holds them for each layer")
    dead_feature_window: int = Field(ge=1, description="steps without firing after which a feature counts as dead")
    dtype: DtypeName = Field(description="dtype of the weights in training")
    storage_dtype: DtypeName = Field(description="dtype of the saved weights; metrics at the end are of these")
    split: SplitConfig
    evaluate_every: Annotated[int, Field(ge=1)] | None = Field(
        description="tokens between evaluations on val documents, for the curves; null = only at the end"
    )
    eval_tokens: int = Field(
        ge=1, description="held-out tokens at most: of test documents at the end, a fifth of it of val documents before"
    )
    loss_recovered: bool = Field(description="also run the model with the reconstructions in place of its activations")
    checkpoint_every: Annotated[int, Field(ge=1)] | None = Field(
        description="tokens between checkpoints, from which a killed run goes on; null = none"
    )
    sequences_per_pass: int = Field(ge=1, description="sequences per forward pass of the model")

    @model_validator(mode="after")
    def _what_the_architecture_heeds(self) -> Self:
        wanted = _SPARSITY[self.architecture]
        heeded = {wanted}
        heeded |= {"aux_loss_coefficient"} if wanted == "k" else {"sparsity_warm_up"} if wanted else set()
        heeded |= {"matryoshka_widths"} if self.architecture == "matryoshka_batchtopk" else set()
        keys = [
            "k",
            "l1_coefficient",
            "l0_coefficient",
            "sparsity_warm_up",
            "aux_loss_coefficient",
            "matryoshka_widths",
        ]
        ignored = [key for key in keys if getattr(self, key) is not None and key not in heeded]
        if ignored:
            has = f"it has {wanted}" if wanted else "more keys of its own go into options"
            raise ValueError(f"{', '.join(ignored)}: not for architecture={self.architecture}, {has}")
        if wanted and getattr(self, wanted) is None:
            raise ValueError(f"architecture={self.architecture} needs {wanted}: set it")
        if self.architecture in _WHOLE_K and self.k != int(self.k or 0):
            raise ValueError(f"k={self.k:g} is no whole number, which architecture={self.architecture} needs")
        if wanted == "k" and self.aux_loss_coefficient and self.normalize_activations in _OF_ROWS:
            raise ValueError(
                f"normalize_activations={self.normalize_activations} does not go with the auxiliary loss of "
                f"architecture={self.architecture}: set aux_loss_coefficient=0.0, or normalise otherwise"
            )
        return self

    @model_validator(mode="after")
    def _sizes(self) -> Self:
        if self.warm_up + self.decay > 1:
            raise ValueError(f"warm_up + decay is {self.warm_up + self.decay:g} of the run; it must be at most 1")
        if self.tokens < self.batch_size:
            raise ValueError(f"tokens={self.tokens} is less than one step of batch_size={self.batch_size}")
        if self.buffer_tokens < 2 * self.batch_size:
            raise ValueError(f"buffer_tokens={self.buffer_tokens} must hold 2 steps of batch_size={self.batch_size}")
        if self.source == "model" and self.activations is not None:
            raise ValueError("activations names a store, and source=model reads none: leave one of them out")
        return self

    def width(self, d_model: int) -> int:
        """The number of features in a model of this width."""
        return self.d_sae if self.d_sae is not None else round(self.expansion_factor * d_model)

    def architecture_keys(self, d_sae: int) -> dict[str, Any]:
        """What SAELens' training config of the architecture is told beside what all have.

        Raises StrataError for matryoshka_widths that do not ascend to d_sae.
        """
        keys = {"k": self.k, "l1_coefficient": self.l1_coefficient, "l0_coefficient": self.l0_coefficient}
        keys["aux_loss_coefficient"] = self.aux_loss_coefficient
        if self.architecture in _WHOLE_K and self.k is not None:
            keys["k"] = int(self.k)
        if self.sparsity_warm_up is not None:
            name = (_SPARSITY[self.architecture] or "").partition("_")[0]
            keys[f"{name}_warm_up_steps"] = round(self.sparsity_warm_up * math.ceil(self.tokens / self.batch_size))
        set_keys: dict[str, Any] = {key: value for key, value in keys.items() if value is not None}
        if self.architecture == "matryoshka_batchtopk":
            widths = self.matryoshka_widths or [max(1, d_sae // share) for share in (8, 4, 2)] + [d_sae]
            if widths != sorted(set(widths)) or widths[-1] != d_sae:
                raise StrataError(f"matryoshka_widths={widths} must ascend, and end with d_sae={d_sae}")
            set_keys["matryoshka_widths"] = widths
        if self.architecture == "matching_pursuit":
            set_keys["decoder_init_norm"] = 1.0  # SAELens takes no other, and warns
        return set_keys | (self.options or {})
