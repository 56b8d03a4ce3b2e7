"""`--help` of a stage: what it does, each key with its value, its limits and its meaning, and the config groups."""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hydra
from omegaconf import OmegaConf
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from src.config.schema import KeyInfo, flat_keys
from src.config.shared import StageConfig

_LEAST_WIDTH = 110


def print_help(run: Callable[..., Any], schema: type[StageConfig], config_name: str, configs: Path) -> None:
    """Print the help of a stage on stdout."""
    with hydra.initialize_config_dir(version_base="1.3", config_dir=str(configs)):
        config = hydra.compose(config_name, return_hydra_config=True)
    choices = OmegaConf.to_container(config.hydra.runtime.choices)
    console = Console(highlight=False)
    console.width = max(console.width, _LEAST_WIDTH)
    console.print(escape(inspect.getdoc(inspect.getmodule(run)) or ""), soft_wrap=True)
    console.print("\n[bold]Keys[/bold] (set one with key=value, sweep it with -m key=value1,value2)")
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in ("key", "value", "meaning"):
        table.add_column(heading, overflow="fold", no_wrap=heading == "key")
    for key, info in _own_keys_first(schema):
        node = OmegaConf.select(config, key, throw_on_missing=False)
        value = OmegaConf.to_container(node) if OmegaConf.is_config(node) else node
        shown = "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
        table.add_row(key, escape(shown), escape(f"{info.help} [{info.allowed}]"))
    console.print(table)
    console.print("\n[bold]Groups[/bold] (choose one with group=option)")
    assert isinstance(choices, dict)
    for name, chosen in choices.items():
        # model@target: an option of the group model for the section target
        group, _, section = str(name).partition("@")
        folder = configs / group
        if not group.startswith("hydra") and folder.is_dir():
            options = sorted(path.stem for path in folder.glob("[!_]*.yaml"))
            console.print(f"{section or group}={chosen or 'null'}  ({', '.join(options)})")
    console.print("\nHydra's own flags: --hydra-help; the composed config: --cfg job")


def _own_keys_first(schema: type[StageConfig]) -> list[tuple[str, KeyInfo]]:
    """What makes the stage comes before what every stage has."""
    classes = [cls for cls in schema.__mro__ if issubclass(cls, StageConfig)]
    depth = {name: place for place, cls in enumerate(classes) for name in inspect.get_annotations(cls)}
    return sorted(flat_keys(schema), key=lambda item: depth[item[0].split(".")[0]])
