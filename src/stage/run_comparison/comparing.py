"""Compare the runs of captured scenarios with each other, with themselves, and with reference states."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from src.artifacts import Artifact, Parent, label
from src.config.compare_runs import CompareRunsConfig
from src.errors import StrataError
from src.report.run_comparison.compared import ComparedRuns, RunFindings, RunReferences, ScenarioFindings
from src.scenarios.comparing.attended_messages import attended_messages
from src.scenarios.comparing.centring import similarities
from src.scenarios.comparing.fading import fading
from src.scenarios.comparing.labelled import labelled_messages
from src.scenarios.comparing.qkv import qkv_with_references
from src.scenarios.comparing.runs import ComparedRun, between_runs, within_run
from src.scenarios.comparing.separability import separability
from src.scenarios.comparing.to_references import compare_with_references
from src.scenarios.source_names import canonical_source
from src.scenarios.states import QKV_SOURCES, RESIDUAL_SOURCES, References, Run
from src.scenarios.storage.run_folder import read_captured
from src.stage.context import Stage
from src.stage.run_comparison.choosing import chosen_scenarios


@dataclass(frozen=True)
class Work:
    """What is to be compared."""

    config: CompareRunsConfig
    artifacts: list[Artifact]
    sources: list[str]

    @property
    def label(self) -> str:
        """Names the artifact."""
        return label(*(artifact.path.name for artifact in self.artifacts[:2]))

    @property
    def parents(self) -> list[Parent]:
        """The captured scenarios."""
        return [Parent(it.meta.kind, it.meta.name, it.meta.fingerprint) for it in self.artifacts]

    def identity(self) -> dict[str, Any]:
        """What determines the content, besides the captured scenarios."""
        keys = ("positions", "pair_cards", "draws", "seed")
        return {"sources": self.sources, **{key: getattr(self.config, key) for key in keys}}


def prepare(config: CompareRunsConfig, stage: Stage) -> Work:
    """Check what can be checked before the captured states are read. Raises StrataError."""
    sources = [canonical_source(name) for name in config.sources]
    if unknown := [name for name in sources if name not in RESIDUAL_SOURCES]:
        raise StrataError(
            f"sources={unknown}: cosines of whole states are of {', '.join(RESIDUAL_SOURCES)}; queries, keys, "
            "values and "
            "attention are shown where they were captured"
        )
    if len(set(sources)) < len(sources):
        raise StrataError(f"sources={config.sources}: two of them are the same one")
    return Work(config, chosen_scenarios(config, stage), sources)


def compare(work: Work, stage: Stage) -> ComparedRuns:
    """Read the captured scenarios and compare their runs."""
    config = work.config
    scenarios = [_scenario(artifact, work) for artifact in work.artifacts]
    captured = [
        (scenario, run) for scenario in scenarios for one in scenario.captured.conversations for run in one.runs()
    ]
    if not captured:
        raise StrataError(
            f"{', '.join(it.name for it in scenarios)}: there are no runs in it; capture the scenario again"
        )
    findings = []
    with stage.progress("comparing runs", len(captured), "run") as advance:
        for number, (scenario, run) in enumerate(captured):
            findings.append(_run(f"R{number + 1}", scenario, run, work, several=len(scenarios) > 1))
            advance(1)
    between = between_runs([one.compared for one in findings], work.sources)
    for problem in dict.fromkeys(problem for scenario in scenarios for problem in scenario.problems):
        stage.warn(problem)
    return ComparedRuns(scenarios, findings, between, work.sources, config.positions, config.pair_cards)


def _scenario(artifact: Artifact, work: Work) -> ScenarioFindings:
    captured = read_captured(artifact)
    found = ScenarioFindings(captured)
    if captured.references is None:
        return found
    for position in work.config.positions:
        if position in captured.references.rows:
            _score_references(found, captured.references, position, work)
        else:
            kept = ", ".join(captured.references.rows) or "none"
            found.problems.append(f"its references have no position {position!r} (there are: {kept})")
    return found


def _score_references(found: ScenarioFindings, references: References, position: str, work: Work) -> None:
    """What the references tell apart, and whether labelled messages show their labels."""
    sources, draws, seed = tuple(work.sources), work.config.draws, work.config.seed
    found.separability.append(separability(references, position, sources, draws=draws, seed=seed))
    conversations = found.captured.conversations
    if not any(message.label for conversation in conversations for message in conversation.messages):
        return
    try:
        found.labelled.append(labelled_messages(conversations, references, position, sources, draws=draws, seed=seed))
        found.fading.append(fading(conversations, references, position, sources, draws=draws, seed=seed))
    except StrataError as error:
        found.problems.append(str(error))


def _run(key: str, scenario: ScenarioFindings, run: Run, work: Work, several: bool) -> RunFindings:
    name = f"{scenario.name}/{run.name}" if several else run.name
    return RunFindings(
        key,
        ComparedRun(name, run, scenario.captured.model),
        scenario,
        within_run(run, work.sources),
        attended_messages(run),
        _references(scenario, run, work),
    )


def _references(scenario: ScenarioFindings, run: Run, work: Work) -> Sequence[RunReferences]:
    """The run beside the references at each position that both have; what is missing is noted."""
    references = scenario.captured.references
    found: list[RunReferences] = []
    for position in work.config.positions if references is not None else ():
        if references is None or position not in references.rows:
            continue
        try:
            plain = compare_with_references(run, references, position, work.sources)
            similar = similarities(run, references, position, work.sources, whitened=False)
        except StrataError as error:
            scenario.problems.append(str(error))
            continue
        has_qkv = all(
            source in run.conversation.snapshot_rows and source in references.rows[position] for source in QKV_SOURCES
        )
        qkv = qkv_with_references(run, references, position) if has_qkv else None
        tested = next((it for it in scenario.separability if it.position == position), None)
        found.append(RunReferences(position, similar, plain, qkv, tested))
    return found
