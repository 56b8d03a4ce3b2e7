"""The captured scenarios that are compared."""

from collections import Counter

from src.artifacts import META, Artifact, choose_artifact, list_artifacts, refuse_damaged
from src.config.compare_runs import CompareRunsConfig
from src.errors import StrataError
from src.stage.context import Stage

KIND = "scenario_run"
_ALL = "all"


def chosen_scenarios(config: CompareRunsConfig, stage: Stage) -> list[Artifact]:
    """The captured scenarios that the config names; the newest of the experiment if it names none.

    Raises StrataError if there is none, or one is named twice or damaged.
    """
    if config.runs is None or config.runs == _ALL:
        found = [
            it
            for it in list_artifacts(stage.root, KIND)
            if it.meta.config.get("experiment_name") == config.experiment_name
        ]
        if not found:
            others = ", ".join(sorted({artifact.path.name for artifact in list_artifacts(stage.root, KIND)}))
            raise StrataError(
                f"no captured scenarios of experiment_name={config.experiment_name} are in {stage.root / KIND}"
                + (f" (of other experiments: {others}; name them with runs=[...])" if others else "")
                + ": make one with capture_scenario.py"
            )
        artifacts = found if config.runs == _ALL else [max(found, key=_ended)]
    else:
        names = [config.runs] if isinstance(config.runs, str) else config.runs
        remedy = "capture it with capture_scenario.py"
        artifacts = [choose_artifact(stage.root, KIND, name, [], key="runs", remedy=remedy) for name in names]
        twice = [
            path for path, count in Counter(artifact.path.resolve() for artifact in artifacts).items() if count > 1
        ]
        if twice:
            raise StrataError(f"runs={names}: {twice[0].name} is named twice")
    for artifact in artifacts:
        refuse_damaged(artifact, "capture it again with overwrite=true")
    return artifacts


def _ended(artifact: Artifact) -> tuple[str, int]:
    """When an artifact was finished; meta.json, which is written last, tells those of one second apart."""
    return artifact.meta.ended_at, (artifact.path / META).stat().st_mtime_ns
