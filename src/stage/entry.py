"""From a command line to a checked config and a running stage."""

import difflib
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import CompactHydraException, HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from src.artifacts import disk_errors
from src.config.schema import flat_keys, parse_config, unknown_key_message
from src.config.shared import StageConfig
from src.errors import StrataError
from src.stage.context import Stage
from src.stage.help import print_help

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = ROOT / "configs"

ConfigT = TypeVar("ConfigT", bound=StageConfig)

# sections of a config that are models
_MODELS = ("model", "target")

# what shells expect of a program that Ctrl-C has ended
_INTERRUPTED = 130


class StageFailure(CompactHydraException):
    """One job of a sweep has failed: Hydra runs the other jobs, then ends with this message, without a traceback."""


def entry_point(run: Callable[[ConfigT, Stage], Any], schema: type[ConfigT], config_name: str) -> Callable[[], None]:
    """The `main` of a stage script: `--help`, checked overrides, Hydra (with multirun), then `run(config, stage)`.

    run: the stage itself. schema: its typed config. config_name: the primary YAML in configs/, which names the stage.
    """

    def job(config: DictConfig) -> None:
        overrides = [str(item) for item in HydraConfig.get().overrides.task]
        try:
            run_stage(run, schema, config_name, config, overrides)
        except StrataError as error:
            if HydraConfig.get().mode != RunMode.MULTIRUN:
                sys.exit(f"{config_name}: {error}")
            # at once, and for every job: Hydra itself shows the first failure alone, at the end of the sweep
            print(f"{config_name} {' '.join(overrides)}: {error}", file=sys.stderr, flush=True)
            raise StageFailure(f"job failed: {config_name} {' '.join(overrides)} (its message stands above)") from None

    def main() -> None:
        sys.argv[1:] = arguments = [placed(quoted(word), config_name) for word in sys.argv[1:]]
        if {"--help", "-h"} & set(arguments):
            print_help(run, schema, config_name, CONFIGS)
            return
        try:
            check_overrides(arguments, schema)
        except StrataError as error:
            sys.exit(f"{config_name}: {error}")
        with interrupts(config_name):
            hydra.main(version_base="1.3", config_path=str(CONFIGS), config_name=config_name)(job)()

    return main


@contextmanager
def interrupts(name: str) -> Iterator[None]:
    """Turn Ctrl-C into one line and the exit status that shells expect."""
    try:
        yield
    except KeyboardInterrupt:
        print(f"{name}: interrupted; run the same command again: what is finished is kept", file=sys.stderr)
        sys.exit(_INTERRUPTED)


def run_stage(
    run: Callable[[ConfigT, Stage], Any],
    schema: type[ConfigT],
    stage_name: str,
    config: DictConfig,
    overrides: list[str],
) -> Any:
    """Check a composed config, open the stage, and run it.

    Raises StrataError for a bad config, and when the disk or the memory of the device is full.
    """
    _refuse_ignored_name(config, overrides)
    _name_after_folder(config, overrides)
    checked = checked_config(schema, config)
    try:
        with disk_errors(Path(checked.artifacts_dir)), Stage(stage_name, checked, overrides=overrides) as stage:
            return run(checked, stage)
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":  # torch's
            reason = str(error).partition("\n")[0] or "the system gives no more"
            raise StrataError(f"out of memory ({reason}): use fewer layers or pairs, or another device=...") from error
        raise


def _refuse_ignored_name(config: DictConfig, overrides: list[str]) -> None:
    """A model's path wins over its name: a name set beside the path of a config group would change nothing."""
    keys = {override_key(word) for word in overrides}
    for model in _MODELS:
        path, name = (OmegaConf.select(config, f"{model}.{key}") for key in ("path", "name"))
        if f"{model}.name" in keys and f"{model}.path" not in keys and path is not None:
            raise StrataError(
                f"{model}.name={name} would be ignored: the chosen model config loads the folder {path}; "
                f"for a model of the hub use {model}=hub {model}.name={name}"
            )


def _name_after_folder(config: DictConfig, overrides: list[str]) -> None:
    """A model folder of the user's own is not called what the chosen model config is called."""
    keys = {override_key(word) for word in overrides}
    for model in _MODELS:
        path = OmegaConf.select(config, f"{model}.path")
        if f"{model}.path" in keys and f"{model}.name" not in keys and isinstance(path, str):
            OmegaConf.update(config, f"{model}.name", Path(path).resolve().name)


def checked_config(schema: type[ConfigT], config: DictConfig) -> ConfigT:
    """Resolve a composed config and check it against its schema; StrataError names every bad key."""
    try:
        values = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except MissingMandatoryValue as error:
        raise StrataError(f"{error.full_key} has no value: add {error.full_key}=... to the command line") from None
    except OmegaConfBaseException as error:
        raise StrataError(f"{error.full_key}: {str(error).splitlines()[0]}; set it on the command line") from None
    assert isinstance(values, dict)
    return parse_config(schema, {str(key): value for key, value in values.items()})


