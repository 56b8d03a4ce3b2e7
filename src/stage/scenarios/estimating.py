"""capture_scenario.py mode=estimate: tokens and bytes of a scenario, told without the model's weights."""

from src.models import sizes_in_config
from src.report.tables import Cell, Table
from src.scenarios.estimate import Cost, conversation_cost, references_cost
from src.scenarios.storage.layout import REFERENCES
from src.stage.context import Stage
from src.stage.scenarios.limits import refuse_large
from src.stage.scenarios.planning import PlannedScenario
from src.stage.scenarios.scripts import Scripts, write_scripts

_PARTS = ("messages", "steps", "tokens", "references", "text")


def costs_of(planned: PlannedScenario, scripts: Scripts) -> dict[str, Cost] | None:
    """What each item costs, by name; None where the model's config.json does not tell its sizes."""
    sizes = sizes_in_config(planned.model)
    if sizes is None:
        return None
    capture, new = planned.scenario.capture, planned.scenario.generation.max_new_tokens
    costs: dict[str, Cost] = {}
    if scripts.references:
        lengths = [length for lengths in scripts.references.values() for length in lengths]
        costs[REFERENCES] = references_cost(lengths, sizes, capture)
    for scripted in scripts.conversations:
        costs[scripted.reading.name] = conversation_cost(scripted.script, scripted.afters, new, sizes, capture)
    return costs


def estimate(planned: PlannedScenario, stage: Stage, max_gb: float) -> None:
    """Show what a scenario costs.

    Raises:
        StrataError: it needs more than the limit, or can't be run at all.
    """
    scripts = write_scripts(planned, stage.config.seed)
    costs = costs_of(planned, scripts)
    if costs is None:
        stage.warn(f"{planned.file}: the config.json of {planned.model.name} does not tell its sizes: no estimate")
        return
    groups: dict[str, list[Cost]] = {REFERENCES: [costs[REFERENCES]]} if REFERENCES in costs else {}
    for scripted in scripts.conversations:
        groups.setdefault(scripted.row, []).append(costs[scripted.reading.name])
    stage.show(_cost_table(planned.scenario.name, groups))
    total = sum(cost.total for cost in costs.values())
    read, apart = (sum(getattr(cost, name) for cost in costs.values()) for name in ("tokens_read", "tokens_by_prefix"))
    stage.say(
        f"{planned.file}: about {total / 1e6:,.1f} MB, and {read:,} tokens through {planned.model.name}; one pass for "
        f"each state would read {apart:,} ({apart / read:.1f} times as many)"
    )
    refuse_large(planned, total, max_gb)


def _cost_table(scenario: str, groups: dict[str, list[Cost]]) -> Table:
    """A row for each conversation, and one for all of its random orders."""
    parts = [part for part in _PARTS if any(part in cost.n_bytes for costs in groups.values() for cost in costs)]
    rows: list[list[Cell]] = []
    for name, costs in groups.items():
        sizes = [[cost.n_bytes[part] for cost in costs if part in cost.n_bytes] for part in parts]
        megabytes: list[Cell] = [round(sum(found) / 1e6, 3) if found else None for found in sizes]
        read, apart = (sum(cost.tokens_read for cost in costs), sum(cost.tokens_by_prefix for cost in costs))
        rows.append([name, read, apart, *megabytes])
    caption = "MB on the disk at most: replies that end early need less. By prefix: with one pass for each state."
    columns = ["item", "tokens read", "by prefix", *(f"MB: {part}" for part in parts)]
    return Table(f"Estimate of {scenario}", columns, rows, caption)
