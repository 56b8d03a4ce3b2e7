"""The config of each stage: its keys, their types and limits, and what --help says of them."""

from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from src.config.features import FeatureEvalConfig
from src.config.matched_rank import MatchedRankConfig
from src.config.sae import SaeConfig
from src.config.schema import Schema
from src.config.shared import DatasetConfig, DtypeName, ModelConfig, Names, StageConfig
from src.hook_points import HOOKS

Layer = Annotated[int, Field(ge=0)]
Layers = Layer | Annotated[list[Layer], Field(min_length=1)] | Literal["all"]
Leap = Annotated[int, Field(ge=1)]
Offsets = int | Annotated[list[int], Field(min_length=1)]
Leaps = Leap | Annotated[list[Leap], Field(min_length=1)] | Literal["all"]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
L1Ratio = Annotated[float, Field(gt=0, le=1)]
Method = Literal[
    "ridge",
    "linear",
    "reduced_rank",
    "lasso",
    "elasticnet",
    "procrustes",
    "procrustes_scaled",
    "jacobian",
    "identity",
    "identity_shift",
    "mean",
]
AlphaUnit = Literal["relative", "absolute"]

MOST_GROUPS = 128  # of sequences: the number of a group is an int8
MOST_FOLDS = 125  # leaves room for val and test


class SequencesConfig(StageConfig):
    """Keys of every stage that reads text: which sequences it sees."""

    model: ModelConfig
    dataset: DatasetConfig
    max_length: int = Field(ge=2, description="tokens of a sequence at most, BOS counted")
    num_tokens: Annotated[int, Field(ge=1)] | None = Field(
        description="stop with the sequence that reaches so many tokens; null = no limit"
    )
    num_sequences: Annotated[int, Field(ge=1)] | None = Field(
        description="stop after so many sequences; null = no limit"
    )
    skip_documents: int = Field(ge=0, description="documents to pass over at the start of the dataset")
    long_documents: Literal["truncate", "split"] = Field(
        description="a document above max_length is cut off, or split into several sequences"
    )


class CollectConfig(SequencesConfig):
    """collect_activations.py."""

    layers: Layers = Field(description="layers to store, counted from 0")
    hooks: list[Literal["resid_pre", "attn_out", "mlp_out", "resid_post"]] = Field(
        min_length=1, description="hooks to store at each of the layers"
    )
    batch_size: int = Field(ge=1, description="sequences per forward pass")
    storage_dtype: DtypeName = Field(description="dtype on disk; a value that it can't hold is an error")
    part_megabytes: int = Field(ge=1, description="size of a part, the unit of writing and resuming; memory holds two")
    sink_norm: Annotated[float, Field(gt=1)] | None = Field(
        description="keep tokens whose norm exceeds this multiple of the median out of statistics; null = keep them"
    )
    non_finite: Literal["error", "mask"] = Field(description="NaN or inf in activations: stop, or keep the token out")
    repair: bool = Field(description="check finished parts against their checksums and remake damaged ones")
    num_workers: Annotated[int, Field(ge=1)] | None = Field(
        description="processes that fill this store together; null = torchrun's WORLD_SIZE, else 1"
    )
    worker_index: Annotated[int, Field(ge=0)] | None = Field(
        description="which of them this is, from 0; null = torchrun's RANK, else 0"
    )

    @field_validator("hooks")
    @classmethod
    def _in_one_order(cls, hooks: list[str]) -> list[str]:
        """The order in which a user names them changes nothing, so it must not make another store."""
        return sorted(set(hooks), key=HOOKS.index)

    @model_validator(mode="after")
    def _one_worker_of_several(self) -> Self:
        if (self.num_workers is None) != (self.worker_index is None):
            raise ValueError("set num_workers and worker_index together, or neither")
        return self


class PairsConfig(Schema):
    """Which pairs of layers (experiment.*)."""

    L: Layers = Field(description="source layers")
    k: Leaps = Field(description="leaps: the target of L is layer L + k")
    position_offset: Offsets = Field(
        description="the target's position less the source's, e.g. [0, 1]: also the next token's activation from this "
        "one's; below 0: an earlier token's. Rows are the tokens that have a counted token at every offset"
    )


