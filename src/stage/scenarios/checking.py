"""capture_scenario.py mode=validate: all that can be wrong with a scenario, told without the model's weights."""

from src.models import layers_in_config
from src.report.scenarios.notes import note_lines
from src.report.tables import Cell, Table
from src.stage.context import Stage
from src.stage.scenarios.planning import PlannedScenario
from src.stage.scenarios.scripts import ScriptedReading, write_scripts


def validate(planned: PlannedScenario, stage: Stage) -> None:
    """Tell what a scenario holds, and what the chat template makes of it.

    Raises:
        StrataError: the scenario can't be run.
    """
    scenario, scripts = planned.scenario, write_scripts(planned, stage.config.seed)
    own = [scripted for scripted in scripts.conversations if scripted.reading.order is None]
    rows: list[list[Cell]] = []
    for scripted in own:
        orders = sum(
            other.reading.name.startswith(f"{scripted.reading.name}_order_") for other in scripts.conversations
        )
        messages = len(scripted.reading.prompt.messages)
        rows.append([scripted.reading.name, messages, len(scripted.script.ids), scripted.n_runs, orders])
    columns = ["conversation", "messages", "tokens", "runs", "orders"]
    stage.show(Table(f"Conversations of {scenario.name}", columns, rows, "orders: read again with shuffled turns"))
    if scripts.references:
        texts: list[list[Cell]] = [
            [label, len(lengths), min(lengths), max(lengths)] for label, lengths in scripts.references.items()
        ]
        columns = ["label", "texts", "fewest tokens", "most tokens"]
        stage.show(Table(f"Reference states of {scenario.name}", columns, texts))
    notes = {scripted.reading.name: scripted.script.notes | _unstable(scripted) for scripted in own}
    for line in note_lines(notes):
        stage.warn(line)
    stage.say(f"{planned.file} is in order: {planned.model.name} can read it ({_kept(planned)})")


def _kept(planned: PlannedScenario) -> str:
    """Layers, preset and dtype, in words."""
    n_layers, layers = layers_in_config(planned.model), planned.scenario.capture.layers
    of = f" of {n_layers}" if n_layers is not None else ""
    named = "all layers" if layers == "all" else f"layers {', '.join(map(str, sorted(layers)))}{of}"
    return f"{named}, preset {planned.scenario.capture.preset}, computed in {planned.model.dtype}"


def _unstable(scripted: ScriptedReading) -> dict[str, object]:
    """A note on messages whose beginning is not one of the whole's; none for usual templates."""
    if not scripted.read_apart:
        return {}
    messages = scripted.reading.prompt.messages
    apart = ", ".join(f"{index} ({messages[index].role})" for index in scripted.read_apart)
    return {
        "not prefix-stable": f"the template writes what leads up to message {apart} otherwise when more follows; the "
        "states of these messages come from passes of their own"
    }
