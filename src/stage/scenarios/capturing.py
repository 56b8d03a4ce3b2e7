"""capture_scenario.py mode=capture: the model reads a scenario, item by item; a report seals the folder."""

import json
from collections.abc import Mapping
from typing import Any

from src.artifacts import Artifact, Draft, Plan, label
from src.models import LanguageModel
from src.report.scenarios import capture as show
from src.report.scenarios.notes import note_lines
from src.scenarios.storage.description import describe_model, describe_tokenizer
from src.scenarios.storage.filling import ScenarioFolder, filling
from src.scenarios.storage.layout import KIND, REFERENCES
from src.scenarios.storage.run_folder import read_conversation, read_references
from src.stage.context import Stage
from src.stage.scenarios.choosing import scenario_identity
from src.stage.scenarios.estimating import costs_of
from src.stage.scenarios.items import Item, items_of
from src.stage.scenarios.limits import refuse_full_disk, refuse_large
from src.stage.scenarios.loaded_model import LoadedModel
from src.stage.scenarios.planning import PlannedScenario
from src.stage.scenarios.scripts import Scripts, write_scripts


def capture(planned: PlannedScenario, models: LoadedModel, stage: Stage, max_gb: float) -> Artifact:
    """Capture a scenario, go on with it, or show what an earlier run found.

    Raises:
        StrataError: the scenario is too large for the limit or the disk, or the model can't be loaded or run.
    """
    scripts = write_scripts(planned, stage.config.seed)
    costs = costs_of(planned, scripts)
    n_bytes = 0 if costs is None else sum(cost.total for cost in costs.values())
    refuse_large(planned, n_bytes, max_gb)
    model = models.get(planned.model, stage)
    planned.refuse_missing_layers(model.n_layers)
    scenario = planned.scenario
    identity = {
        "scenario": scenario_identity(scenario),
        "orders_seed": stage.config.seed if any(prompt.orders for prompt in scenario.prompt) else None,
        "model": model.identity_of_predictions(),
        "generation_config": _generation_config(model),
        "tokenizer": planned.tokenizer_identity,
    }
    plan = stage.plan(KIND, label(scenario.name, planned.model.name), identity, name=stage.config.name)
    finished = stage.reuse(plan)
    if finished is None:
        refuse_full_disk(planned, plan.path, n_bytes)
        finished = _captured(plan, planned, scripts, model, stage)
        stage.say(f"wrote {plan.path}")
    else:
        stage.show_report(finished)
    stage.say_text(finished)
    stage.say(f"next: python compare_runs.py runs={plan.path.name}")
    return finished


def _captured(plan: Plan, planned: PlannedScenario, scripts: Scripts, model: LanguageModel, stage: Stage) -> Artifact:
    items = items_of(planned, scripts, model)
    with filling(plan, stage.provenance, list(items), overwrite=stage.config.overwrite) as folder:
        folder.describe(
            planned.scenario, describe_model(model, plan.identity["model"]), describe_tokenizer(planned.tokenizer)
        )
        _make(folder, items, stage)
        folder.finish(lambda draft: _publish(draft, planned, list(items), stage))
    return stage.finished(plan)


def _generation_config(model: LanguageModel) -> dict[str, Any]:
    """What the checkpoint says of generation: its end tokens and penalties decide what is generated too."""
    values = json.loads(model.module.generation_config.to_json_string(use_diff=True))
    return {key: value for key, value in values.items() if key not in ("transformers_version", "_from_model_config")}


def _make(folder: ScenarioFolder, items: Mapping[str, Item], stage: Stage) -> None:
    missing = folder.unfinished
    if len(missing) < len(items):
        stage.say(f"{folder.path}: goes on with {len(missing)} of {len(items)} items; the others are there")
    with stage.progress("capturing", sum(items[name].n_tokens for name in missing), "tokens") as advance:
        for name in missing:
            with folder.write_item(name) as place:
                items[name].capture(place, advance)


def _publish(draft: Draft, planned: PlannedScenario, items: list[str], stage: Stage) -> None:
    """The report, from what is on the disk: the same whether or not the work was interrupted."""
    scenario, conversations = planned.scenario, []
    for name in items:
        if name != REFERENCES:
            size = sum(path.stat().st_size for path in (draft.path / name).iterdir())
            conversations.append(show.summarise(read_conversation(draft.path / name), size))
    references = read_references(draft.path / REFERENCES) if scenario.reference_states else None
    notes = note_lines({conversation.name: conversation.notes for conversation in conversations})
    for note in notes:
        stage.warn(note)
    tables = [show.run_table(scenario.name, conversations)]
    details = [*filter(None, [show.reference_table(references)]), *show.transcript_tables(conversations)]
    text = show.capture_text(scenario.name, planned.model.name, conversations, notes)
    stage.report(
        draft,
        f"Scenario {scenario.name}",
        text,
        tables,
        show.capture_figures(conversations),
        details,
        show.capture_metrics(conversations),
    )
