"""Write the report of a folder of artifacts again: its index.html, as run_pipeline.py does at its end."""

import argparse
import sys
from pathlib import Path

from src.errors import StrataError


def main() -> None:
    """Write the page and say where it is."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "artifacts_dir",
        nargs="?",
        type=_folder,
        default=Path("artifacts"),
        metavar="ARTIFACTS_DIR",
        help="the folder that stages write their artifacts into; artifacts_dir=FOLDER does too (default: %(default)s)",
    )
    arguments = parser.parse_args()
    from src.report.index import write_index

    try:
        print(f"report: {write_index(arguments.artifacts_dir)}")
    except StrataError as error:
        sys.exit(f"make_report: {error}")


def _folder(argument: str) -> Path:
    """The folder, also where it is written as stages take it."""
    return Path(argument.removeprefix("artifacts_dir="))


if __name__ == "__main__":
    main()
