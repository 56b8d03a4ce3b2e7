"""The items of a captured scenario: the reference states, then each conversation in each of its orders."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from src.models import LanguageModel
from src.scenarios.capturing.capture import capture_conversation, capture_references
from src.scenarios.states import Step
from src.scenarios.storage.layout import REFERENCES
from src.scenarios.storage.run_folder import write_conversation, write_references
from src.scenarios.storage.steps import add_step
from src.stage.progress import Advance
from src.stage.scenarios.planning import PlannedScenario
from src.stage.scenarios.scripts import ScriptedReading, Scripts


@dataclass(frozen=True, eq=False)
class Item:
    """What is captured and committed at once.

    n_tokens: that are read and, at most, generated. capture: makes it in a folder, and counts tokens.
    """

    n_tokens: int
    capture: Callable[[Path, Advance], None]


def items_of(planned: PlannedScenario, scripts: Scripts, model: LanguageModel) -> dict[str, Item]:
    """All items by name, in the order in which they are made."""
    items: dict[str, Item] = {}
    if planned.scenario.reference_states:
        items[REFERENCES] = _references(planned, scripts, model)
    return items | {
        scripted.reading.name: _conversation(planned, scripted, model) for scripted in scripts.conversations
    }


def _references(planned: PlannedScenario, scripts: Scripts, model: LanguageModel) -> Item:
    scenario, n_tokens = planned.scenario, sum(map(sum, scripts.references.values()))

    def capture(folder: Path, advance: Advance) -> None:
        with _noted_anyway():
            found = capture_references(model, planned.tokenizer, scenario.reference_states, scenario.capture)
        write_references(folder, found)
        advance(n_tokens)

    return Item(n_tokens, capture)


def _conversation(planned: PlannedScenario, scripted: ScriptedReading, model: LanguageModel) -> Item:
    scenario, reading = planned.scenario, scripted.reading
    n_read = len(scripted.script.ids)
    n_tokens = n_read + scripted.n_runs * scenario.generation.max_new_tokens

    def capture(folder: Path, advance: Advance) -> None:
        counted = 0

        def hear(generation: int, steps: list[Step]) -> None:
            nonlocal counted
            for step in steps:
                add_step(folder, generation, step)
            new = len(steps) + (0 if counted else n_read)
            counted += new
            advance(new)

        with _noted_anyway():
            found = capture_conversation(
                model,
                planned.tokenizer,
                reading.name,
                reading.prompt,
                scenario.generation,
                scenario.capture,
                order=reading.order,
                generate=reading.generate,
                on_steps=hear,
            )
        write_conversation(folder, found)
        if not counted:
            advance(n_read)
        advance.skip(n_tokens - max(counted, n_read))  # end tokens came before the limit

    return Item(n_tokens, capture)


@contextmanager
def _noted_anyway() -> Iterator[None]:
    """Capturing warns of what it leaves out; the notes of each conversation say the same, and are shown at the end."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        yield
