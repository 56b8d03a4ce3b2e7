"""One scenario after the other: a failure is told at once, and stops none of the others."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from src.artifacts import Artifact
from src.config.capture_scenario import CaptureScenarioConfig
from src.errors import StrataError
from src.scenarios.scenario import Scenario
from src.stage.context import Stage
from src.stage.scenarios.capturing import capture
from src.stage.scenarios.checking import validate
from src.stage.scenarios.estimating import estimate
from src.stage.scenarios.finding import scenario_files
from src.stage.scenarios.loaded_model import LoadedModel
from src.stage.scenarios.planning import plan_scenario

log = logging.getLogger("strata")


def run_scenarios(config: CaptureScenarioConfig, stage: Stage) -> Artifact | None:
    """Capture, validate or estimate all that scenario=... means; the artifact of the last one that was captured.

    Raises:
        StrataError: there is no scenario, or some have failed.
    """
    files = scenario_files(config.scenario, config.scenarios_dir)
    if config.name is not None and len(files) > 1:
        raise StrataError(f"name={config.name} names one artifact, and {config.scenario} holds {len(files)} scenarios")
    models = LoadedModel()

    def run_one(file: Path) -> Artifact | None:
        planned = plan_scenario(file, config)
        if idle := _without_effect(planned.scenario):
            stage.warn(
                f"{', '.join(idle)}: without effect, since the model answers greedily; sample with "
                "generation.do_sample=true"
            )
        if config.mode == "validate":
            return validate(planned, stage)
        if config.mode == "estimate":
            return estimate(planned, stage, config.max_gb)
        stage.use_device(planned.device)
        return capture(planned, models, stage, config.max_gb)

    return in_turn(files, run_one, stage)


def _without_effect(scenario: Scenario) -> list[str]:
    """What is set of sampling though the model does not sample."""
    settings = scenario.generation
    set_ = {"temperature": settings.temperature != 1, "top_k": settings.top_k, "top_p": settings.top_p not in (None, 1)}
    return [] if settings.do_sample else [f"generation.{name}" for name, is_set in set_.items() if is_set]


def in_turn(files: Sequence[Path], run_one: Callable[[Path], Artifact | None], stage: Stage) -> Artifact | None:
    """Run every scenario.

    Raises:
        StrataError: a single scenario has failed (why), or some of several (how many: their messages were told before).
    """
    if len(files) == 1:
        return run_one(files[0])
    failed, last = [], None
    for file in files:
        try:
            last = run_one(file) or last
        except (StrataError, RuntimeError, MemoryError) as error:
            failed.append(file)
            log.error("%s failed", file, exc_info=error)
            stage.errors.print(_told(file, error), soft_wrap=True, markup=False, style="red")
    if failed:
        names = ", ".join(file.name for file in failed)
        raise StrataError(f"{len(failed)} of {len(files)} scenarios failed ({names}): their messages stand above")
    return last


def _told(file: Path, error: Exception) -> str:
    """The message of an error, each line with the file; of what is no StrataError its kind too, and one line."""
    message = str(error) if isinstance(error, StrataError) else f"{type(error).__name__}: {error}".partition("\n")[0]
    return "\n".join(line if line.startswith(str(file)) else f"{file}: {line}" for line in message.splitlines())
