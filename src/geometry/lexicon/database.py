"""Where WordNet's database files are: in a folder, or in the zip that NLTK downloads; found by the usual paths."""

import hashlib
import os
import re
import sys
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from src.errors import StrataError

# in this order the published notebook walks the parts of speech; file name -> part of speech
PARTS = {"adj": "a", "adv": "r", "noun": "n", "verb": "v"}
COUNTS = "cntlist.rev"
FILES = (*(f"{kind}.{part}" for part in PARTS for kind in ("data", "index")), COUNTS)

_REMEDY = (
    "install it with `apt-get install --no-install-recommends wordnet-base` or `python -m nltk.downloader wordnet`, or "
    "name a folder that holds data.noun and index.noun (or a JSON taxonomy)"
)


@dataclass(frozen=True)
class Database:
    """WordNet's database files.

    place: the folder or zip that they are in. members: name -> path, inside the zip if it is one.
    """

    place: Path
    members: Mapping[str, str]

    def lines(self, name: str) -> Iterator[tuple[int, str]]:
        """The lines of a file and their numbers, without the licence (its lines begin with blanks)."""
        with self._open(name) as file:
            for number, line in enumerate(file, 1):
                if not line.startswith((b" ", b"\n", b"\r")):
                    yield number, line.decode("utf-8", errors="replace").rstrip("\r\n")

    def wrong(self, name: str, line: int) -> StrataError:
        """That a line is not what it should be."""
        return StrataError(f"{self.place}: {name}, line {line}: not in the format of WordNet's database (wndb(5WN))")

    @property
    def version(self) -> str:
        """As the licence in data.noun says; empty if it does not."""
        with self._open("data.noun") as file:
            found = re.search(rb"WordNet (\d+(?:\.\d+)?) Copyright", file.read(5000))
        return found.group(1).decode() if found else ""

    @property
    def digest(self) -> str:
        """sha256 of names and contents."""
        whole = hashlib.sha256()
        for name in sorted(self.members):
            with self._open(name) as file:
                content = hashlib.sha256(file.read()).hexdigest()
            whole.update(f"{name} {content}\n".encode())
        return whole.hexdigest()

    @contextmanager
    def _open(self, name: str) -> Iterator[IO[bytes]]:
        try:
            if self.place.suffix == ".zip":
                with zipfile.ZipFile(self.place) as archive, archive.open(self.members[name]) as file:
                    yield file
            else:
                with open(self.members[name], "rb") as file:
                    yield file
        except (OSError, zipfile.BadZipFile, zlib.error) as error:
            raise StrataError(f"{self.place}: {name} can't be read ({error})") from error


def find_database() -> Database:
    """The WordNet of this machine: $WNSEARCHDIR, $WNHOME, NLTK's data, Debian's wordnet-base, in this order.

    Raises:
        StrataError: there is none; the message says how to get it.
    """
    unreadable = []
    for place in usual_places():
        try:
            if (found := _database(place)) is not None:
                return found
        except StrataError as error:
            unreadable.append(str(error))
    raise StrataError(unreadable[0] if unreadable else f"this machine has no WordNet: {_REMEDY}")


def open_database(place: Path) -> Database:
    """The WordNet in a folder or zip.

    Raises:
        StrataError: there is none; the message says how to get it.
    """
    if (found := _database(place)) is not None:
        return found
    there = "has no data.noun and index.noun" if place.exists() else "is not there"
    raise StrataError(f"{place} {there}: for WordNet {_REMEDY}")


def usual_places() -> Iterator[Path]:
    """Where WordNet's own tools, NLTK and distributions keep the files."""
    if folder := os.environ.get("WNSEARCHDIR"):
        yield Path(folder)
    if folder := os.environ.get("WNHOME"):
        yield Path(folder) / "dict"
    for data in _nltk_data():
        yield data / "corpora" / "wordnet"
        yield data / "corpora" / "wordnet.zip"
    yield Path("/usr/share/wordnet")
    yield Path("/usr/local/WordNet-3.0/dict")
    yield Path("/opt/homebrew/opt/wordnet/dict")


def _nltk_data() -> Iterator[Path]:
    # https://www.nltk.org/data.html; NLTK itself takes a second to import
    yield from (Path(folder) for folder in os.environ.get("NLTK_DATA", "").split(os.pathsep) if folder)
    yield Path("~/nltk_data").expanduser()
    yield from (Path(sys.prefix, *folder) / "nltk_data" for folder in ((), ("share",), ("lib",)))
    if sys.platform == "win32":
        roots = [os.environ.get("APPDATA", "C:\\"), "C:\\", "D:\\", "E:\\"]
        yield from (Path(root) / "nltk_data" for root in roots)
    else:
        yield from (
            Path(root) / "nltk_data" for root in ("/usr/share", "/usr/local/share", "/usr/lib", "/usr/local/lib")
        )


def _database(place: Path) -> Database | None:
    try:
        inside = _in_zip(place) if place.suffix == ".zip" else _in_folder(place)
    except (OSError, zipfile.BadZipFile) as error:
        raise StrataError(f"{place} can't be read ({error}): for WordNet {_REMEDY}") from error
    members = {name: path for name, path in inside.items() if name in FILES}
    return Database(place, members) if {"data.noun", "index.noun"} <= members.keys() else None


def _in_folder(folder: Path) -> dict[str, str]:
    return {path.name: str(path) for path in folder.iterdir() if path.is_file()} if folder.is_dir() else {}


def _in_zip(path: Path) -> dict[str, str]:
    if not path.is_file():
        return {}
    with zipfile.ZipFile(path) as archive:
        return {Path(name).name: name for name in archive.namelist()}
