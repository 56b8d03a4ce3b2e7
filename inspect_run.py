"""Look into a captured scenario, at a model's modules, and exchange runs with Activation Lab.

  python inspect_run.py RUN [--steps 60]                  what was captured: conversations, states, text, steps
  python inspect_run.py layers MODEL [--depth 5]          modules, parameters, sources to capture (no weights)
  python inspect_run.py export RUN FOLDER                 write it as Activation Lab's npz files
  python inspect_run.py import FOLDER [--name NAME]       read a run of Activation Lab, in either of its layouts

RUN: a name below artifacts/scenario_run, or a path; a capture that still runs, or was killed, can be looked into too.
MODEL: a config of configs/model, a folder, or a hub id.
"""

import argparse
import os
import sys
from pathlib import Path

from src.errors import StrataError

_COMMANDS = ("show", "layers", "export", "import")


def _parser() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--artifacts-dir", type=Path, default=Path("artifacts"), help="folder that holds all artifacts")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True, metavar="{RUN,layers,export,import}")
    show = commands.add_parser("show", parents=[common])
    show.add_argument("run", help="name or path of a captured scenario")
    show.add_argument("--steps", type=int, default=60, help="steps of each run that are listed; 0 = none")
    layers = commands.add_parser("layers", help="the modules of a model")
    layers.add_argument("model", help="config of configs/model, folder, or hub id")
    layers.add_argument("--depth", type=int, default=5, help="levels of modules")
    layers.add_argument("--trust-remote-code", action="store_true", help="run code that ships with the checkpoint")
    export = commands.add_parser("export", parents=[common], help="write a run as Activation Lab's npz files")
    export.add_argument("run", help="name or path of a captured scenario")
    export.add_argument("folder", type=Path, help="where its folders are made")
    imported = commands.add_parser("import", parents=[common], help="read a run of Activation Lab")
    imported.add_argument("folder", type=Path, help="a run as Activation Lab wrote it")
    imported.add_argument("--name", help="name of the artifact")
    return parser


def main() -> None:
    """Do what the command line says."""
    words = sys.argv[1:]
    if words and not words[0].startswith("-") and words[0] not in _COMMANDS:
        words = ["show", *words]
    told = _parser().parse_args(words)
    try:
        _do(told)
    except StrataError as error:
        sys.exit(f"inspect_run: {error}")
    except BrokenPipeError:  # of `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _do(told: argparse.Namespace) -> None:
    from rich.console import Console

    from src.report.terminal import print_table
    from src.stage.scenarios import exchanging, inspecting

    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 140
    if told.command == "import":
        print(f"wrote {exchanging.import_run(told.folder, told.artifacts_dir, told.name).path}")
    elif told.command == "export":
        for folder in exchanging.export_run(told.run, told.artifacts_dir, told.folder):
            print(f"wrote {folder}")
    else:
        tables = (
            inspecting.model_tables(told.model, told.trust_remote_code, told.depth)
            if told.command == "layers"
            else inspecting.run_tables(inspecting.find_run(told.run, told.artifacts_dir), told.steps)
        )
        for table in tables:
            print_table(table, console)


if __name__ == "__main__":
    main()
