"""The captured scenarios that are compared."""

from collections import Counter

from src.artifacts import Artifact, choose_artifact, refuse_damaged
from src.config.compare_runs import CompareRunsConfig
from src.errors import StrataError
from src.scenarios.storage.layout import KIND
from src.stage.context import Stage
from src.stage.scenarios.captured import captured_scenarios

_ALL = "all"


def chosen_scenarios(config: CompareRunsConfig, stage: Stage) -> list[Artifact]:
    """The captured scenarios that the config names; the newest of the experiment if it names none.

    Raises StrataError if there is none, or one is named twice or damaged.
    """
    if config.runs is None or config.runs == _ALL:
        found = captured_scenarios(stage, "runs")
        artifacts = found if config.runs == _ALL else found[-1:]
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
