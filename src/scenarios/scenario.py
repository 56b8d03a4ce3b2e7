"""Scenario files: which conversations a model reads, what it generates, and which of its states are kept.

The format is Activation Lab's YAML, with additions of our own (each says so). A file names all of its wrong keys at
once, before any model is loaded.
"""

import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, field_validator, model_validator

from src.config.schema import Schema, parse_config
from src.config.shared import DtypeName
from src.errors import StrataError
from src.scenarios.yaml_file import read_yaml

Role = Literal["system", "user", "assistant", "tool"]
Position = Literal["end", "answer", "mean"]
Preset = Literal["last_token", "message_ends", "full"]


def _label(text: str) -> str:
    if not text or text.startswith(".") or re.search(r"[\\/\s]", text) or not text.isprintable():
        raise ValueError("use a word without spaces and slashes that does not begin with a dot")
    if len(text.encode()) > 150:  # a file system takes 255, and names of drafts are longer
        raise ValueError("use a shorter word")
    return text


Label = Annotated[str, AfterValidator(_label)]


def _readable(text: str) -> str:
    """A text that can be tokenised and written: halves of surrogate pairs become the replacement character."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


Words = Annotated[str, AfterValidator(_readable)]


class Message(Schema):
    """One message of a conversation."""

    role: Role = Field(description="who speaks")
    content: Words = Field(description="what is said")
    label: Label | None = Field(default=None, description="which reference state it expresses, where that is known")


class Prompt(Schema):
    """A conversation that the model reads, and then goes on with."""

    messages: list[Message] = Field(min_length=1, description="in their order")
    run_at_each_message: bool = Field(
        default=False, description="generate after each message, not only after the last one"
    )
    name: Label | None = Field(default=None, description="of its run; null = prompt_0, prompt_1, ...")
    control: bool = Field(default=False, description="neutral text that others are compared with, turn by turn")
    orders: int = Field(
        default=0, ge=0, le=100, description="also read it so many times with its turns in random orders (a control)"
    )


class ScenarioModel(Schema):
    """The model that a scenario is written for; model=... on the command line wins."""

    id: str = Field(min_length=1, description="hub id, local folder, or a name in configs/model")
    gguf_file: str | None = Field(default=None, description="file of a GGUF repository")
    dtype: DtypeName | Literal["auto"] = Field(default="float16", description="of weights and forward pass")
    device: str | None = Field(default="auto", min_length=1, description="auto, cpu, cuda, cuda:1, mps")
    revision: str | None = Field(default=None, description="branch, tag or commit on the hub")
    trust_remote_code: bool = Field(default=False, description="run code that ships with the checkpoint")


class GenerationSettings(Schema):
    """How the model goes on with a conversation: greedy, or sampled by the rules of Hugging Face's `generate`."""

    max_new_tokens: int = Field(default=8, ge=1, description="tokens at most; end tokens end it before")
    do_sample: bool = Field(default=False, description="false = greedy")
    temperature: float = Field(default=1.0, ge=1e-4, description="of sampling (greedy: do_sample=false)")
    top_k: Annotated[int, Field(ge=1)] | None = Field(default=None, description="sample from so many tokens at most")
    top_p: Annotated[float, Field(gt=0, le=1)] | None = Field(
        default=None, description="sample from the likeliest tokens that reach this probability"
    )
    seed: Annotated[int, Field(ge=0, lt=2**63)] | None = Field(default=42, description="of sampling")


