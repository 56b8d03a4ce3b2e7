"""What eval_modulator.py works on: a trained modulator in its model, controls of equal strength, and test examples."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from src.artifacts import Artifact, Parent, choose_artifact, list_artifacts
from src.config.modulators.evaluate import EvaluateModulatorConfig
from src.config.modulators.train import TrainModulatorConfig
from src.config.schema import parse_config
from src.errors import StrataError
from src.models import LanguageModel, load_predicting_model
from src.modulators.controls.equal_strength import equal_strength_controls, mean_gates_on
from src.modulators.field import FieldModulator
from src.modulators.modulator import Modulator
from src.modulators.notebook.field import NotebookField
from src.modulators.saving import load_modulator
from src.modulators.training.examples import Example
from src.stage.context import Stage
from src.stage.modulators.evaluating.texts import prepare_test_examples
from src.stage.modulators.work import MODULATOR
from src.stage.stores import is_of_model


@dataclass(frozen=True, eq=False)
class EvaluationWork:
    """All that the measures share, checked.

    trained: the config that the modulator was trained with. artifact: the trained modulator. modulator: on the model's
    device. controls: untrained ones of the same strengths, by name; none of what has no strengths. objective, examples:
    what is scored. val: examples that are not scored, for what a control takes from text. parents: of what is made.
    """

    config: EvaluateModulatorConfig
    trained: TrainModulatorConfig
    artifact: Artifact
    model: LanguageModel
    modulator: Modulator
    objective: Literal["text", "definitions"]
    examples: Sequence[Example]
    val: Sequence[Example]
    parents: list[Parent] = field(default_factory=list)

    @cached_property
    def controls(self) -> Mapping[str, Modulator]:
        """Of the modulator as it was trained."""
        return self.controls_of(self.modulator)

    def controls_of(self, modulator: Modulator) -> Mapping[str, Modulator]:
        """Of the modulator with other strengths."""
        gates = None
        if isinstance(modulator, FieldModulator | NotebookField):
            gates = mean_gates_on(self.model, modulator, self.val, self.config.batch_size)
        return equal_strength_controls(modulator, self.config.seed, gates)

    @property
    def unit(self) -> str:
        """What intervals are over."""
        return "documents" if self.objective == "text" else "synsets"

    @property
    def run(self) -> str:
        """Which run of train_modulator.py it is: `modulator`, or the name of a control."""
        return self.artifact.meta.identity["run"]

    def identity(self) -> dict[str, Any]:
        """What decides an evaluation besides the parents."""
        without = {"model", "trained_modulator", "batch_size", *type(self.config).__mro__[1].model_fields}
        return {"keys": self.config.model_dump(mode="json", exclude=without), "seed": self.config.seed}


def prepare(config: EvaluateModulatorConfig, stage: Stage) -> EvaluationWork:
    """Find and load a modulator, its model, and the text that it is judged on.

    Raises:
        StrataError: no such modulator, or several; another model than it was trained with; text that is not what it
            was; no example is left.
    """
    artifact = _trained(config, stage)
    if not stage.is_whole(artifact):
        raise StrataError(f"{artifact.path} is damaged: train it again with train_modulator.py overwrite=true")
    trained = _config_of(artifact)
    model = load_predicting_model(config.model, stage.device)
    _refuse_other_model(artifact, model)
    modulator = load_modulator(artifact.path).to(model.device).eval().requires_grad_(False)
    objective, examples, val, parents = prepare_test_examples(config, trained, artifact, model, stage)
    return EvaluationWork(
        config, trained, artifact, model, modulator, objective, examples, val, [artifact.parent, *parents]
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
