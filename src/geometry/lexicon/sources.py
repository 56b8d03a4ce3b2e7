"""A taxonomy by the name that a user gives it."""

from pathlib import Path

from src.errors import StrataError
from src.geometry.lexicon.database import find_database, open_database
from src.geometry.lexicon.json_taxonomy import read_json_taxonomy
from src.geometry.lexicon.taxonomy import Taxonomy
from src.geometry.lexicon.wordnet import read_wordnet
from src.models.loading import PROJECT_ROOT

WORDNET = "wordnet"


def read_taxonomy(name: str) -> Taxonomy:
    """A taxonomy: `wordnet` = where this machine has it, a folder or zip with WordNet's files, or a JSON file.

    A relative path is looked for in the working directory, else in the project.

    Raises:
        StrataError: there is none, or it can't be read; the message says what can be done.
    """
    if name == WORDNET:
        return read_wordnet(find_database())
    path = Path(name).expanduser()
    path = path if path.exists() else PROJECT_ROOT / path
    if path.is_dir() or path.suffix == ".zip":
        return read_wordnet(open_database(path))
    if not path.exists():
        raise StrataError(
            f"lexicon.taxonomy={name} is not there: give a JSON taxonomy, a folder or zip with WordNet's database "
            f"files, or {WORDNET}"
        )
    return read_json_taxonomy(path)
