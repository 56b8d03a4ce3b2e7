"""capture_scenario.py mode=validate and mode=estimate: what can be told without the model's weights."""

from src.models import layers_in_config
from src.report.tables import Cell, Table
from src.stage.context import Stage
from src.stage.scenarios.planning import PlannedScenario
from src.stage.scenarios.scripts import peculiarities, write_scripts


def validate(planned: PlannedScenario, stage: Stage) -> None:
    """Tell what a scenario holds, and what its template makes of it.

    Raises:
        StrataError: the scenario can't be run.
    """
    scenario, scripts = planned.scenario, write_scripts(planned)
    rows: list[list[Cell]] = []
    notes: list[str] = []
    for prompt, (name, script) in zip(scenario.prompt, scripts.conversations.items(), strict=True):
        runs = len(prompt.messages) if prompt.run_at_each_message else 1
        rows.append([name, len(prompt.messages), len(script.ids), runs, prompt.orders])
        notes += peculiarities(name, prompt.messages, script)
    stage.show(Table(f"Conversations of {scenario.name}", ["conversation", "messages", "tokens", "runs", "orders"], rows))
    if scripts.references:
        texts = [
            [label, len(found), min(len(script.ids) for script in found), max(len(script.ids) for script in found)]
            for label, found in scripts.references.items()
        ]
        stage.show(Table(f"Reference states of {scenario.name}", ["label", "texts", "fewest tokens", "most"], texts))
    for note in notes:
        stage.warn(note)
    n_layers = layers_in_config(planned.model)
    layers = "all" if scenario.capture.layers == "all" else ", ".join(map(str, sorted(scenario.capture.layers)))
    of = f" of {n_layers}" if n_layers is not None else ""
    stage.say(
        f"{planned.file} is in order: {planned.model.name} can read it; layers {layers}{of}, preset "
        f"{scenario.capture.preset}"
    )
