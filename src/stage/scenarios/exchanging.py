"""inspect_run.py import and export: captured scenarios as Activation Lab's folders, and the other way round."""

import math
from pathlib import Path

from src.artifacts import Artifact, Draft, Plan, Provenance, content_digest, find_finished, label, now, open_artifact
from src.errors import StrataError
from src.report.artifact_report import write_report
from src.report.scenarios import capture as show
from src.report.scenarios.notes import note_lines
from src.scenarios.storage.activation_lab.reading import LabScenario, read_lab_scenario
from src.scenarios.storage.activation_lab.writing import write_lab_scenario
from src.scenarios.storage.filling import filling
from src.scenarios.storage.layout import KIND, REFERENCES
from src.scenarios.storage.run_folder import read_captured, write_conversation, write_references
from src.stage.machine import git_revision, package_versions
from src.stage.scenarios.inspecting import open_run


def import_run(folder: Path, root: Path, name: str | None) -> Artifact:
    """Make a captured scenario of a folder of Activation Lab; what was imported before is found again.

    Raises StrataError if the folder is none, or is damaged.
    """
    if not folder.is_dir():
        raise StrataError(f"{folder}: no such folder; give the folder of a run that Activation Lab wrote")
    lab = read_lab_scenario(folder)
    identity = {"imported": content_digest(path for path in folder.rglob("*") if path.is_file())}
    plan = Plan(root, KIND, label(lab.scenario.name, str(lab.model["name"])), identity, name=name)
    found = find_finished(plan, overwrite=False)
    if found is not None:
        return found
    provenance = Provenance(
        {"imported": str(folder)}, lab.scenario.generation.seed or 0, "cpu", package_versions(), git_revision(), now()
    )
    items = [*([REFERENCES] if lab.references else []), *(conversation.name for conversation in lab.conversations)]
    with filling(plan, provenance, items) as place:
        place.describe(lab.scenario, lab.model, lab.tokenizer)
        if lab.references is not None and not place.finished(REFERENCES):
            with place.write_item(REFERENCES) as draft:
                write_references(draft, lab.references)
        for conversation in lab.conversations:
            if not place.finished(conversation.name):
                with place.write_item(conversation.name) as draft:
                    write_conversation(draft, conversation)
        place.finish(lambda draft: _publish(draft, lab))
    return open_artifact(plan.path, KIND)


def export_run(chosen: str, root: Path, target: Path) -> list[Path]:
    """Write a captured scenario as folders of Activation Lab; returns them. Raises StrataError as open_run does."""
    return write_lab_scenario(read_captured(open_run(chosen, root)), target)


def _publish(draft: Draft, lab: LabScenario) -> None:
    found = []
    for conversation in lab.conversations:
        n_bytes = sum(path.stat().st_size for path in (draft.path / conversation.name).iterdir())
        found.append(show.summarise(conversation, n_bytes))
    notes = note_lines({conversation.name: conversation.notes for conversation in found})
    shown = [show.run_table(lab.scenario.name, found)]
    details = [*filter(None, [show.reference_table(lab.references)]), *show.transcript_tables(found)]
    text = show.capture_text(lab.scenario.name, str(lab.model["name"]), found, notes)
    write_report(draft.path, f"Scenario {lab.scenario.name}", text, [*shown, *details], show.capture_figures(found))
    metrics = {name: value for name, value in show.capture_metrics(found).items() if math.isfinite(value)}
    draft.summary |= {"n_shown": len(shown), "metrics": metrics}
