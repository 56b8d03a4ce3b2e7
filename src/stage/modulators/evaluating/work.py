"""What eval_modulator.py works on: a trained modulator in its model, controls of equal strength, and test examples."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from src.artifacts import Artifact, Parent, choose_artifact, list_artifacts, verify
from src.config.modulators.evaluate import EvaluateModulatorConfig
from src.config.modulators.train import TrainModulatorConfig
from src.config.schema import parse_config
from src.errors import NotApplicableError, StrataError
from src.models import LanguageModel, load_predicting_model
from src.modulators.controls.equal_strength import equal_strength_controls, mean_gates_on
from src.modulators.field import FieldModulator
from src.modulators.modulator import Modulator
from src.modulators.notebook.field import NotebookField
from src.modulators.saving import load_modulator
from src.modulators.training.examples import Example
from src.stage.context import Stage
from src.stage.modulators.evaluating.texts import prepare_test_examples
from src.stage.modulators.lexicon import Lexicon, prepare_lexicon
from src.stage.modulators.texts import Examples
from src.stage.modulators.work import MODULATOR
from src.stage.stores import is_of_model

# val examples that a control's gates are averaged over
_MOST_VAL = 100


@dataclass(frozen=True, eq=False)
class EvaluationWork:
    """All that the measures share, checked.

    trained: the config that the modulator was trained with. artifact: the trained modulator. modulator: on the model's
    device. controls: untrained ones of the same strengths, by name; none of what has no strengths. objective, examples:
    what is scored. known: the examples of its training. parents: of what is made.
    """

    config: EvaluateModulatorConfig
    trained: TrainModulatorConfig
    artifact: Artifact
    model: LanguageModel
    modulator: Modulator
    objective: Literal["text", "definitions"]
    examples: Sequence[Example]
    known: Examples
    parents: list[Parent] = field(default_factory=list)

    @cached_property
    def controls(self) -> Mapping[str, Modulator]:
        """Of the modulator as it was trained."""
        return self.controls_of(self.modulator)

    def controls_of(self, modulator: Modulator) -> Mapping[str, Modulator]:
        """Of the modulator with other strengths."""
        gates = None
        if isinstance(modulator, FieldModulator | NotebookField):
            # on examples that are not scored
            val = self.known.shares[1][:_MOST_VAL]
            gates = mean_gates_on(self.model, modulator, val, self.config.batch_size)
        return equal_strength_controls(modulator, self.config.seed, gates)

    @property
    def definitions(self) -> Examples | None:
        """What it was trained on, if that was definitions of words."""
        return self.known if self.artifact.meta.identity["objective"] == "definitions" else None

    @cached_property
    def lexicon(self) -> Lexicon:
        """The words of its training's lexicon.*: vectors were made from the anchors, and none from the evaluated.

        Raises:
            StrataError: no such taxonomy; with another one or another tokenizer, words that vectors were made from
                could be among the evaluated (BUG G-7). NotApplicableError: too few words match.
        """
        lexicon = prepare_lexicon(self.trained.lexicon, self.config.model, self.trained.seed)
        then = self.artifact.meta.identity["lexicon"]
        # words that are told from their definitions were no anchors
        now = lexicon if self.definitions is None else lexicon.without_anchors(self.definitions.scored)
        if then is not None and then["words"] != now.digest:
            raise StrataError(
                f"the words of {self.trained.lexicon.taxonomy} are not those that {self.artifact.path.name} was begun "
                "with, so nobody can tell which of them it has not seen: put the taxonomy back, or train again with "
                "train_modulator.py; or leave relations out of measures"
            )
        return lexicon

    @property
    def unit(self) -> str:
        """What intervals are over."""
        return "documents" if self.objective == "text" else "synsets"

    @property
    def run(self) -> str:
        """Which run of train_modulator.py it is: `modulator`, or the name of a control."""
        return self.artifact.meta.identity["run"]

    def identity(self) -> dict[str, Any]:
        """What decides an evaluation besides the parents. Raises StrataError as `lexicon` does, where it is needed."""
        without = {"model", "trained_modulator", "batch_size", *type(self.config).__mro__[1].model_fields}
        words = None
        if "relations" in self.config.measures:
            with suppress(NotApplicableError):
                words = self.lexicon.digest
        return {"keys": self.config.model_dump(mode="json", exclude=without), "seed": self.config.seed, "words": words}


def prepare(config: EvaluateModulatorConfig, stage: Stage) -> EvaluationWork:
    """Find and load a modulator, its model, and the text that it is judged on.

    Raises:
        StrataError: no such modulator, or several; another model than it was trained with; text that is not what it
            was; no example is left.
    """
    artifact = _trained(config, stage)
    problems = verify(artifact.path)
    if problems:
        raise StrataError(f"{artifact.path} is damaged ({problems[0]}): train it again with train_modulator.py")
    trained = _config_of(artifact)
    model = load_predicting_model(config.model, stage.device)
    _refuse_other_model(artifact, model)
    modulator = load_modulator(artifact.path).to(model.device).eval().requires_grad_(False)
    objective, examples, known, parents = prepare_test_examples(config, trained, artifact, model, stage)
    return EvaluationWork(
        config, trained, artifact, model, modulator, objective, examples, known, [artifact.parent, *parents]
    )


def _trained(config: EvaluateModulatorConfig, stage: Stage) -> Artifact:
    candidates = [
        artifact
        for artifact in list_artifacts(stage.root, "modulator")
        if _is_first_run(artifact) and is_of_model(artifact, config.model)
    ]
    remedy = f"train one with train_modulator.py (model={config.model.name}), or name one with trained_modulator=..."
    return choose_artifact(
        stage.root, "modulator", config.trained_modulator, candidates, key="trained_modulator", remedy=remedy
    )


def _is_first_run(artifact: Artifact) -> bool:
    """Whether it is the modulator itself, no control, repeat, or training from another strength."""
    identity, config = artifact.meta.identity, artifact.meta.config
    return (
        identity.get("run") == MODULATOR
        and identity["seed"] == config["seed"]
        and identity["modulator"]["alpha"] == config["modulator"]["alpha"]
    )


def _config_of(artifact: Artifact) -> TrainModulatorConfig:
    try:
        return parse_config(TrainModulatorConfig, artifact.meta.config)
    except StrataError as error:
        reason = str(error).partition("\n")[0]
        raise StrataError(
            f"{artifact.path} was trained by another version of Strata ({reason}): train it again with "
            "train_modulator.py"
        ) from None


def _refuse_other_model(artifact: Artifact, model: LanguageModel) -> None:
    wanted, found = artifact.meta.identity["model"], model.identity_of_predictions()
    differing = sorted(key for key in {*wanted, *found} if wanted.get(key) != found.get(key))
    if differing:
        raise StrataError(
            f"{artifact.path.name} was trained with the model {wanted.get('name')!r}, and model={found['name']} is "
            f"another ({', '.join(differing)} differ): evaluate it with the model that it was trained with"
        )
