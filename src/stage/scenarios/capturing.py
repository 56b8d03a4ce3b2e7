"""capture_scenario.py mode=capture: the model reads a scenario, item by item, and the folder is sealed with a report."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from src.activations.job import refuse_full_disk
from src.artifacts import Artifact, Draft, Plan, label
from src.errors import StrataError
from src.models import LanguageModel
from src.report.scenarios import capture as show
from src.scenarios.capturing.capture import capture_conversation, capture_references
from src.scenarios.states import Conversation
from src.scenarios.storage.filling import ScenarioFolder, filling
from src.scenarios.storage.layout import REFERENCES
from src.scenarios.storage.run_folder import (
    read_conversation,
    read_references,
    write_conversation,
    write_references,
    write_scenario,
)
from src.stage.context import Stage
from src.stage.scenarios.choosing import scenario_identity
from src.stage.scenarios.loaded_model import LoadedModel
from src.stage.scenarios.planning import PlannedScenario


def capture(planned: PlannedScenario, models: LoadedModel, stage: Stage) -> Artifact:
    """Capture a scenario, go on with it, or show what an earlier run found.

    Raises:
        StrataError: the scenario is too large for the limit or the disk, or the model can't be loaded or run.
    """
    model = models.get(planned.model, stage)
    planned.refuse_missing_layers(model.n_layers)
    scenario = planned.scenario
    identity = {
        "scenario": scenario_identity(scenario),
        "model": model.identity_of_predictions(),
        "tokenizer": planned.tokenizer_identity,
    }
    plan = stage.plan("scenario_run", label(scenario.name, planned.model.name), identity, name=stage.config.name)
    finished = stage.reuse(plan)
    if finished is not None:
        stage.show_report(finished)
        stage.say_text(finished)
        return finished
    items = _items(planned, model)
    with filling(plan, stage.provenance, list(items), overwrite=stage.config.overwrite) as folder:
        write_scenario(plan.path, scenario)
        _make(folder, items, stage)
        folder.finish(lambda draft: _publish(draft, planned, model, stage))
    return stage.finished(plan)


def _items(planned: PlannedScenario, model: LanguageModel) -> dict[str, Callable[[Path], None]]:
    """What writes each item into a folder of its own: the reference states, then each conversation."""
    scenario, tokenizer = planned.scenario, planned.tokenizer
    items: dict[str, Callable[[Path], None]] = {}
    if scenario.reference_states:
        items[REFERENCES] = lambda folder: write_references(
            folder, capture_references(model, tokenizer, scenario.reference_states, scenario.capture)
        )
    for name, prompt in zip(scenario.prompt_names, scenario.prompt, strict=True):
        items[name] = lambda folder, name=name, prompt=prompt: write_conversation(
            folder, capture_conversation(model, tokenizer, name, prompt, scenario.generation, scenario.capture)
        )
    return items


def _make(folder: ScenarioFolder, items: dict[str, Callable[[Path], None]], stage: Stage) -> None:
    missing = folder.unfinished
    if len(missing) < len(items):
        stage.say(f"{folder.path}: goes on with {len(missing)} of {len(items)} items; the others are there")
    with stage.progress("capturing", len(missing), "items") as advance:
        for item in missing:
            with folder.write_item(item) as place:
                items[item](place)
            advance(1)


def _publish(draft: Draft, planned: PlannedScenario, model: LanguageModel, stage: Stage) -> None:
    """Report and summary, from what is on the disk: the same whether or not the work was interrupted."""
    scenario = planned.scenario
    conversations = []
    for name in scenario.prompt_names:
        size = sum(path.stat().st_size for path in (draft.path / name).iterdir())
        conversations.append(show.summarise(read_conversation(draft.path / name), size))
    references = read_references(draft.path / REFERENCES) if scenario.reference_states else None
    described = {"name": planned.model.name}
    draft.summary |= {"conversations": scenario.prompt_names, "model": described}
    tables = [show.run_table(scenario.name, conversations)]
    details = [*filter(None, [show.reference_table(references)]), *show.transcript_tables(conversations)]
    text = show.capture_text(scenario.name, described, conversations, [])
    stage.report(
        draft, f"Scenario {scenario.name}", text, tables, show.capture_figures(conversations), details,
        show.capture_metrics(conversations),
    )
