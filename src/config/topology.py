"""The config of measure_topology.py: its keys, their types and limits, and what --help says of them."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from src.config.protocol import ProtocolConfig
from src.config.schema import Schema
from src.config.shared import DatasetConfig, ModelConfig, Names, StageConfig
from src.config.stages import Layers

Share = Annotated[float, Field(gt=0, lt=1)]


class SubsamplesConfig(Schema):
    """Bands of every statistic (subsamples.*): its central 95 % in subsamples without replacement."""

    draws: int = Field(ge=0, description="subsamples of each cloud; 0 = no bands")
    share: Share = Field(
        description="share of the points of the smallest cloud that each holds: the same number for all clouds"
    )


class NullsConfig(Schema):
    """Null models (nulls.*): clouds without the structure in question."""

    models: list[Literal["gaussian", "shuffled_scores", "grouped_gaussian"]] = Field(
        description="gaussian: same mean and covariance; shuffled_scores: each principal component permuted over the "
        "points; grouped_gaussian: the centres of labels as a Gaussian has them, each label's points moved as a whole"
    )
    draws: int = Field(ge=1, description="clouds drawn of each; the smallest p-value is 1 / (draws + 1)")
    random_models: int = Field(ge=1, description="models with random weights, for random_init_control")


class AblationConfig(Schema):
    """What changes with the size of the cloud and with PCA (ablation.*)."""

    n_points: list[Annotated[int, Field(ge=4)]] = Field(description="sizes of subsamples; [] = not asked")
    pca_components: list[Annotated[int, Field(ge=1)]] = Field(description="principal components; [] = not asked")
    repeats: int = Field(ge=1, description="subsamples of each size")


class TopologyConfig(StageConfig):
    """measure_topology.py."""

    model: ModelConfig
    dataset: DatasetConfig
    activations: str | None = Field(
        min_length=1, description="name or path of the store; null = the one of this model and dataset"
    )
    prompts: str | None = Field(
        min_length=1,
        description="run the model on the texts of a file, without a store: .txt (one a line) or .jsonl (text, prompt "
        "or messages, and perhaps a label)",
    )
    clouds: Names | None = Field(
        description="files of clouds in place of a model: .npy, .npz, .safetensors; every array is one, point by row"
    )
    point_names: str | None = Field(min_length=1, description="text file that names the rows of clouds=..., one a line")
    chat_template: bool = Field(description="prompts are messages of a user, in the tokenizer's chat template")
    max_length: int = Field(ge=2, description="tokens of a prompt at most, BOS counted")
    batch_size: int = Field(ge=1, description="prompts per forward pass; results do not depend on it")
    hook: Literal["resid_pre", "attn_out", "mlp_out", "resid_post"] = Field(description="where activations are read")
    layers: Layers = Field(description="layers, each of which gives a cloud")
    tokens: Literal["last", "first", "cls", "mean", "max", "all", "label"] | int | list[str] = Field(
        description="a text's point is its last or first counted token, the one of an index (-2: the last but one), "
        "position 0 (cls), the mean or maximum over counted tokens; or points are tokens: all, those of a list of "
        "words, or of a label"
    )
    labels: str | None = Field(
        min_length=1,
        description="file for tokens=label that maps a token's text to its label: .json, .yaml or .csv; labels that go "
        "round in a cycle stand in its order",
    )
    contexts: Annotated[int, Field(ge=1)] | Literal["all"] = Field(
        description="tokens (or texts) of one label whose mean is a point; 1 = every point is one token or text, all = "
        "one point for each label"
    )
    cyclic_labels: bool = Field(
        description="labels (or words) go round in a cycle, as weekdays do, in the order given: test whether they "
        "stand around a loop in this order"
    )
    n_points: Annotated[int, Field(ge=3)] | None = Field(
        description="points drawn at random, as many of each label; null = all there are"
    )
    protocol: ProtocolConfig
    backend: Literal["auto", "reduced", "gudhi", "ripser"] = Field(
        description="engine of persistent homology; auto = reduced up to dimension 1, gudhi above"
    )
    check: bool = Field(description="compute every diagram by another engine too, and stop if they differ")
    memory_gb: Annotated[float, Field(gt=0)] | None = Field(
        description="refuse clouds whose diagrams need more; null = what is free"
    )
    level: Share = Field(description="of significance of loops, for all bars of a cloud together")
    subsamples: SubsamplesConfig
    nulls: NullsConfig
    random_init_control: bool = Field(
        description="measure the same tokens in models of the same config with random weights; needs the model"
    )
    ablation: AblationConfig

    @property
    def source(self) -> Literal["store", "prompts", "files"]:
        """Where clouds come from."""
        return "files" if self.clouds is not None else "prompts" if self.prompts is not None else "store"

    @model_validator(mode="after")
    def _nothing_in_vain(self) -> Self:
        """A key that nothing heeds is a misunderstanding."""
        named = [key for key in ("activations", "prompts", "clouds") if getattr(self, key) is not None]
        if len(named) > 1:
            raise ValueError(f"{' and '.join(named)} are set: clouds come from one of them")
        if self.chat_template and self.prompts is None:
            raise ValueError("chat_template=true would be ignored: it needs prompts=FILE")
        if self.point_names is not None and self.clouds is None:
            raise ValueError("point_names would be ignored: it needs clouds=FILE")
        if (self.labels is not None) != (self.tokens == "label"):
            raise ValueError("tokens=label and labels=FILE go together")
        if self.random_init_control and self.clouds is not None:
            raise ValueError("random_init_control=true needs a model, and clouds=FILE has none")
        if self.contexts != 1 and self.tokens == "max":
            raise ValueError(f"contexts={self.contexts} averages, and tokens=max does not: use tokens=mean")
        if "gaussian" in self.nulls.models and 1 / (1 + self.nulls.draws) > self.level:
            raise ValueError(
                f"nulls.draws={self.nulls.draws}: no p is below {1 / (1 + self.nulls.draws):.3g}, so no loop could be "
                f"significant at level={self.level:g}; draw {round(1 / self.level) - 1} or more"
            )
        if self.cyclic_labels and not isinstance(self.tokens, list) and self.labels is None and self.prompts is None:
            raise ValueError("cyclic_labels=true needs labels: words in tokens, labels=FILE, or prompts with labels")
        if isinstance(self.tokens, list) and len(set(self.tokens)) < max(len(self.tokens), 1):
            raise ValueError("tokens is a list of different words")
        return self
