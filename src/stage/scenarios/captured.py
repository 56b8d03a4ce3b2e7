"""The captured scenarios that later stages read."""

from src.artifacts import META, Artifact, choose_artifact, list_artifacts
from src.errors import StrataError
from src.scenarios.storage.layout import KIND
from src.stage.context import Stage

_REMEDY = "capture one with capture_scenario.py"


def captured_scenarios(stage: Stage, key: str) -> list[Artifact]:
    """Those of this experiment_name, and imported ones, which have none; the newest last.

    key: of the config that would name one.
    Raises StrataError if there is none; the message tells those of other experiments.
    """
    every, experiment = list_artifacts(stage.root, KIND), stage.config.experiment_name
    found = [artifact for artifact in every if artifact.meta.config.get("experiment_name", experiment) == experiment]
    if not found:
        others = ", ".join(sorted(artifact.path.name for artifact in every))
        raise StrataError(
            f"no captured scenario of experiment_name={experiment} is in {stage.root / KIND}"
            + (f" (of others: {others}): choose one with {key}=..., or {_REMEDY}" if others else f": {_REMEDY}")
        )
    return sorted(found, key=_ended)


def captured_scenario(stage: Stage, named: str | None, key: str) -> Artifact:
    """The one that the user names, or the newest of this experiment_name, which is said where there are several.

    Raises StrataError if there is none of that name, or none at all.
    """
    if named is not None:
        return choose_artifact(stage.root, KIND, named, [], key=key, remedy=_REMEDY)
    found = captured_scenarios(stage, key)
    if len(found) > 1:
        stage.say(f"{key}={found[-1].path.name}: the newest of {len(found)} captured scenarios")
    return found[-1]


def _ended(artifact: Artifact) -> tuple[str, int]:
    """When an artifact was finished; meta.json, which is written last, tells those of one second apart."""
    return artifact.meta.ended_at, (artifact.path / META).stat().st_mtime_ns
