"""The items of a captured scenario: the reference states, then each conversation in each of its orders."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from src.errors import StrataError
from src.models import LanguageModel
from src.scenarios.capturing.capture import Reading, capture_conversation, capture_references, readings_of
from src.scenarios.scenario import Scenario
from src.scenarios.states import Step
from src.scenarios.storage.run_folder import write_conversation, write_references
from src.scenarios.storage.steps import add_step
from src.stage.progress import Advance
from src.stage.scenarios.planning import PlannedScenario
from src.stage.scenarios.scripts import Scripts


@dataclass(frozen=True, eq=False)
class Item:
    """What is captured and committed at once.

    n_read, n_new: tokens that it reads and, at most, generates. write: captures it into a folder.
    """

    n_read: int
    n_new: int
    write: Callable[[LanguageModel, Path, Advance], None]


def all_readings(scenario: Scenario, seed: int) -> list[Reading]:
    """Every conversation that is read; seed: of random orders. Raises StrataError if two have one name."""
    prompts = zip(scenario.prompt, scenario.prompt_names, strict=True)
    readings = [reading for prompt, name in prompts for reading in readings_of(prompt, name, seed)]
    names = [reading.name for reading in readings]
    if doubles := sorted({name for name in names if names.count(name) > 1}):
        raise StrataError(f"prompt.name: {', '.join(doubles)} is also the name of a random order: choose another name")
    return readings
