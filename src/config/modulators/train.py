"""The config of train_modulator.py: its keys, their types and limits, and what --help says of them."""

from typing import Annotated, Literal

from pydantic import Field

from src.config.modulators.modulator import AnchorsConfig, ModulatorConfig
from src.config.schema import Schema
from src.config.stages import NotNegative, Positive, SequencesConfig, SplitConfig

Control = Literal["zero", "random", "shuffled", "constant", "shrink", "lora"]


class TrainingConfig(Schema):
    """How it is trained (training.*)."""

    steps: int = Field(ge=1, description="steps of the optimiser")
    batch_size: int = Field(ge=1, description="examples per step")
    lr: Positive = Field(description="learning rate of AdamW")
    strength_lr: Positive = Field(description="times lr, for the logits of strengths")
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
    lexicon: AnchorsConfig
    training: TrainingConfig
    split: SplitConfig
    compat: Literal["notebook"] | None = Field(
        description="notebook = the published notebook's own parameters of the modulator, mistakes included"
    )
