"""A scenario made ready without its model's weights: files, model config, layers, tokenizer, names."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from src.config.capture_scenario import CaptureScenarioConfig
from src.config.shared import ModelConfig
from src.errors import StrataError
from src.models import layers_in_config, load_tokenizer, refuse_other_than_causal_lm
from src.report.artifact_report import FIGURES
from src.scenarios.scenario import Scenario, load_scenario
from src.scenarios.storage.layout import REFERENCES
from src.stage.scenarios.choosing import chosen_model, with_changes
from src.text import tokenizer_identity

_TAKEN = re.compile(rf"{REFERENCES}|{FIGURES}|.*\.json", re.IGNORECASE)


@dataclass(frozen=True, eq=False)
class PlannedScenario:
    """A scenario as it will be run.

    device: as a user names it. tokenizer_identity: what decides its token ids, for a fingerprint.
    """

    file: Path
    scenario: Scenario
    model: ModelConfig
    device: str
    tokenizer: PreTrainedTokenizerBase
    tokenizer_identity: dict[str, Any]

    def refuse_missing_layers(self, n_layers: int) -> None:
        """StrataError if the scenario wants layers that the model does not have."""
        layers = self.scenario.capture.layers
        beyond = [] if layers == "all" else [str(layer) for layer in sorted(layers) if layer >= n_layers]
        if beyond:
            raise StrataError(
                f"capture.layers: {self.model.name} has no layer {', '.join(beyond)}; choose from its layers 0 to "
                f"{n_layers - 1}, or all"
            )


def plan_scenario(file: Path, config: CaptureScenarioConfig) -> PlannedScenario:
    """Read a scenario file and what belongs to its model, but for the weights.

    Raises:
        StrataError: the file, the user's changes, or the model do not fit: layers that are not there, a model that does
            not generate text, no tokenizer or no chat template.
    """
    scenario = load_scenario(file)
    model = chosen_model(scenario.model, config.model)
    device = config.device if config.device != "auto" else scenario.model.device or "auto"
    scenario = with_changes(scenario, config, model, device)
    for name in scenario.prompt_names:
        if _TAKEN.fullmatch(name):
            raise StrataError(f"prompt.name={name} is a name of the artifact's own files: choose another one")
    refuse_other_than_causal_lm(model)
    tokenizer = load_tokenizer(model)
    planned = PlannedScenario(file, scenario, model, device, tokenizer, tokenizer_identity(tokenizer))
    n_layers = layers_in_config(model)
    if n_layers is not None:
        planned.refuse_missing_layers(n_layers)
    if tokenizer.chat_template is None and _needs_roles(scenario):
        raise StrataError(
            f"the tokenizer of {model.name} has no chat template, so it has no way to tell who says what: choose the "
            "chat (instruct) version of the model, save a template with the tokenizer (chat_template.jinja), or give "
            "prompts of one message each"
        )
    return planned


def _needs_roles(scenario: Scenario) -> bool:
    """Whether somebody answers somebody."""
    references = [messages for state in scenario.reference_states for messages in state.conversations]
    return any(len(messages) > 1 for messages in [*(prompt.messages for prompt in scenario.prompt), *references])