class SplitConfig(Schema):
    """Shares of the documents (split.*): whole documents only, those that begin alike always together."""

    train: float = Field(gt=0, lt=1, description="share that is trained or fitted on")
    val: float = Field(gt=0, lt=1, description="share that settings are chosen and fits are checked on")
    test: float = Field(gt=0, lt=1, description="share that is scored in the end, seen by nothing before")

    @model_validator(mode="after")
    def _sum(self) -> Self:
        if abs(self.train + self.val + self.test - 1) > 1e-9:
            raise ValueError(f"train + val + test is {self.train + self.val + self.test:g}; it must be 1")
        return self


class JacobianConfig(Schema):
    """The model's own derivatives (jacobian.*), for method=jacobian."""

    tokens: Annotated[int, Field(ge=1)] | None = Field(
        description="counted tokens of the val documents whose Jacobians are averaged; null = 256"
    )
    batch_size: Annotated[int, Field(ge=1)] | None = Field(
        description="tokens at a time; null = 64 on a CPU, 256 elsewhere"
    )


class TransportConfig(StageConfig):
    """train_transport_operators.py."""

    model: ModelConfig
    dataset: DatasetConfig
    activations: str | None = Field(
        min_length=1, description="name or path of the store; null = the one of this model and dataset"
    )
    hook: Literal["resid_pre", "attn_out", "mlp_out", "resid_post"] = Field(description="hook of source and target")
    experiment: PairsConfig
    method: Method = Field(
        description="linear: ordinary least squares; jacobian: the model's own mean derivative (it runs the model); "
        "identity, identity_shift, mean fit no weight"
    )
    normalize: bool = Field(description="fit variables divided by their standard deviations over the training rows")
    target: Literal["y", "delta"] = Field(
        description="fit y, or y - x, which is penalised towards the identity; the operator predicts y either way"
    )
    auto_tune: bool = Field(
        description="choose alpha (and l1_ratio) by cross-validation; false = use regularization (and l1_ratio)"
    )
    regularization: NotNegative | None = Field(
        description="alpha when auto_tune=false, in alpha_unit; else null. 0 (no penalty) for reduced_rank alone"
    )
    alpha_unit: AlphaUnit = Field(
        description="absolute = scikit-learn's alpha; relative = for ridge and reduced_rank in tr(X'X)/d_model of the "
        "centred training rows, for lasso and elasticnet units of the smallest alpha at which all coefficients are 0"
    )
    alphas: Annotated[list[Positive], Field(min_length=1)] | None = Field(
        description="grid for auto_tune, in alpha_unit; null = the method's own"
    )
    alpha_per_output: bool = Field(description="ridge: choose an alpha for each output dimension by its own R2")
    rank: Annotated[int, Field(ge=1)] | None = Field(
        description="reduced_rank: rank of the operator (of its change for target=delta); null = the best of all ranks "
        "by cross-validation"
    )
    rank_metric: Literal["raw", "whitened"] = Field(
        description="reduced_rank: errors that the best map of a rank has least of: as they are, or in units of the "
        "covariance of y, every direction alike"
    )
    l1_ratio: L1Ratio = Field(description="elasticnet with auto_tune=false: share of the L1 penalty; 1 = lasso")
    l1_ratios: list[L1Ratio] = Field(min_length=1, description="elasticnet: grid for auto_tune")
    max_iter: int = Field(ge=1, description="lasso, elasticnet: sweeps (on a GPU: steps) per output and alpha at most")
    tol: Positive = Field(
        description="lasso, elasticnet: an output is done when its duality gap is below tol * y'y (scikit-learn's rule)"
    )
    jacobian: JacobianConfig
    cv_folds: int = Field(ge=2, le=MOST_FOLDS, description="folds of the cross-validation, by document")
    scoring: Literal["uniform", "variance_weighted"] = Field(
        description="average of R2 over dimensions that chooses alpha"
    )
    split: SplitConfig
    precision: Literal["auto", "float64", "float32"] = Field(
        description="of the products in the moments, added up in float64; auto = float64 where the device is good at it"
    )

    @model_validator(mode="after")
    def _nothing_in_vain(self) -> Self:
        """A key that the method can't heed is a misunderstanding."""
        penalised = ("ridge", "reduced_rank", "lasso", "elasticnet")
        if self.normalize and self.method not in ("linear", *penalised):
            raise ValueError(f"normalize=true means nothing to method={self.method}: leave it out")
        if self.target == "delta" and self.method not in ("linear", *penalised):
            raise ValueError(f"target=delta means nothing to method={self.method}: leave it out")
        if self.method not in penalised and (self.regularization or self.alphas):
            raise ValueError(f"regularization and alphas mean nothing to method={self.method}, which has no penalty")
        for key, value in self.jacobian:
            if value is not None and self.method != "jacobian":
                raise ValueError(f"jacobian.{key}={value} would be ignored: it needs method=jacobian")
        offset = self.experiment.position_offset
        if self.method == "jacobian" and offset not in (0, [0]):
            raise ValueError(
                f"experiment.position_offset={offset} and method=jacobian: the derivative is that at the same token, "
                "offset 0"
            )
        if self.alpha_per_output and not (self.method == "ridge" and self.auto_tune):
            raise ValueError("alpha_per_output=true needs method=ridge and auto_tune=true")
        if self.method != "reduced_rank" and (self.rank is not None or self.rank_metric != "raw"):
            raise ValueError(f"rank and rank_metric mean nothing to method={self.method}: they need reduced_rank")
        if self.regularization == 0 and self.method != "reduced_rank":
            raise ValueError("regularization=0 is method=linear; reduced_rank alone takes no penalty as a penalty")
        if self.method in penalised and self.auto_tune and self.regularization is not None:
            raise ValueError(f"regularization={self.regularization:g} would be ignored: it needs auto_tune=false")
        if self.method in penalised and not self.auto_tune and self.regularization is None:
            raise ValueError("auto_tune=false needs an alpha: set regularization=...")
        return self


