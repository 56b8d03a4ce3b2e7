"""Where the compared runs come from: model, revision, scenario, seeds, versions."""

import json

from src.report.run_comparison.blocks import Block, Card, Fold, PagePart, Prose, ShadedTable
from src.report.run_comparison.compared import ComparedRuns, ScenarioFindings
from src.report.tables import Cell, Table


def provenance_part(found: ComparedRuns) -> PagePart:
    """The last section: a card for each captured scenario."""
    cards: list[Block] = [
        Card(f"scenario-{place + 1}", scenario.name, _blocks(scenario))
        for place, scenario in enumerate(found.scenarios)
    ]
    return PagePart("provenance", "Provenance", cards)


def _blocks(scenario: ScenarioFindings) -> list[Block]:
    meta, captured = scenario.captured.artifact.meta, scenario.captured
    settings = captured.scenario.generation
    facts: dict[str, Cell] = {
        "artifact": f"{meta.kind}/{meta.name}",
        "fingerprint": meta.fingerprint,
        "scenario": captured.scenario.name,
        "model": str(captured.model.get("name", "")),
        **{str(key): str(value) for key, value in captured.model.items() if key != "name" and value is not None},
        "seed": str(meta.seed),
        "generation": f"sampled, seed {settings.seed}" if settings.do_sample else "greedy",
        "device": meta.device,
        "git revision": meta.git_revision or "unknown",
        "time (UTC)": f"{meta.started_at} to {meta.ended_at}",
        "versions": ", ".join(f"{name} {version}" for name, version in meta.versions.items()),
    }
    text = json.dumps(captured.scenario.model_dump(mode="json", exclude_none=True), indent=2, ensure_ascii=False)
    return [
        ShadedTable(Table("", ["what", "value"], [[name, value] for name, value in facts.items()])),
        Fold("The scenario as it was run", [Prose(text)]),
    ]