class CaptureSettings(Schema):
    """What is kept of the forward passes."""

    preset: Preset = Field(
        default="message_ends",
        description="last_token = the last token before each generated one; message_ends = also every message's end, "
        "and where the model is about to answer; full = also every token, with all attention",
    )
    positions: list[Position] = Field(
        default=["end", "answer"],
        min_length=1,
        description="of each message: its last token, the last token before an answer to it, the mean of its tokens",
    )
    hidden_states: bool = Field(default=True, description="residual stream, attention and MLP increments")
    attention_weights: bool = Field(default=True, description="attention of the kept tokens to all before them")
    qkv: bool = Field(default=True, description="queries, keys and values of the kept tokens, before positions enter")
    mlp: bool = Field(default=True, description="gate, up projection and neurons of the MLPs")
    logits: bool = Field(default=True, description="logits of the kept tokens")
    top_k_probs: int = Field(default=20, ge=0, description="likeliest tokens noted with each step; 0 = none")
    layers: list[Annotated[int, Field(ge=0)]] | Literal["all"] = Field(
        default="all", description="layers, from 0; all layers"
    )
    store_dtype: DtypeName = Field(
        default="float16", description="on the disk; residual stream and increments of single tokens stay in float32"
    )

    @field_validator("layers", "positions")
    @classmethod
    def _each_once(cls, values: Any) -> Any:
        if isinstance(values, list) and (not values or len(set(values)) < len(values)):
            raise ValueError("name each one once, and at least one")
        return values


class Output(Schema):
    """Where Activation Lab wrote its runs; here artifacts_dir says it, and only `format` is looked at."""

    dir: str | None = Field(default=None, description="ignored: artifacts_dir=... says where artifacts lie")
    format: Literal["json+npz"] = Field(
        default="json+npz", description="as the file says; export_run writes it from an artifact"
    )


class Example(Schema):
    """One text of a reference state."""

    messages: list[Message] = Field(min_length=1, description="in their order")


class ReferenceState(Schema):
    """A state to compare with: one conversation as in Activation Lab (messages), or several (examples)."""

    label: Label = Field(description="its name")
    messages: list[Message] | None = Field(default=None, min_length=1, description="its one conversation")
    examples: list[Example] | None = Field(default=None, min_length=1, description="its conversations")
    neutral: bool = Field(default=False, description="texts that express no label: what others are centred on")

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if (self.messages is None) == (self.examples is None):
            raise ValueError(f"reference state {self.label!r} needs messages (one conversation) or examples (several)")
        return self

    @property
    def conversations(self) -> list[list[Message]]:
        """The messages of each of its conversations."""
        if self.messages is not None:
            return [self.messages]
        return [example.messages for example in self.examples or ()]


class Scenario(Schema):
    """A scenario file."""

    name: Label = Field(description="names the artifact")
    model: ScenarioModel = Field(description="the model it is written for")
    prompt: list[Prompt] = Field(min_length=1, description="one conversation, or a list of them")
    generation: GenerationSettings = Field(default=GenerationSettings(), description="how the model goes on")
    capture: CaptureSettings = Field(default=CaptureSettings(), description="what is kept")
    output: Output = Field(default=Output(), description="ignored")
    reference_states: list[ReferenceState] = Field(default=[], description="states to compare with")

    @field_validator("prompt", mode="before")
    @classmethod
    def _one_or_several(cls, value: Any) -> Any:
        return [value] if isinstance(value, dict) else value

    @model_validator(mode="after")
    def _unique(self) -> Self:
        for what, names in (
            ("reference_states: label", [state.label for state in self.reference_states]),
            ("prompt: name", self.prompt_names),
        ):
            if doubles := sorted({name for name in names if names.count(name) > 1}):
                raise ValueError(f"{what} {', '.join(doubles)} is there twice; names must be unique")
        return self

    @property
    def prompt_names(self) -> list[str]:
        """The name of each prompt's run."""
        return [prompt.name or f"prompt_{index}" for index, prompt in enumerate(self.prompt)]


def load_scenario(path: Path) -> Scenario:
    """Read a scenario file.

    Raises StrataError if it can't be read, is no YAML, or does not fit; the message has a line for each problem.
    """
    values = read_yaml(path)
    if not isinstance(values, dict):
        raise StrataError(f"{path} holds no scenario: it needs the keys name, model, prompt")
    try:
        return parse_config(Scenario, values)
    except StrataError as error:
        raise StrataError("\n".join(f"{path}: {line}" for line in str(error).splitlines())) from None