class EvalPairsConfig(Schema):
    """Which operators to judge (eval.*)."""

    Ls: Layers = Field(description="source layers")
    ks: Leaps = Field(description="leaps")
    position_offsets: Offsets | Literal["all"] = Field(
        description="position offsets; rows stay those of all offsets that the operators were fitted with"
    )


class EvalConfig(StageConfig):
    """eval.py."""

    model: ModelConfig
    dataset: DatasetConfig
    activations: str | None = Field(
        min_length=1, description="name or path of the store; null = the one of this model and dataset"
    )
    operators: Names | None = Field(description="names or paths of the operators; null = the ones fitted on this store")
    method: Method | None = Field(description="only operators of this method; null = any")
    eval: EvalPairsConfig
    bootstrap: int = Field(ge=100, description="replicates of the bootstrap over documents behind each 95 % interval")
    run_matched_rank: bool = Field(
        description="compare maps of every rank with their ceiling, and size the linear transport subspace"
    )
    matched_rank_only: bool = Field(
        description="the same without the residual metrics of the operators; implies run_matched_rank"
    )
    matched_rank: MatchedRankConfig
    run_features: bool = Field(description="judge how single features of an SAE at each target layer are predicted")
    feature_scores: str | None = Field(
        min_length=1,
        description="name of the feature_scores artifact whose best features are judged (where it lacks a layer, those "
        "of the latest one); null = the latest of each SAE. Lists of features.* come before it",
    )
    features: FeatureEvalConfig
    sae: SaeConfig

    @property
    def matches_ranks(self) -> bool:
        """Whether the matched-rank analysis is asked for."""
        return self.run_matched_rank or self.matched_rank_only

    @model_validator(mode="after")
    def _nothing_in_vain(self) -> Self:
        """A key that nothing heeds is a misunderstanding."""
        if not self.matches_ranks and not self.matched_rank.is_standard:
            raise ValueError("matched_rank.* would be ignored: it needs run_matched_rank=true")
        if not self.run_features and not self.features.is_standard:
            raise ValueError("features.* would be ignored: it needs run_features=true")
        return self
