"""What is to be run: a scenario with the user's changes, its model, and the device."""

from pathlib import Path
from typing import Any

from omegaconf import MISSING, OmegaConf

from src.config.capture_scenario import CaptureScenarioConfig, ModelChoice
from src.config.schema import parse_config
from src.config.shared import ModelConfig
from src.errors import StrataError
from src.models.loading import PROJECT_ROOT
from src.scenarios.scenario import Scenario, ScenarioModel

_MODELS = PROJECT_ROOT / "configs" / "model"
_BASE = "_base"


def chosen_model(scenario: ScenarioModel, choice: ModelChoice) -> ModelConfig:
    """The model that reads a scenario.

    A name or a path of the user's is a model of its own: of the scenario's block only a dtype that it names is kept,
    unless the user names one (a config of configs/model does). Otherwise it is the scenario's, and the keys that the
    user has set adjust it. Its id is, in this order, a name of configs/model, a local folder, a hub id; what the block
    says of dtype, revision and trust_remote_code goes before the config's.

    Raises:
        StrataError: GGUF files, or a config without a name.
    """
    if choice.name is not None or choice.path is not None:
        own = {"name": choice.path} | scenario.model_dump(include=scenario.model_fields_set & {"dtype"})
        return parse_config(ModelConfig, _config_values(_BASE) | own | choice.changes())
    if scenario.gguf_file is not None:
        raise StrataError(
            f"model.gguf_file={scenario.gguf_file}: GGUF files are not read; save the model in Hugging Face's format "
            "(transformers: from_pretrained(id, gguf_file=...).save_pretrained(FOLDER)) and set model.id=FOLDER"
        )
    said = scenario.model_dump(include=scenario.model_fields_set & {"dtype", "revision", "trust_remote_code"})
    if (_MODELS / f"{scenario.id}.yaml").is_file() and Path(scenario.id).name == scenario.id != _BASE:
        values = _config_values(scenario.id)
    else:
        values = _config_values(_BASE) | {"name": scenario.id, "dtype": scenario.dtype}
        folder = Path(scenario.id).expanduser()
        if scenario.id.startswith((".", "/", "~")) or folder.is_dir() or (PROJECT_ROOT / folder).is_dir():
            values |= {"path": scenario.id, "name": folder.resolve().name}
    return parse_config(ModelConfig, values | said | choice.changes())


def with_changes(scenario: Scenario, config: CaptureScenarioConfig, model: ModelConfig, device: str) -> Scenario:
    """The scenario as it is run: the user's generation.* and capture.*, the model that was chosen, and a seed.

    Raises StrataError if the changes do not fit together.
    """
    values = scenario.model_dump(mode="json", exclude_unset=True)
    for block, changes in (("generation", config.generation.changes()), ("capture", config.capture.changes())):
        values[block] = values.get(block, {}) | changes
    if scenario.generation.seed is None and config.generation.seed is None:
        values["generation"]["seed"] = config.seed  # a run that can't be repeated is of no use
    values["model"] = {
        "id": model.path or model.name,
        "dtype": model.dtype,
        "device": device,
        "revision": model.revision,
        "trust_remote_code": model.trust_remote_code,
    }
    return parse_config(Scenario, values)


def scenario_identity(scenario: Scenario) -> dict[str, Any]:
    """What of a scenario decides the content of its artifact, as plain values; the model is told apart from it."""
    values = scenario.model_dump(mode="json", exclude={"name", "model", "output"})
    if not scenario.generation.do_sample:
        for key in ("temperature", "top_k", "top_p", "seed"):
            values["generation"].pop(key)
    if scenario.capture.layers != "all":
        values["capture"]["layers"] = sorted(scenario.capture.layers)
    return values


def _config_values(name: str) -> dict[str, Any]:
    """A config of configs/model with those that it starts from."""
    values = OmegaConf.to_container(OmegaConf.load(_MODELS / f"{name}.yaml"))
    assert isinstance(values, dict)
    merged: dict[str, Any] = {}
    for start in values.pop("defaults", []):
        merged |= {} if start == "_self_" else _config_values(start)
    if missing := sorted(str(key) for key, value in values.items() if value == MISSING):
        raise StrataError(f"model.id={name} needs a value for {', '.join(missing)}: give the id of a model instead")
    return merged | {str(key): value for key, value in values.items()}
