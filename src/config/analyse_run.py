"""The config of analyse_run.py: its keys, their types and limits, and what --help says of them."""

from typing import Annotated, Literal, get_args

from pydantic import Field, field_validator

from src.config.shared import Names, StageConfig

Analysis = Literal[
    "logit_lens",
    "attribution",
    "decomposition",
    "neurons",
    "cross_layer",
    "cka",
    "spectrum",
    "pca",
    "convergence",
    "attention",
]
ANALYSES: tuple[Analysis, ...] = get_args(Analysis)
Lens = Literal["logit", "transport", "both"]
_AT_LEAST_0 = Annotated[int, Field(ge=0)]
_Listed = Annotated[list[_AT_LEAST_0], Field(min_length=1)]


class AnalyseRunConfig(StageConfig):
    """analyse_run.py."""

    run: str | None = Field(
        description="name or path of a result of capture_scenario.py; null = the newest of this experiment_name"
    )
    conversation: str | None = Field(
        description="name of one of its conversations, or of a run (prompt_0_msg3of6); null = the first conversation; "
        "of several runs of a conversation the last one counts"
    )
    analyses: Annotated[list[Analysis], Field(min_length=1)] | Literal["all"] = Field(
        description="what is looked at; all = whatever the captured states allow (logit_lens and attribution load the "
        "model's weights)"
    )
    lens: Lens = Field(
        description="logit = states as they are through norm and head; transport = first mapped to the last layer by "
        "transport operators; both"
    )
    operators: Names | None = Field(
        description="artifacts of train_transport_operators.py; null = those fitted on activations of this model"
    )
    method: str | None = Field(description="of the operators, where several methods were fitted")
    top_k: int = Field(ge=1, le=1000, description="likeliest tokens that the logit lens keeps")
    layers: _Listed | Literal["all"] = Field(
        description="captured layers that are looked at (attribution and decomposition need all of them)"
    )
    steps: _Listed | Literal["all"] = Field(description="steps of the generation, from 0")
    position: Literal["answer", "end", "mean"] | None = Field(
        description="of messages: where the model is about to answer, their last token, their mean; null = the first "
        "of these that was captured"
    )
    source: str = Field(
        description="states of cross_layer, spectrum, pca and convergence (also by Activation Lab's names)"
    )
    cka_sources: Annotated[list[str], Field(min_length=1)] = Field(description="states that CKA compares")
    neurons: (
        Annotated[list[Annotated[list[_AT_LEAST_0], Field(min_length=2, max_length=2)]], Field(min_length=1)] | None
    ) = Field(description="[layer, neuron] each; null = the 6 that vary most over the steps")
    neuron_source: str = Field(description="what `neurons` are dimensions of: mlp_act, or any other source")
    model_path: str | None = Field(description="folder of the model, if it has moved since it was captured")
    trust_remote_code: bool = Field(description="run code that ships with the model; leave off unless you trust it")

    @field_validator("analyses", "layers", "steps", "cka_sources", "neurons")
    @classmethod
    def _each_once(cls, values: object) -> object:
        if isinstance(values, list) and any(values.count(value) > 1 for value in values):
            raise ValueError("name each one once")
        return values
