"""The config of align_models.py: its keys, their types and limits, and what --help says of them."""

from typing import Annotated, Literal, get_args

from pydantic import Field

from src.config.schema import Schema
from src.config.shared import DatasetConfig, ModelConfig, StageConfig
from src.config.stages import SplitConfig

Space = Literal["embeddings", "unembedding", "activations"]
AlignmentMethod = Literal["orthogonal", "scaled", "ridge", "cca"]
METHODS: tuple[AlignmentMethod, ...] = get_args(AlignmentMethod)


class RetrievalConfig(Schema):
    """Is a prediction nearest to its own token? (retrieval.*)."""

    queries: int = Field(ge=1, description="held-out tokens that are asked; more are drawn from")
    candidates: int = Field(ge=2, description="tokens that are looked among; more are drawn from")


class AlignmentConfig(StageConfig):
    """align_models.py."""

    model: ModelConfig
    target: ModelConfig
    dataset: DatasetConfig
    space: Space = Field(description="what is aligned; activations need a store of each model, of the same text")
    method: AlignmentMethod | Literal["all"] = Field(
        description="orthogonal (Procrustes), scaled = with the optimal scale, ridge, cca = canonical correlations"
    )
    compat: Literal["notebook"] | None = Field(
        description="notebook = beside ours also the quantities of the published notebook, mistakes included"
    )
    activations: str | None = Field(
        min_length=1, description="name or path of the source's store; null = the one of model and dataset"
    )
    target_activations: str | None = Field(
        min_length=1, description="name or path of the target's store; null = the one of target and dataset"
    )
    hook: Literal["resid_pre", "attn_out", "mlp_out", "resid_post"] = Field(description="of activations")
    layer: Annotated[int, Field(ge=0)] | None = Field(description="of the source's activations; null = the middle one")
    target_layer: Annotated[int, Field(ge=0)] | None = Field(
        description="of the target's activations; null = the one at the same depth"
    )
    rows: int = Field(ge=30, description="pairs of tokens of activations, drawn at random")
    split: SplitConfig
    alphas: list[Annotated[float, Field(gt=0)]] = Field(
        min_length=1, description="of ridge and cca, in units of the mean eigenvalue; chosen on the validation pairs"
    )
    shuffles: int = Field(ge=1, description="fits on shuffled pairs; the smallest p is 1 / (this + 1)")
    bootstrap: int = Field(ge=2, description="draws of held-out tokens (activations: documents) for intervals")
    curve_points: int = Field(ge=0, description="numbers of anchors of the learning curve; 0 = none")
    permutations: int = Field(ge=1, description="relabellings of an ordered set")
    retrieval: RetrievalConfig
    n_simplices: int = Field(ge=0, description="simplices of held-out tokens whose volumes are compared; 0 = none")

    @property
    def methods(self) -> tuple[AlignmentMethod, ...]:
        """What is fitted."""
        return METHODS if self.method == "all" else (self.method,)
