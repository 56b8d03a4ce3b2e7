"""What train_modulator.py works on: the frozen model, its examples in three shares, and the runs that are compared."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from src.artifacts import Parent, label
from src.config.modulators.train import Control, TrainModulatorConfig
from src.errors import StrataError
from src.models import LanguageModel, load_predicting_model
from src.modulators.beginning.begun import Begun
from src.modulators.training.examples import Example, losses_of
from src.stage.context import Stage
from src.stage.modulators.lexicon import Lexicon, prepare_lexicon
from src.stage.modulators.texts import prepare_examples

MODULATOR: Literal["modulator"] = "modulator"


@dataclass(frozen=True)
class Run:
    """One training: of the modulator itself, or of a control. repeat: from 0; it moves the seed.

    alpha: the strength that it begins with, where that is not modulator.alpha.
    """

    name: Literal["modulator"] | Control
    repeat: int = 0
    alpha: float | None = None


@dataclass(frozen=True, eq=False)
class ModulatorWork:
    """All that the runs share, checked.

    train, val, test: examples; no group is in two of them. layers: before whose blocks modulators stand.
    examples_digest: of what definitions became; of texts the artifacts in `parents` tell.
    lexicon: where modulator.init needs one. begun: by seed, filled by `beginning.begin`.
    """

    config: TrainModulatorConfig
    model: LanguageModel
    layers: tuple[int, ...]
    objective: Literal["text", "definitions"]
    train: Sequence[Example]
    val: Sequence[Example]
    test: Sequence[Example]
    parents: list[Parent] = field(default_factory=list)
    examples_digest: str | None = None
    lexicon: Lexicon | None = None
    begun: dict[int, Begun] = field(default_factory=dict)

    @cached_property
    def frozen_val(self) -> float:
        """Mean loss of the frozen model on val examples. Raises StrataError where it is not finite."""
        sums, counts = losses_of(self.model, self.val, self.per_pass)
        loss = float(sums.sum() / counts.sum())
        if not math.isfinite(loss):
            raise StrataError(
                f"the loss of {self.config.model.name} itself, frozen, is {loss:g} on val examples: its weights hold "
                f"NaN or infinity, or overflow in {str(self.model.dtype).removeprefix('torch.')}; get its files again, "
                "or try model.dtype=float32"
            )
        return loss

    @property
    def per_pass(self) -> int:
        """Examples in one pass of the model."""
        keys = self.config.training
        return min(keys.batch_size, keys.sequences_per_pass or keys.batch_size)

    @property
    def runs(self) -> list[Run]:
        """The modulator first, then its controls, each `repeats` times."""
        names: list[Literal["modulator"] | Control] = [MODULATOR, *dict.fromkeys(self.config.controls)]
        return [Run(name, repeat) for name in names for repeat in range(self.config.repeats)]

    @property
    def starts(self) -> list[Run]:
        """The modulator from other strengths (alpha_starts): they are compared among themselves alone."""
        others = dict.fromkeys(self.config.alpha_starts)
        return [Run(MODULATOR, 0, alpha) for alpha in others if alpha != self.config.modulator.alpha]

    def alpha(self, run: Run) -> float:
        """The strength that a run begins with."""
        return self.config.modulator.alpha if run.alpha is None else run.alpha

    def name(self, run: Run) -> str:
        """Of a run, for readers."""
        start = "" if run.alpha is None else f" from alpha {run.alpha:g}"
        return f"{run.name}{start}{f' (seed {self.seed(run)})' if run.repeat else ''}"

    def seed(self, run: Run) -> int:
        """Of a run: the same for the modulator and its controls, so that they see the same batches."""
        return self.config.seed + run.repeat

    def label(self, run: Run) -> str:
        """Of a run's artifact."""
        keys = self.config.modulator
        which = [] if run.name == MODULATOR else [run.name]
        repeat = [f"seed{self.seed(run)}"] if run.repeat else []
        start = [] if run.alpha is None else [f"alpha{run.alpha:g}"]
        compat = [self.config.compat] if self.config.compat else []
        return label(self.config.model.name, keys.kind, keys.init, *compat, *which, *repeat, *start)

    def identity(self, run: Run) -> dict[str, Any]:
        """What decides a trained modulator besides the parents."""
        config = self.config
        # neither what is kept on the way nor how a step is cut into passes
        without = {"checkpoint_every", "sequences_per_pass"}
        begins = {"layers": list(self.layers), "alpha": self.alpha(run)}
        return {
            "run": run.name,
            "model": self.model.identity_of_predictions(),
            "modulator": config.modulator.model_dump(mode="json") | begins,
            "objective": self.objective,
            "examples": self.examples_digest,
            "lexicon": None if self.lexicon is None else self._lexicon_identity(self.lexicon),
            "training": config.training.model_dump(mode="json", exclude=without),
            # a repeat moves the seed of its run, never what is in which share
            "split": config.split.model_dump(mode="json") | {"seed": config.seed},
            "compat": config.compat,
            "seed": self.seed(run),
        }

    def _lexicon_identity(self, lexicon: Lexicon) -> dict[str, Any]:
        # the words tell where they are from
        keys = {"similarity", "neighbours", "temperature"}
        return self.config.lexicon.model_dump(mode="json", include=keys) | {"words": lexicon.digest}


def prepare(config: TrainModulatorConfig, stage: Stage) -> ModulatorWork:
    """Load the model and read what it is trained on.

    Raises:
        StrataError: a layer that the model does not have; too few examples; what does not fit the model.
    """
    model = load_predicting_model(config.model, stage.device)
    layers = _layers(config, model)
    objective = config.objective
    if objective == "auto":
        objective = "definitions" if model.module.config.is_encoder_decoder else "text"
    if objective == "text" and model.module.config.is_encoder_decoder:
        raise StrataError(
            f"objective=text: {config.model.name} is an encoder-decoder, which does not go on with a text: "
            "use objective=definitions"
        )
    lexicon = None
    if config.modulator.init in ("relational", "lexicon"):
        lexicon = prepare_lexicon(config.lexicon, config.model, config.seed)
    examples = prepare_examples(config, stage, objective, model.module.config.is_encoder_decoder)
    if lexicon is not None:
        lexicon = lexicon.without_anchors(examples.scored)
    return ModulatorWork(config, model, layers, objective, *examples.shares, examples.parents, examples.digest, lexicon)


def _layers(config: TrainModulatorConfig, model: LanguageModel) -> tuple[int, ...]:
    wanted = config.modulator.layers
    if wanted == "all":
        return tuple(range(model.n_layers))
    layers = sorted({wanted} if isinstance(wanted, int) else set(wanted))
    if layers[-1] >= model.n_layers:
        raise StrataError(f"modulator.layers={wanted}: {config.model.name} has layers 0..{model.n_layers - 1}")
    return tuple(layers)
