"""The config of train_modulator.py: its keys, their types and limits, and what --help says of them."""

from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from src.config.modulators.modulator import AnchorsConfig, ModulatorConfig, Share
from src.config.schema import Schema
from src.config.stages import NotNegative, Positive, SequencesConfig, SplitConfig

Control = Literal["zero", "random", "shuffled", "constant", "shrink", "lora"]


class TrainingConfig(Schema):
    """How it is trained (training.*)."""

    steps: int = Field(ge=1, description="steps of the optimiser")
    batch_size: int = Field(ge=1, description="examples per step")
    sequences_per_pass: Annotated[int, Field(ge=1)] | None = Field(
        description="examples in one forward and backward pass, of which a step adds up several: less memory; null = "
        "batch_size"
    )
    autocast: Literal["bfloat16", "float16"] | None = Field(
        description="dtype of the model's products in training; modulators and evaluations are never cast; null = the "
        "model's own"
    )
    lr: Positive = Field(description="learning rate of AdamW")
    strength_lr: NotNegative = Field(
        description="times lr, for the logits of strengths; 0 = strengths stay as they are"
    )
    geometry_lr: Positive = Field(description="times lr, for what places simplices")
    weight_decay: NotNegative = Field(description="of AdamW; strengths have none")
    warm_up: Annotated[float, Field(ge=0, le=1)] = Field(description="share of the steps over which rates grow")
    clip: Positive = Field(description="norm of the gradient at most")
    evaluate_every: int = Field(ge=1, description="steps between evaluations on val documents")
    patience: Annotated[int, Field(ge=1)] | None = Field(
        description="stop when so many evaluations in a row were not better; null = never. The best one is kept"
    )
    checkpoint_every: Annotated[int, Field(ge=1)] | None = Field(
        description="steps between checkpoints, from which a killed run goes on; null = none"
    )
    record_every: int = Field(ge=1, description="steps between records of strengths and loss")


class TrainModulatorConfig(SequencesConfig):
    """train_modulator.py. The keys that choose text count where objective=text."""

    modulator: ModulatorConfig
    objective: Literal["auto", "text", "definitions"] = Field(
        description="text = the next token of the dataset; definitions = a word from its definition in the taxonomy; "
        "auto = definitions for encoder-decoders, else text"
    )
    definition_template: str = Field(min_length=1, description="the prompt of a definition; {definition} stands for it")
    controls: list[Control] = Field(
        description="trained beside it: zero = target zero; random = random targets; shuffled = tokens' vectors "
        "permuted; constant = one vector for all tokens; shrink = a learnt factor; lora = LoRA of as many parameters"
    )
    repeats: int = Field(ge=1, description="trainings of each, with seeds seed, seed + 1, ...")
    alpha_starts: list[Share] = Field(
        description="the modulator is also trained from each of these strengths, as in [0.01,0.1,0.3]: do they meet? "
        "With training.strength_lr=0 they stay: the loss at fixed strengths"
    )
    lexicon: AnchorsConfig
    training: TrainingConfig
    split: SplitConfig
    compat: Literal["notebook"] | None = Field(
        description="notebook = the published notebook's own parameters of the modulator, mistakes included"
    )

    @field_validator("definition_template")
    @classmethod
    def _has_a_place(cls, template: str) -> str:
        if template.count("{definition}") != 1:
            raise ValueError("{definition} must stand in it once")
        return template

    @model_validator(mode="after")
    def _starts(self) -> Self:
        lowest, highest = self.modulator.field.lowest, self.modulator.field.highest
        if self.modulator.kind == "field" and (
            outside := [alpha for alpha in self.alpha_starts if not lowest < alpha < highest]
        ):
            raise ValueError(
                f"alpha_starts={outside} are not between modulator.field.lowest={lowest:g} and highest={highest:g}"
            )
        return self

    @model_validator(mode="after")
    def _notebook(self) -> Self:
        if self.compat == "notebook" and self.modulator.kind == "field":
            if self.modulator.init != "random":
                raise ValueError(
                    f"compat=notebook has no modulator.init={self.modulator.init} for modulator=field: use init=random"
                )
            if self.modulator.field.null_place == "random":
                raise ValueError(
                    "compat=notebook fails with modulator.field.null_place=random in its first pass (layers built for "
                    "fewer dimensions than they are given): use tail, or compat=null"
                )
            if max(self.modulator.field.dimensions) > 4:
                raise ValueError(
                    f"compat=notebook: its simplices are published for k up to 4, and modulator.field.dimensions="
                    f"{self.modulator.field.dimensions}: choose smaller ones, or compat=null"
                )
        return self
