"""What earlier stages made under one experiment_name."""

from src.artifacts import Artifact, list_artifacts
from src.errors import StrataError
from src.stage.context import Stage


def results_of_experiment(stage: Stage, kind: str, script: str) -> list[Artifact]:
    """All artifacts of a kind that carry the stage's experiment_name.

    script: makes them. Raises StrataError if there is none.
    """
    name = stage.config.experiment_name
    found = [
        artifact for artifact in list_artifacts(stage.root, kind) if artifact.meta.config["experiment_name"] == name
    ]
    if not found:
        raise StrataError(
            f"no results of experiment_name={name} are in {stage.root / kind}: make some with {script}, or name them "
            "with results=[...]"
        )
    return found