def compose(config_name: str, overrides: list[str]) -> DictConfig:
    """Compose a primary config with overrides, as the command line does (for run_pipeline.py and tests)."""
    GlobalHydra.instance().clear()
    overrides = [placed(word, config_name) for word in overrides]
    with hydra.initialize_config_dir(version_base="1.3", config_dir=str(CONFIGS)):
        try:
            return hydra.compose(config_name, overrides=overrides)
        except HydraException as error:
            raise StrataError(str(error)) from None


def placed(argument: str, config_name: str) -> str:
    """An override such as `target=gpt2`, where a config has a second model in the section `target`, in Hydra's words.

    (`model@target=gpt2`: an option of the group `model`.) Anything else comes back as it was.
    """
    section, equals, value = argument.partition("=")
    group = second_groups(config_name).get(section)
    return f"{group}@{section}={value}" if equals and group else argument


def second_groups(config_name: str) -> dict[str, str]:
    """The sections of a primary config that are filled from a group of another name, and that group."""
    defaults = OmegaConf.select(OmegaConf.load(CONFIGS / f"{config_name}.yaml"), "defaults") or []
    named = [str(key) for entry in defaults if isinstance(entry, DictConfig) for key in entry]
    return {key.partition("@")[2]: key.partition("@")[0] for key in named if "@" in key}


def override_key(argument: str) -> str:
    """The key or group of an override such as `model=gpt2` or `+experiment.L=[0]`; StrataError if it is none."""
    return _parsed(argument).key_or_group


def quoted(argument: str) -> str:
    """An override whose value holds {layer} or {width}, with the quotes that Hydra's grammar wants around braces.

    Anything else, and what Hydra understands as it is, comes back as it was.
    """
    key, equals, value = argument.partition("=")
    if not equals or not re.search(r"\{(layer|width)\}", value) or re.search(r"""["',\\]""", value):
        return argument
    try:
        _parsed(argument)
    except StrataError:
        return f'{key}="{value}"'
    return argument


def _parsed(argument: str) -> Override:
    try:
        return OverridesParser.create().parse_override(argument)
    except HydraException as error:
        key, equals, value = argument.partition("=")
        hint = f"; a value with signs of Hydra's grammar needs quotes of its own: '{key}=\"...\"'" if equals else ""
        hint = "" if value.startswith(("[", "{")) else hint
        raise StrataError(f"{argument!r} is no override: {str(error).splitlines()[0]}{hint}") from None


def check_overrides(arguments: list[str], schema: type[StageConfig]) -> None:
    """Refuse overrides of keys that the schema does not have, and options that a config group does not have.

    Hydra would refuse them too, but advises to add a key with a plus sign, and ends with a traceback for model=3.
    """
    known = dict(flat_keys(schema))
    folders = [path.relative_to(CONFIGS) for path in CONFIGS.rglob("*") if path.is_dir()]
    groups = {folder.as_posix() for folder in folders if folder.parts[0] in schema.model_fields}
    has_own_configs = any(word.startswith(("--config-dir", "-cd", "hydra.searchpath")) for word in arguments)
    problems: list[str] = []
    for word in arguments:
        if word.startswith("-") or "=" not in word:
            continue
        key = override_key(word)
        is_section = any(name.startswith(f"{key}.") for name in known)
        if key not in known and not is_section and key not in groups and key.split(".")[0].split("/")[0] != "hydra":
            problems.append(unknown_key_message(key, [*groups, *known]))
        elif key in groups and not has_own_configs:
            problems += _unknown_options(_parsed(word), key)
        elif is_section and key not in {*known, *groups, *_MODELS} and not isinstance(_parsed(word).value(), dict):
            inside = [name for name in known if name.startswith(f"{key}.")]
            problems.append(f"{key}: is a section, and takes no value itself; set {', '.join(inside)}")
    if problems:
        raise StrataError("\n".join(problems))


def _unknown_options(override: Override, group: str) -> list[str]:
    """A message for each option that the user names (several in a sweep) and the config group does not have."""
    if override.is_delete() or (override.is_sweep_override() and not override.is_choice_sweep()):
        return []
    named = list(override.sweep_string_iterator()) if override.is_choice_sweep() else [override.value()]
    options = sorted(path.stem for path in (CONFIGS / group).glob("[!_]*.yaml"))
    messages = []
    section = override.package or group
    for option in map(str, named):
        if option not in options:
            near = difflib.get_close_matches(option, options, n=3, cutoff=0.5)
            hint = f"did you mean {' or '.join(near)}? " if near else ""
            messages.append(f"{section}={option}: there is no such config; {hint}choose from {', '.join(options)}")
    return messages
