"""How far a capture has come: status.json, which anybody may read while it runs."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter, ValidationError

from src.artifacts import write_json
from src.artifacts.locks import is_abandoned
from src.errors import StrataError

STATUS = "status.json"
ItemState = Literal["pending", "running", "done", "failed"]


@dataclass(frozen=True)
class Status:
    """state: of the whole capture. items: state of each, in the order in which they are made. error: what ended it."""

    state: Literal["running", "finished", "failed", "killed"]
    items: dict[str, ItemState]
    error: str | None = None


def write_status(folder: Path, status: Status) -> None:
    """Write status.json; a reader sees the old one or this one."""
    write_json(folder / STATUS, asdict(status))


def read_status(folder: Path) -> Status:
    """The status of a capture; one that says `running` while no process fills the folder was `killed`.

    Raises StrataError if there is none, or it can't be read.
    """
    path = folder / STATUS
    try:
        status = _FORMAT.validate_json(path.read_bytes())
    except OSError as error:
        raise StrataError(f"{folder} holds no captured scenario ({STATUS}: {error.strerror})") from None
    except ValidationError as error:
        raise StrataError(f"{path} is damaged ({error.errors()[0]['msg']}): capture the scenario again") from None
    return replace(status, state="killed") if status.state == "running" and is_abandoned(folder) else status


_FORMAT = TypeAdapter(Status)
