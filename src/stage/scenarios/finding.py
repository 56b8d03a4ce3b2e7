"""Which scenario files a user means: a name, a file, or a folder of files."""

import difflib
from pathlib import Path

from src.errors import StrataError
from src.models.loading import PROJECT_ROOT

_ENDINGS = (".yaml", ".yml")


def scenario_files(chosen: str, named: str) -> list[Path]:
    """The files of scenario=..., sorted by name.

    chosen: the name of a file in `named` without its ending, a file, or a folder (all .yaml and .yml in it). named: a
        folder; relative to the working directory, and to the project.

    Raises:
        StrataError: nothing is there, or a folder holds no scenario; the nearest names are told.
    """
    place = Path(chosen).expanduser()
    is_word = place.name == chosen and place.suffix not in _ENDINGS
    folders = (Path(named).expanduser(), PROJECT_ROOT / named)
    names = {path.stem: path for folder in reversed(folders) for path in _files_in(folder)}
    if is_word and chosen in names:
        return [names[chosen]]
    if place.is_dir():
        found = _files_in(place)
        if not found:
            raise StrataError(f"scenario={chosen}: the folder holds no scenario files (*.yaml, *.yml)")
        return found
    if place.is_file():
        return [place]
    if not is_word:
        raise StrataError(f"scenario={chosen}: no such file or folder (looked at {place.absolute()})")
    near = difflib.get_close_matches(chosen, names, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    raise StrataError(
        f"scenario={chosen}: {named} has no scenario of this name, and there is no such file or folder; {hint}"
        f"choose from {', '.join(sorted(names)) or 'none'}, or give the path of a scenario file"
    )


def _files_in(folder: Path) -> list[Path]:
    """Scenario files of a folder (not of those in it); none if there is no such folder."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.suffix in _ENDINGS and path.is_file())
