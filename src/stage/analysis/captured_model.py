"""The model that a scenario was captured with: as its artifact tells, and checked against it."""

from typing import get_args

from src.config.analyse_run import AnalyseRunConfig
from src.config.shared import DtypeName, ModelConfig
from src.errors import StrataError
from src.models import LanguageModel, layers_in_config, load_model
from src.scenarios.storage.run_folder import CapturedScenario
from src.stage.context import Stage

# of a model's identity, what decides its logits
_CONTENT = ("architecture", "weights", "head", "dtype")


def captured_config(captured: CapturedScenario, config: AnalyseRunConfig) -> ModelConfig:
    """The config that loads the model of a captured scenario. StrataError if the artifact does not tell it."""
    said = captured.model
    if "weights" not in said or said.get("dtype") not in get_args(DtypeName):
        raise StrataError(
            f"{captured.artifact.path.name} does not tell the digest of its model's weights (it was imported?), so no "
            "model can be known to be its own: capture the scenario with capture_scenario.py"
        )
    return ModelConfig(
        name=said["name"],
        path=config.model_path or said.get("path"),
        revision=said.get("revision"),
        dtype=said["dtype"],
        blocks=said.get("blocks"),
        stack=said.get("stack") or "auto",
        attention=said.get("attention"),
        trust_remote_code=config.trust_remote_code,
    )


def refuse_unreachable(model: ModelConfig) -> None:
    """StrataError, with the remedy, if the model's folder or hub page can't be read; loads no weights."""
    try:
        layers_in_config(model)
    except StrataError as error:
        raise StrataError(f"{error}; if the model has moved, say where to with model_path=FOLDER") from None


def load_captured_model(captured: CapturedScenario, config: AnalyseRunConfig, stage: Stage) -> LanguageModel:
    """Load it onto the stage's device. StrataError if it is another model now than it was then."""
    wanted = captured_config(captured, config)
    model = load_model(wanted, stage.device)
    found = model.identity_of_predictions()
    differing = [key for key in _CONTENT if captured.model.get(key) != found.get(key)]
    if differing:
        raise StrataError(
            f"{wanted.path or wanted.name} is not the model that {captured.artifact.path.name} was captured with: they "
            f"differ in {', '.join(differing)}. Say where that one lies with model_path=FOLDER, capture the scenario "
            "again, or choose analyses=[...] that need no model"
        )
    return model
