"""Run several stages one after the other, with the overrides of one command line."""

import logging
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from src.config.schema import flat_keys, unknown_key_message
from src.config.shared import StageConfig
from src.errors import NotApplicableError, StrataError
from src.stage.context import Stage
from src.stage.entry import CONFIGS, check_overrides, checked_config, compose, override_key, run_stage, second_groups


@dataclass(frozen=True)
class PipelineStage:
    """A stage of the pipeline: its primary config, its function, and the overrides that the pipeline itself makes.

    with_saes: more overrides, for models that there are SAEs of. needs: a key that must be chosen beside a model of the
    user's own (its SAEs, a scenario for it), or the stage is passed over. takes: under which key it is given the name
    of an artifact that an earlier stage made, by kind; without it, under the kind itself.
    """

    config_name: str
    run: Callable[[Any, Stage], Any]
    schema: type[StageConfig]
    overrides: tuple[str, ...] = ()
    with_saes: tuple[str, ...] = ()
    needs: str | None = None
    takes: Mapping[str, str] = field(default_factory=dict)


def run_stages(stages: Sequence[PipelineStage], arguments: Sequence[str]) -> Path:
    """Run the stages in order; an override goes to every stage that has its key. Returns the artifacts folder.

    A stage works on what the stages before it returned: an artifact of a kind is handed on under the config key of that
    name (activations=..., operators=...), unless the user has set it. All configs are composed and checked before the
    first stage runs. A stage that means nothing for the model is passed over, and the user told; so is what needs SAEs
    or a scenario where the user has chosen a model and none for it. Raises StrataError for a key that no stage has, for
    an artifact that is not finished, and if every stage is passed over.
    """
    for argument in arguments:
        if argument.startswith("-"):
            raise StrataError(f"{argument}: the pipeline takes key=value only; sweep a stage with its script and -m")
        if not any(_knows(stage, argument) for stage in stages):
            known = {key: info for stage in stages for key, info in flat_keys(stage.schema)}
            raise StrataError(unknown_key_message(override_key(argument), known))
    has_saes = _is_chosen("sae", arguments)
    left_out = [stage for stage in stages if stage.needs and not _is_chosen(stage.needs, arguments)]
    if len(left_out) == len(stages):
        raise StrataError(f"nothing is left to run: choose {left_out[0].needs}=... for this model")
    for key in dict.fromkeys(stage.needs for stage in left_out):
        names = ", ".join(dict.fromkeys(stage.config_name for stage in left_out if stage.needs == key))
        print(f"no {key}=... is chosen for this model: left out are {names}", file=sys.stderr)
    jobs = []
    for stage in stages:
        if stage in left_out:
            continue
        own = (*stage.overrides, *(stage.with_saes if has_saes else ()))
        overrides = [*own, *(word for word in arguments if _knows(stage, word))]
        check_overrides(overrides, stage.schema)
        config = compose(stage.config_name, overrides)
        checked_config(stage.schema, config)
        jobs.append((stage, config, overrides))
    _log_to(Path("outputs") / "run_pipeline" / time.strftime("%Y-%m-%d_%H-%M-%S"))
    made: dict[str, str] = {}
    for stage, config, overrides in jobs:
        chosen = {override_key(word) for word in overrides}
        for kind, name in made.items():
            key = stage.takes.get(kind, kind)
            if key in stage.schema.model_fields and key not in chosen:
                OmegaConf.update(config, key, name)
        try:
            artifact = run_stage(stage.run, stage.schema, stage.config_name, config, overrides)
        except NotApplicableError as error:
            print(f"run_pipeline goes on without {stage.config_name}: {error}", file=sys.stderr, flush=True)
            continue
        if artifact is None:
            raise StrataError(
                f"{stage.config_name} is not finished: other workers have parts to do; run this again after them"
            )
        made[artifact.meta.kind] = artifact.path.name
    return Path(jobs[-1][1].artifacts_dir)


def _is_chosen(key: str, arguments: Sequence[str]) -> bool:
    """Whether the key has a value that fits the model: that of the default model, or one that the user gives."""
    chosen = {override_key(word).split(".")[0] for word in arguments}
    return key in chosen or "model" not in chosen


def _knows(stage: PipelineStage, argument: str) -> bool:
    """Whether an override says something to a stage: it has the key, or a section that such a config group fills."""
    key = override_key(argument)
    names = [name for name, _ in flat_keys(stage.schema)]
    if key in names:
        return True
    # a plain value of one stage (layers=[0,1]) may be called what another one calls a section (layers.source)
    is_group = (CONFIGS / key).is_dir() or key in second_groups(stage.config_name)
    return is_group and any(name.startswith(f"{key}.") for name in names)


def _log_to(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(folder / "run_pipeline.log", encoding="utf-8")
    handler.setFormatter(logging.Formatter("[%(asctime)s][%(name)s][%(levelname)s] - %(message)s"))
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(logging.INFO)
